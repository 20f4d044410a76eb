"""A run's model card as the Hub reads it: the README beside the weights, with what its pages are found and shown by.

The front matter gets the base model and the data sets where these are on the Hub, and every number of the report that
has an interval as an entry of `model-index`. What names this machine's folders is shortened, and no card holds a token.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.data.hub import parse_hub_name
from trimtab.errors import ConfigError

SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "OPENAI_API_KEY", "WANDB_API_KEY")
_LEAST_SECRET = 8  # characters; shorter values stand in any text


@dataclass(frozen=True, slots=True)
class HubCard:
    """The README to push, and what had to be left out of it, a sentence each."""

    text: str
    notes: tuple[str, ...]


def hub_card(
    readme: str,
    *,
    repo: str,
    config: Mapping[str, Any],
    report: Mapping[str, Any],
    merged: bool = False,
    secrets: tuple[str, ...] = (),
) -> HubCard:
    """`readme` is the user's text and stays; `config` and `report` are the run folder's trees.

    Raises ConfigError where the text holds one of `secrets` or of the environment's keys, or has no readable front
    matter.
    """
    from huggingface_hub import ModelCard

    try:
        card = ModelCard(_without_home(readme).rstrip() + "\n" + _reproduction(config, report))
    except Exception as error:  # YAML's own, or a ValueError of the library
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(f"the model card cannot be read: {first}", remedy="mend model/README.md") from error
    notes: list[str] = []
    data: Any = card.data  # of a model, by its fields
    base, sources = str(config["model"]["name"]), _hub_sources(config)
    data.base_model = base if _is_on_hub(base) else None
    if data.base_model is None:
        notes.append(f"the card names no base model: {_shortened(base)} is not on the Hub")
    elif merged:
        data.base_model_relation = "finetune"
    if merged:
        data.library_name = "transformers"
    data.datasets = sources or None
    if not sources:
        notes.append("the card names no data set: the pairs are not on the Hub")
    if data.license is None:
        notes.append("the card names no license: write `license: …` at the head of model/README.md")
    data.model_name = repo.partition("/")[2]
    task = data.pipeline_tag or "text-generation"
    data.eval_results = list(_results(report, task, pairs=sources[0] if len(sources) == 1 else None)) or None
    text = str(card)
    for secret in (*secrets, *(os.environ.get(name, "") for name in SECRETS)):
        if len(secret) >= _LEAST_SECRET and secret in text:
            raise ConfigError("the model card holds a token or an API key", remedy="remove it from model/README.md")
    return HubCard(text, tuple(notes))


def _results(report: Mapping[str, Any], task: str, *, pairs: str | None) -> Iterator[Any]:
    """The report's headline numbers, each with its interval in its name, where pages show it, and in its `args`."""
    heldout, benchmark = report.get("heldout"), report.get("benchmark")
    if heldout is not None:
        name, kind = "preference pairs held out of training", pairs or "preference-pairs"
        yield from _result(
            task, heldout["accuracy"], "accuracy", "reward accuracy", kind=kind, dataset=name, unit="pairs"
        )
    if benchmark is None:
        return
    kind, baseline = benchmark["name"], benchmark["baseline"] or {}
    other = baseline["name"] if baseline.get("published") else "the unaligned model"
    for judge in benchmark["judges"]:
        words = f"win rate in % over {other}, judged by {judge['label']}"
        where = {"kind": kind, "dataset": kind, "unit": "prompts"}
        yield from _result(task, judge["win_rate"], "win_rate", words, **where)
        yield from _result(task, judge["length_controlled"], "win_rate", f"length-controlled {words}", **where)
    if (marks := benchmark["marks"]) is not None:
        words = f"mean mark of 10, by {marks['judge']}"
        yield from _result(
            task, marks["all"]["means"]["aligned"], "mean_mark", words, kind=kind, dataset=kind, unit="questions"
        )


def _result(
    task: str, estimate: Mapping[str, Any] | None, metric: str, words: str, *, kind: str, dataset: str, unit: str
) -> Iterator[Any]:
    from huggingface_hub import EvalResult

    if estimate is None or estimate.get("value") is None:
        return
    bounds, n = estimate.get("ci95"), estimate.get("n")
    interval = "no interval" if bounds is None else f"95 % CI {bounds[0]:.4g} to {bounds[1]:.4g}"
    yield EvalResult(
        task_type=task,
        dataset_type=kind,
        dataset_name=dataset,
        metric_type=metric,
        metric_value=estimate["value"],
        metric_name=f"{words} ({interval}, {n} {unit})",
        metric_args={"ci95": bounds, "n": n, "method": estimate.get("method")},
    )


def _reproduction(config: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    from trimtab.version import __version__

    repeat, versions = report["reproduce"], report.get("versions") or {}
    packages = ", ".join(f"{name} {version}" for name, version in (versions.get("packages") or {}).items() if version)
    command = repeat["from_flags"] or repeat["from_file"]
    lines = ["", "## How to reproduce", ""]
    if command:
        lines += [
            "```sh",
            f"pip install trimtab=={versions.get('trimtab', __version__)}",
            _without_home(command),
            "```",
            "",
        ]
    lines += [repeat["note"]]
    lines += [f"Seed {config['seed']}. Python {versions.get('python')}, {packages}." if packages else ""]
    return "\n".join(lines).rstrip() + "\n"


def _hub_sources(config: Mapping[str, Any]) -> list[str]:
    source = config["data"]["source"]
    names = [source] if isinstance(source, str) else list(source)
    hub_names = [parse_hub_name(name) for name in names if _is_on_hub(name.partition("@")[0].partition(":")[0])]
    return list(dict.fromkeys(name.id for name in hub_names if name is not None))


def _is_on_hub(name: str) -> bool:
    """Whether a name can only be the Hub's: owner/name, and nothing of that name here."""
    parsed = parse_hub_name(name)
    return parsed is not None and name.count("/") == 1 and not Path(name).exists()


def _without_home(text: str) -> str:
    return text.replace(str(Path.home()) + os.sep, f"~{os.sep}")


def _shortened(name: str) -> str:
    return Path(name).name if os.sep in name else name
