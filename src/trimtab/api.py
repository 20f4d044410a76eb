"""trimtab from Python: the same stages as on the command line, called as functions.

Everything but the first argument is keyword-only, and a key that does not exist is the same `ConfigError`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab import config as configuration
from trimtab import store
from trimtab.config import Config, PythonObjectiveSection, files
from trimtab.errors import ConfigError
from trimtab.objectives import Objective, is_registered
from trimtab.records import Pair, digest


@dataclass(frozen=True, slots=True)
class Run:
    """What a finished run left: its folder, the model's folder, and the numbers of `report.json` (None without one)."""

    folder: Path
    model: Path
    report: Mapping[str, Any] | None


def run(config: str | Path | Mapping[str, Any] | None = None, *, quiet: bool = True, **keys: Any) -> Run:
    """The whole pipeline, as `trimtab run`.

    `config` is a TOML, YAML or JSON file or a tree of keys; None is the embedded wind tunnel. `keys` are laid on top:
    sections as mappings (`train={"epochs": 2}`), main fields as bare words (`objective="dpo"`).
    Raises `UserError` for what cannot be run, `RunError` when the run fails.
    """
    base: Mapping[str, Any]
    if isinstance(config, Mapping):
        base = config
    else:
        base = files.on_recipe({} if config is None else files.read_file(Path(config)), keys)
    return _run(configuration.resolve(configuration.merge(base, keys)), quiet=quiet)


def _run(config: Config, *, quiet: bool) -> Run:
    from trimtab.commands import run as command  # with torch: a typing mistake is answered before that
    from trimtab.progress import reporter

    folder = command.main(config, reporter=reporter(quiet=quiet))
    report = store.read_json(folder.report("json")) if folder.report("json").is_file() else None
    return Run(folder.root, folder.model, report)


def train(
    model: str | Path,
    *,
    pairs: str | Path | Iterable[Pair],
    objective: Objective,
    out: str | Path | None = None,
    quiet: bool = True,
    **keys: Any,
) -> Run:
    """Align `model` (a Hub id or a folder) on `pairs` (a source that `trimtab audit` reads, or `Pair` values).

    `objective` is a value such as `trimtab.ApoHingeZero(beta=0.1, margin=1.0)`, or of a frozen dataclass of your own
    (docs/objectives.md); `keys` as for `run`. Pairs given as values are written to a file in the global cache, named by
    their content. With the same `out` and the same values it goes on from the newest checkpoint.
    """
    if not isinstance(objective, Objective):
        raise ConfigError(
            f"objective is a {type(objective).__name__}", remedy="give a value such as trimtab.ApoHingeZero()"
        )
    tree = configuration.merge({"model": str(model), "data": {"source": _source(pairs)}}, keys)
    if out is not None:
        tree["out"] = str(out)
    if not is_registered(objective):
        return _run(configuration.resolve(tree, objective=PythonObjectiveSection.of(objective)), quiet=quiet)
    parameters = {name: value for name, value in objective.parameters().items() if value is not None}
    tree["objective"] = {"name": objective.name} | parameters
    return _run(configuration.resolve(tree), quiet=quiet)


def winrate(
    file: str | Path,
    *,
    kind: str = "alpaca_eval",
    difficulty: str | Path | None = None,
    gamed: str | Path | None = None,
    questions: str | Path | None = None,
    benchmark_dir: str | Path | None = None,
    allow_missing: bool = False,
    offline: bool = False,
) -> dict[str, Any]:
    """Raw and length-controlled win rate of an AlpacaEval annotations file, or mean marks with `kind="mt_bench"`.

    The keys of `trimtab winrate --json`. Raises `RunError` when more than 1 % is missing, unless `allow_missing`.
    """
    from trimtab.studies.winrate import command

    def text(path: str | Path | None) -> str | None:
        return None if path is None else str(path)

    numbers = command.main(
        str(file),
        kind=kind,
        difficulty=text(difficulty),
        gamed=text(gamed),
        questions=text(questions),
        benchmark_dir=text(benchmark_dir),
        allow_missing=allow_missing,
        offline=offline,
    )
    return numbers.to_json()


def _source(pairs: str | Path | Iterable[Pair]) -> str:
    if isinstance(pairs, str | Path):
        return str(pairs)
    rows = [
        {"prompt": [m.to_json() for m in pair.prompt]} | _responses(pair) | _template_columns(pair) for pair in pairs
    ]
    path = store.home() / "pairs" / f"{digest(rows)}.jsonl"
    store.write_jsonl(path, rows)
    return str(path)


def _responses(pair: Pair) -> dict[str, object]:
    """As texts, or as messages where one of them is more than its text."""
    chosen, rejected = pair.responses
    if not chosen.extras + rejected.extras:
        return {"chosen": pair.chosen, "rejected": pair.rejected}
    return {"chosen": [chosen.to_json()], "rejected": [rejected.to_json()]}


def _template_columns(pair: Pair) -> dict[str, object]:
    arguments = json.loads(pair.template_arguments or "{}")
    tools = {"tools": arguments.pop("tools")} if "tools" in arguments else {}
    return tools | ({"chat_template_kwargs": arguments} if arguments else {})


__all__ = ["Run", "run", "train", "winrate"]
