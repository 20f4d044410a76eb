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
from typing import Any

from experiments import tuning
from experiments.questions import calibration, saturation
from experiments.sweeps_read import read
from trimtab import store

ROOT = Path(__file__).resolve().parents[1]
TWINS, OWN = "recipes/windtunnel", "experiments/recipes"
MODELS = Path("runs/models")
MADE = "made.json"  # in a sweep's folder: by which revision and recipe

QUICK = ("--windtunnel.pairs", "64", "--windtunnel.prompts", "40", "--train.epochs", "1", "--seeds", "2")
REAL_QUICK = ("--train.epochs", "1", "--train.batch-pairs", "8", "--seeds", "2")
REAL_ROWS = 384  # of a real set, evenly over its file, which goes by topic


class Refused(Exception):  # noqa: N818  # a message for the person who typed the command
    """What stands in the way, and what to do."""


@dataclass(frozen=True, slots=True)
class Made:
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


SWEEPS: tuple[Made, ...] = (
    Made("dead-zone", quick=_grid("windtunnel.length_bias=0,0.5", "objective.margin=1,1000")),
    Made("dead-zone-sigmoid", quick=_grid("windtunnel.length_bias=0,0.5")),
    Made("less-training", OWN, _grid("train.learning_rate=1e-4,5e-4")),
    Made("tuning", quick=_grid("train.learning_rate=5e-4", "objective.beta=0.3,1")),
    Made("ranking", quick=_grid("windtunnel.length_bias=0.5")),
    Made("margin-beta", quick=_grid("objective.margin=0.5,2", "objective.beta=0.3,3")),
    Made("noise", quick=_grid("windtunnel.label_noise=0,0.3")),
    Made("sizes", quick=_grid("model.name=windtunnel")),
    Made("regimes", quick=_grid("objective.beta=0.3", "train.learning_rate=1e-4,5e-4", "train.epochs=1")),
    Made("starvation", OWN, _grid("windtunnel.pairs=64", "train.epochs=1", "objective.beta=3")),
    Made("selection", OWN, ("--windtunnel.pairs", "64", "--windtunnel.prompts", "40", "--seeds", "2")),
    Made("real-ukp", OWN, REAL_QUICK, data="ukp-convarg1-strict"),
    Made("real-finegrained", OWN, REAL_QUICK, data="finegrained-rlhf-dev"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Order:
    """What was asked for: `runs` holds a folder a sweep; `only` names sweeps (none: all); `words` go to every sweep."""

    runs: Path
    quick: bool = False
    shared: Path | None = None
    workers: int = 2
    only: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    say: Callable[[str], None] = print


def named(name: str) -> Made:
    return next(made for made in SWEEPS if made.name == name)


def command(made: Made) -> str:
    """What makes this sweep and nothing else."""
    return f"python -m experiments --only {made.name}{' --shared DIR' if made.data else ''}"


def make(order: Order) -> None:
    """Every sweep that is asked for and not whole yet, then what is measured on its points.

    Raises Refused for a sweep that failed, or a ranking whose values are not those that tuning picked.
    """
    for made in SWEEPS:
        if (order.only and made.name not in order.only) or (made.data and order.shared is None):
            continue
        if not (ROOT / made.recipe).is_file():
            order.say(f"{made.name}: there is no {made.recipe}")
            continue
        if made.name == "ranking" and not order.quick:
            _require_tuned(order.runs)
        if made.name == "sizes" and not order.quick:
            _models(order)
        folder, words = order.runs / made.name, _words(made, order)
        if is_whole(folder, made, words):
            order.say(f"{made.name}: whole already")
        else:
            _sweep(made, folder, words, order)
        _measure(folder, order)


def is_whole(folder: Path, made: Made, words: Sequence[str]) -> bool:
    """Whether every run is done (or ended as starved), by the recipe as it stands.

    A folder that does not say by what it was made is taken as it is: the page prints the command that it keeps.
    """
    if not (folder / "sweep.json").is_file() or not set(store.read_json(folder / "sweep.json")["states"]) <= {
        "done",
        "starved",
    }:
        return False
    if not (folder / MADE).is_file():
        return True
    told = store.read_json(folder / MADE)
    return bool(told["recipe_sha256"] == _digest(made) and told["words"] == list(words))


def revision_of(folder: Path) -> str:
    """The revisions that made the runs of a sweep; "unknown" where it was not made from here."""
    path = folder / MADE
    return ", ".join(store.read_json(path)["revisions"]) if path.is_file() else "unknown"


def revision() -> str:
    """The commit of this checkout, with a + where tracked files differ from it."""

    def git(*words: str) -> str:
        told = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S607
        return told.stdout.strip()

    short = git("rev-parse", "--short", "HEAD")
    return (
        (short + ("+" if git("status", "--porcelain", "--untracked-files=no", "src") else "")) if short else "unknown"
    )


def _words(made: Made, order: Order) -> tuple[str, ...]:
    words = (*(made.quick if order.quick else ()), *order.words)
    if made.data and order.shared is not None:
        model, pairs = order.shared / "models" / "cardputer-chat-3M", order.shared / "pairs" / made.data / "pairs.jsonl"
        for path in (model, pairs):
            if not path.exists():
                raise Refused(f"{made.name}: there is no {path}; leave --shared out or name another folder")
        words = ("--model", str(model), "--data", str(_thinned(pairs, order.runs / made.name, order)), *words)
    return words


def _thinned(pairs: Path, folder: Path, order: Order) -> Path:
    """Every k-th row of a file, so that all of its topics are there: the first rows are all of one."""
    rows = store.read_jsonl(pairs)
    wanted = REAL_ROWS // 16 if order.quick else REAL_ROWS
    folder.mkdir(parents=True, exist_ok=True)
    store.write_jsonl(folder / "pairs.jsonl", rows[:: max(1, len(rows) // wanted)][:wanted])
    return folder / "pairs.jsonl"


def _sweep(made: Made, folder: Path, words: Sequence[str], order: Order) -> None:
    told: dict[str, Any] = store.read_json(folder / MADE) if (folder / MADE).is_file() else {"revisions": []}
    folder.mkdir(parents=True, exist_ok=True)
    revisions = list(dict.fromkeys([*told["revisions"], revision()]))
    store.write_json(folder / MADE, {"revisions": revisions, "recipe_sha256": _digest(made), "words": list(words)})
    command = ["sweep", made.recipe, "--out", str(folder), "--workers", str(order.workers), "--retry-failed", *words]
    _trimtab(command, order)


def _measure(folder: Path, order: Order) -> None:
    """Probe and calibrate the points that the page shows, where that has not been done."""
    sweep = read(folder)
    if sweep is None:
        return
    for command, file, wanted in (
        ("probe", "probe.json", saturation.PROBED),
        ("calibrate", "calibration.json", calibration.CALIBRATED),
    ):
        for point in sweep.among(wanted[sweep.name]) if sweep.name in wanted else []:
            if not (point.folder / file).is_file():
                _trimtab([command, str(point.folder)], order)


def _trimtab(words: Sequence[str], order: Order) -> None:
    order.say(shlex.join(["trimtab", *words]))
    done = subprocess.run(
        [sys.executable, "-m", "trimtab.cli", *words], cwd=ROOT, check=False, stdout=subprocess.DEVNULL
    )
    if done.returncode:
        raise Refused(
            f"`{shlex.join(['trimtab', *words])}` ended with exit code {done.returncode}; the same command goes on"
        )


def _require_tuned(runs: Path) -> None:
    sweep = read(runs / "tuning")
    if sweep is None:
        raise Refused("ranking needs the tuning sweep: run that first (`python -m experiments --only tuning`)")
    if lines := tuning.differing(tuning.pick(tuning.tried(sweep)), tuning.in_recipe()):
        told = "\n  ".join(lines)
        raise Refused(f"the ranking's values are not what tuning picked; change {tuning.RECIPE.name}:\n  {told}")


def _models(order: Order) -> None:
    for size in ("small", "large"):
        if not (ROOT / MODELS / size).is_dir():
            words = ["-m", "trimtab.windtunnel.recipe", "--size", size, "--out", str(MODELS / size)]
            order.say(shlex.join(["python", *words]))
            subprocess.run([sys.executable, *words], cwd=ROOT, check=True)


def _digest(made: Made) -> str:
    return hashlib.sha256((ROOT / made.recipe).read_bytes()).hexdigest()
