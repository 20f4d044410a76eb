"""What `make findings` runs: the sweeps, then the probes and calibrations of their points. Each step can be repeated:
what is whole and of the same recipe is left as it is, a stopped sweep goes on.
"""

from __future__ import annotations

import hashlib
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments import tuning
from experiments.questions import calibration, saturation
from experiments.read_sweeps import read
from experiments.revision import ROOT, revision
from trimtab import store

TWINS, OWN = "recipes/windtunnel", "experiments/recipes"
MODELS = Path("runs/models")
RECORD = "made.json"  # in a sweep's folder: by which revision and recipe it was made

QUICK = ("--windtunnel.pairs", "64", "--windtunnel.prompts", "40", "--train.epochs", "1", "--seeds", "2")
REAL_QUICK = ("--train.epochs", "1", "--train.batch-pairs", "8", "--seeds", "2")
REAL_ROWS = 384  # of a real set, evenly over its file, which goes by topic


class CannotRun(Exception):  # noqa: N818  # a message for the person who typed the command
    """What stands in the way, and what to do."""


@dataclass(frozen=True, slots=True)
class SweepSpec:
    """A sweep: the folder of its recipe, and the words that make it small enough to try in a minute."""

    name: str
    folder: str = TWINS
    quick: tuple[str, ...] = QUICK
    data: str = ""  # under DIR/pairs of --shared; only then is the sweep made

    @property
    def recipe(self) -> str:
        return f"{self.folder}/{self.name}.toml"


def _grid(*axes: str) -> tuple[str, ...]:
    """Small, on these axes in place of the recipe's; a key that is an axis is no flag beside it."""
    flags = [(flag, value) for flag, value in _flags(QUICK) if not any(axis.startswith(flag[2:]) for axis in axes)]
    return (*(word for pair in flags for word in pair), *(word for axis in axes for word in ("--grid", axis)))


def _flags(words: Sequence[str]) -> list[tuple[str, str]]:
    """Flags with their values."""
    return list(zip(words[::2], words[1::2], strict=True))


