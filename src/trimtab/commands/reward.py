"""A reward model from preference pairs: a run whose objective is Bradley and Terry's, and its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trimtab import store, windtunnel
from trimtab.commands import run
from trimtab.config import EMBEDDED_RECIPE, Config, files, merge, resolve
from trimtab.config.flags import setting
from trimtab.errors import ConfigError
from trimtab.progress import Reporter

HOLDOUT = 0.1  # of the prompts: its accuracy is all that is known of a reward model


def resolve_config(data: str, flags: Mapping[str, Any]) -> Config:
    """The run that is meant. The embedded world's recipe holds where its pairs are named and no other model."""
    objective = flags.get("objective", "bradley_terry")
    name = objective.get("name", "bradley_terry") if isinstance(objective, Mapping) else objective
    if name != "bradley_terry":
        raise ConfigError(f"{name} does not train a reward model", remedy="leave --objective out, or use `trimtab run`")
    own = merge({}, flags).get("data", {})
    if "source" in own:
        raise ConfigError("the pairs are named twice: DATA and --data", remedy="leave --data out")
    base: dict[str, Any] = merge(setting("data.source", data), {"benchmark": "none"})
    if "eval" not in own:  # which are pairs of their own to hold out
        base = merge(base, {"data": {"holdout": HOLDOUT}})
    if data == windtunnel.NAME and "model" not in flags:
        recipe = files.read_file(EMBEDDED_RECIPE)
        base = merge({key: recipe[key] for key in ("model", "data", "windtunnel", "train", "engine")}, base)
    return resolve(merge(merge(base, flags), {"objective": {"name": "bradley_terry"}}))


def main(config: Config, *, reporter: Reporter, resume: bool = False, resume_anyway: bool = False) -> dict[str, Any]:
    """Train it, or go on with it; what its report says of it."""
    folder = run.main(config, reporter=reporter, resume=resume, resume_anyway=resume_anyway)
    report = store.read_json(folder.report("json"))
    model = None if config.seeds > 1 else str(folder.model)
    return {"model": model} | {key: report[key] for key in ("heldout", "reward", "headline")}


def lines(numbers: Mapping[str, Any]) -> list[str]:
    """What came of it, for a terminal."""
    return [sentence["text"].replace("**", "") for sentence in numbers["headline"]]
