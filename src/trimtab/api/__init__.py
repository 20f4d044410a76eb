"""trimtab from Python: the same stages as on the command line, called as functions (docs/python.md).

Everything but the first argument is keyword-only, and a key that does not exist is the same `ConfigError`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from trimtab import config as configuration
from trimtab.api.results import Report, Run, Sweep
from trimtab.api.sources import answers_file, model_source, pair_source
from trimtab.callbacks import Callback
from trimtab.config import Config, PythonObjectiveSection, files
from trimtab.errors import ConfigError
from trimtab.objectives import Objective, is_registered

Side = str | Path | Run


def run(
    config: str | Path | Mapping[str, Any] | None = None,
    *,
    quiet: bool = True,
    callbacks: Sequence[Callback] = (),
    **keys: Any,
) -> Run:
    """The whole pipeline, as `trimtab run`.

    `config` is a TOML, YAML or JSON file or a tree of keys; None is the embedded wind tunnel. `keys` are laid on top:
    sections as mappings (`train={"epochs": 2}`), main fields as bare words (`objective="dpo"`). `quiet`: lines on
    stderr in place of a terminal's bars; elsewhere, as in a notebook, there are lines in any case. `callbacks`: see
    `trimtab.Callback`. Raises `UserError` for what cannot be run, `RunError` when the run fails.

    >>> run = trimtab.run(windtunnel={"pairs": 16, "prompts": 8}, train={"max_steps": 2})
    >>> run.report()["benchmark"]["name"]
    'windtunnel'
    """
    return _run(configuration.resolve(_tree(config, keys)), quiet=quiet, callbacks=callbacks)


def train(
    model: Any,
    *,
    pairs: Any,
    objective: Objective,
    tokenizer: Any = None,
    out: str | Path | None = None,
    quiet: bool = True,
    callbacks: Sequence[Callback] = (),
    **keys: Any,
) -> Run:
    """Align `model` on `pairs`.

    `model`: a Hub id, a folder, or a loaded transformers or PEFT model with its `tokenizer`. A loaded one is not
    changed: a copy of its weights (a PEFT model's merged) goes into the global cache, and is the frozen reference too.
    `pairs`: a source that `trimtab audit` reads, or rows in any of its forms: dicts, `Pair` or `Unpaired` values, a
    `datasets.Dataset`, a pandas or polars frame, an iterator, which is read to its end. They go into a file in the
    global cache that is named by their content: with the same `out` and the same rows a stopped run goes on from its
    newest checkpoint, and other rows are refused. `objective`: a value such as
    `trimtab.ApoHingeZero(beta=0.1, margin=1.0)`, or of a frozen dataclass of your own (docs/objectives.md). The rest is
    as for `run`. Raises ConfigError, DataError and ModelError before anything is trained, RunError when it fails.

    >>> rows = [{"prompt": f"What is {n} plus {n}?", "chosen": f"{2 * n}.", "rejected": "No."} for n in range(24)]
    >>> run = trimtab.train("windtunnel", pairs=rows, objective=trimtab.Dpo(beta=0.1), train={"max_steps": 2})
    >>> print(f"{run.metrics.loss[0]:.4f}")  # ln 2: the model is still the reference
    0.6931
    """
    if not isinstance(objective, Objective):
        raise ConfigError(
            f"objective is a {type(objective).__name__}", remedy="give a value such as trimtab.ApoHingeZero()"
        )
    tree = configuration.merge({"model": model_source(model, tokenizer), "data": {"source": pair_source(pairs)}}, keys)
    if out is not None:
        tree["out"] = str(out)
    if not is_registered(objective):
        config = configuration.resolve(tree, objective=PythonObjectiveSection.of(objective))
        return _run(config, quiet=quiet, callbacks=callbacks)
    parameters = {name: value for name, value in objective.parameters().items() if value is not None}
    tree["objective"] = {"name": objective.name} | parameters
    return _run(configuration.resolve(tree), quiet=quiet, callbacks=callbacks)


def _tree(config: str | Path | Mapping[str, Any] | None, keys: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(config, Mapping):
        return configuration.merge(config, keys)
    base = files.on_recipe({} if config is None else files.read_file(Path(config)), dict(keys))
    return configuration.merge(base, keys)


def _run(config: Config, *, quiet: bool, callbacks: Sequence[Callback] = ()) -> Run:
    from trimtab.commands import run as command  # with torch: a typing mistake is answered before that
    from trimtab.progress import reporter

    return Run(command.main(config, reporter=reporter(quiet=quiet), callbacks=callbacks).root)


def sweep(
    config: str | Path | Mapping[str, Any] | None = None,
    *,
    grid: Mapping[str, Iterable[object]],
    trials: int | None = None,
    on: Literal["local", "slurm", "ray"] = "local",
    workers: int | None = None,
    cpus_per_run: int | None = None,
    gpus_per_run: float | None = None,
    retry_failed: bool = False,
    stop_starved: bool = False,
    quiet: bool = True,
    **keys: Any,
) -> Sweep:
    """A run for each point of `grid` and each of `seeds=K` seeds, mapped on one page, as `trimtab sweep`.

    `grid`: values by key (`{"objective.margin": [0.5, 1.0]}`); `config` and `keys` as for `run`. `trials`: search so
    many points of it, where there may be ranges (`["1e-5..1e-3"]`). `on`, `workers` and what each run may use are the
    options of docs/cluster.md. Runs that failed are on the page (`report()["runs"]`), and are tried again with
    `retry_failed`. Raises ConfigError for a key that cannot be varied.

    >>> small = {"windtunnel": {"pairs": 16, "prompts": 8}, "train": {"max_steps": 2}}
    >>> sweep = trimtab.sweep(grid={"objective.margin": [0.5, 1.0]}, out="runs/margins", **small)
    >>> len(sweep.runs)
    2
    """
    from trimtab.progress import reporter
    from trimtab.studies.sweep import command
    from trimtab.studies.sweep import grid as axes
    from trimtab.studies.sweep.resources import Resources

    resources = Resources(on, workers, cpus_per_run, gpus_per_run)
    chosen_axes = [axes.text_axis(key, [_word(value) for value in values]) for key, values in grid.items()]
    base = {} if config is None else config if isinstance(config, Mapping) else files.read_file(Path(config))
    tree = files.on_recipe(dict(base), dict(keys))
    expansion = command.expand_any(tree, keys, axes=chosen_axes, n_trials=trials)
    command.main(
        expansion,
        command="trimtab.sweep",
        reporter=reporter(quiet=quiet),
        resources=resources,
        retry_failed=retry_failed,
        stop_starved=stop_starved,
    )
    return Sweep(Path(expansion.out))


def _word(value: object) -> str:
    """A value as a flag writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def judge(answers: str | Path | Iterable[Mapping[str, Any]], *, quiet: bool = True, **keys: Any) -> dict[str, Any]:
    """Judge somebody's answers and give the numbers of `winrate`, as `trimtab judge FILE`.

    `answers`: a file in AlpacaEval's or FastChat's form, or AlpacaEval's rows (`instruction`, `output`, `generator`).
    `keys` say of whom and by whom: `benchmark="alpaca_eval"` or a file of prompts, `judge="openai:MODEL"` or
    `"reward:MODEL"`. The answers of a run are judged by `trimtab.run(FOLDER/"config.json", judge=…)`, which trains
    nothing again. Verdicts are kept: what was asked once is not asked again. Raises UserError for what cannot be
    judged, EndpointError for a server that refuses, RunError when more than 1 % is missing.
    """
    from trimtab.progress import reporter
    from trimtab.studies.winrate import judge_file

    file = str(answers) if isinstance(answers, str | Path) else str(answers_file(answers))
    return judge_file.main(file, judge_file.resolve(file, keys), reporter=reporter(quiet=quiet)).to_json()


def compare(
    a: Side,
    b: Side,
    *,
    benchmark: str | None = None,
    judge: str | None = None,
    questions: str | Path | None = None,
    allow_missing: bool = False,
) -> dict[str, Any]:
    """Is `a` better than `b`, paired by prompt? The keys of `trimtab compare --json`, in points of win rate or marks.

    Each is a `Run`, its folder (`"FOLDER:unaligned"` for its unaligned model) or a file of judgments (`"FILE:MODEL"`).
    Raises ConfigError for words that name nothing, DataError for judgments that cannot be compared.

    >>> small = {"windtunnel": {"pairs": 16, "prompts": 12}, "train": {"max_steps": 2}}
    >>> a, b = (trimtab.run(seed=seed, out=f"runs/seed-{seed}", **small) for seed in (0, 1))
    >>> trimtab.compare(a, b)["n_common"]
    12
    """
    from trimtab.studies.comparison import command

    sides = [str(side.folder) if isinstance(side, Run) else str(side) for side in (a, b)]
    numbers = command.main(
        *sides, benchmark=benchmark, judge=judge, questions=_text(questions), allow_missing=allow_missing
    )
    return numbers.to_json()


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

    numbers = command.main(
        str(file),
        kind=kind,
        difficulty=_text(difficulty),
        gamed=_text(gamed),
        questions=_text(questions),
        benchmark_dir=_text(benchmark_dir),
        allow_missing=allow_missing,
        offline=offline,
    )
    return numbers.to_json()


def _text(path: str | Path | None) -> str | None:
    return None if path is None else str(path)


__all__ = ["Report", "Run", "Sweep", "compare", "judge", "run", "sweep", "train", "winrate"]