SWEEPS: tuple[SweepSpec, ...] = (
    SweepSpec("dead-zone", quick=_grid("windtunnel.length_bias=0,0.5", "objective.margin=1,1000")),
    SweepSpec("dead-zone-sigmoid", quick=_grid("windtunnel.length_bias=0,0.5")),
    SweepSpec("less-training", OWN, _grid("train.learning_rate=1e-4,5e-4")),
    SweepSpec("tuning", quick=_grid("train.learning_rate=5e-4", "objective.beta=0.3,1")),
    SweepSpec("ranking", quick=_grid("windtunnel.length_bias=0.5")),
    SweepSpec("margin-beta", quick=_grid("objective.margin=0.5,2", "objective.beta=0.3,3")),
    SweepSpec("noise", quick=_grid("windtunnel.label_noise=0,0.3")),
    SweepSpec("sizes", quick=_grid("model.name=windtunnel")),
    SweepSpec("regimes", quick=_grid("objective.beta=0.3", "train.learning_rate=1e-4,5e-4", "train.epochs=1")),
    SweepSpec("starvation", OWN, _grid("windtunnel.pairs=64", "train.epochs=1", "objective.beta=3")),
    SweepSpec("selection", OWN, ("--windtunnel.pairs", "64", "--windtunnel.prompts", "40", "--seeds", "2")),
    SweepSpec("real-ukp", OWN, REAL_QUICK, data="ukp-convarg1-strict"),
    SweepSpec("real-finegrained", OWN, REAL_QUICK, data="finegrained-rlhf-dev"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Options:
    """What to make: `runs` holds a folder a sweep; `only` names sweeps (none: all); `words` go to every sweep."""

    runs: Path
    quick: bool = False
    real_data: Path | None = None
    workers: int = 2
    only: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    say: Callable[[str], None] = print


def command(name: str) -> str:
    """What makes this sweep and nothing else."""
    spec = next(spec for spec in SWEEPS if spec.name == name)
    return f"python -m experiments --only {name}{' --shared DIR' if spec.data else ''}"


def make(options: Options) -> None:
    """Every sweep of the options that is not whole yet, then what is measured on its points.

    Raises CannotRun for a sweep that failed, or a ranking whose values are not those that tuning picked.
    """
    for spec in SWEEPS:
        if (options.only and spec.name not in options.only) or (spec.data and options.real_data is None):
            continue
        if not (ROOT / spec.recipe).is_file():
            options.say(f"{spec.name}: there is no {spec.recipe}")
            continue
        if spec.name == "ranking" and not options.quick:
            _require_tuned(options.runs)
        if spec.name == "sizes" and not options.quick:
            _models(options)
        folder, words = options.runs / spec.name, _words(spec, options)
        if is_whole(folder, spec, words):
            options.say(f"{spec.name}: whole already")
        else:
            _sweep(spec, folder, words, options)
        _measure(folder, options)


def is_whole(folder: Path, spec: SweepSpec, words: Sequence[str]) -> bool:
    """Whether every run is done (or ended as starved), by the recipe as it stands.

    A folder that does not say by what it was made is taken as it is: the page prints the command that it keeps.
    """
    if not (folder / "sweep.json").is_file() or not set(store.read_json(folder / "sweep.json")["states"]) <= {
        "done",
        "starved",
    }:
        return False
    if not (folder / RECORD).is_file():
        return True
    record = store.read_json(folder / RECORD)
    return bool(record["recipe_sha256"] == _digest(spec) and record["words"] == list(words))


def revision_of(folder: Path) -> str:
    """The revisions that made the runs of a sweep; "unknown" where it was not made from here."""
    path = folder / RECORD
    return ", ".join(store.read_json(path)["revisions"]) if path.is_file() else "unknown"


def _words(spec: SweepSpec, options: Options) -> tuple[str, ...]:
    words = (*(spec.quick if options.quick else ()), *options.words)
    if spec.data and options.real_data is not None:
        model, pairs = (
            options.real_data / "models" / "cardputer-chat-3M",
            options.real_data / "pairs" / spec.data / "pairs.jsonl",
        )
        for path in (model, pairs):
            if not path.exists():
                raise CannotRun(f"{spec.name}: there is no {path}; leave --shared out or name another folder")
        words = ("--model", str(model), "--data", str(_thin(pairs, options.runs / spec.name, options)), *words)
    return words


def _thin(pairs: Path, folder: Path, options: Options) -> Path:
    """Every k-th row of a file, so that all of its topics are there: the first rows are all of one."""
    rows = store.read_jsonl(pairs)
    n = REAL_ROWS // 16 if options.quick else REAL_ROWS
    folder.mkdir(parents=True, exist_ok=True)
    store.write_jsonl(folder / "pairs.jsonl", rows[:: max(1, len(rows) // n)][:n])
    return folder / "pairs.jsonl"


def _sweep(spec: SweepSpec, folder: Path, words: Sequence[str], options: Options) -> None:
    old = store.read_json(folder / RECORD)["revisions"] if (folder / RECORD).is_file() else []
    folder.mkdir(parents=True, exist_ok=True)
    revisions = list(dict.fromkeys([*old, revision()]))
    store.write_json(folder / RECORD, {"revisions": revisions, "recipe_sha256": _digest(spec), "words": list(words)})
    command = ["sweep", spec.recipe, "--out", str(folder), "--workers", str(options.workers), "--retry-failed", *words]
    _trimtab(command, options)


def _measure(folder: Path, options: Options) -> None:
    """Probe and calibrate the points that the page shows, where that has not been done."""
    sweep = read(folder)
    if sweep is None:
        return
    for command, file, selections in (
        ("probe", "probe.json", saturation.POINTS),
        ("calibrate", "calibration.json", calibration.POINTS),
    ):
        for point in sweep.among(selections[sweep.name]) if sweep.name in selections else []:
            if not (point.folder / file).is_file():
                _trimtab([command, str(point.folder)], options)


def _trimtab(words: Sequence[str], options: Options) -> None:
    options.say(shlex.join(["trimtab", *words]))
    process = subprocess.run(
        [sys.executable, "-m", "trimtab.cli", *words], cwd=ROOT, check=False, stdout=subprocess.DEVNULL
    )
    if process.returncode:
        raise CannotRun(
            f"`{shlex.join(['trimtab', *words])}` ended with exit code {process.returncode}; the same command goes on"
        )


def _require_tuned(runs: Path) -> None:
    sweep = read(runs / "tuning")
    if sweep is None:
        raise CannotRun("ranking needs the tuning sweep: run that first (`python -m experiments --only tuning`)")
    if lines := tuning.differences(tuning.tune(tuning.read_trials(sweep)), tuning.recipe_values()):
        changes = "\n  ".join(lines)
        raise CannotRun(f"the ranking's values are not what tuning picked; change {tuning.RECIPE.name}:\n  {changes}")


def _models(options: Options) -> None:
    for size in ("small", "large"):
        if not (ROOT / MODELS / size).is_dir():
            words = ["-m", "trimtab.windtunnel.recipe", "--size", size, "--out", str(MODELS / size)]
            options.say(shlex.join(["python", *words]))
            subprocess.run([sys.executable, *words], cwd=ROOT, check=True)


def _digest(spec: SweepSpec) -> str:
    return hashlib.sha256((ROOT / spec.recipe).read_bytes()).hexdigest()
