"""All of `sweep.json`: every point with its figures, the highest of them, their maps, and what the sweep cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.analysis.sweep import highest
from trimtab.records import Estimate
from trimtab.studies.sweep.grid import ConfigTree
from trimtab.studies.sweep.maps import FigureMap, PointResult, figure_maps, values_of
from trimtab.studies.sweep.numbers import PointNumbers, figure_json
from trimtab.studies.sweep.run_table import Run
from trimtab.version import __version__

FORMAT = 2
STATES = ("done", "starved", "failed", "stopped", "running", "waiting")
SHARED_WORK = ("sampling answers to be labelled", "reference", "answers of the unaligned model")
NOTES = (
    "Active: share of pairs (with either side) or of responses of one side that have a gradient, mean over the last "
    "tenth of the steps.",
    "Steps to 90 %: the first step by which the training reward accuracy, averaged over a sliding tenth of the run, "
    "reached 90 % of where it ended. Accuracy starts near one half, so a run that ends below 56 % is there at once.",
    "Starved: less than 5 % of the responses active before half of the steps. Linear: more than 95 % to the end; there "
    "objectives and margins give nearly the same model.",
    "A seed that --stop-starved ended has no answers: win rates and lengths of its point are over the other seeds.",
    "The highest of many figures is above its own truth on average: repeat it with seeds of its own.",
)


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds that the runs took, and what they would have taken each alone: with the shared work that another did.

    Only what was measured: a run that was served a piece of work is charged the seconds which that took in the run of
    the same data and model that did it. Starting a process and importing are in neither. `served`: by run and task.
    """

    seconds: float
    served: Mapping[str, Mapping[str, float]]
    seconds_this_time: float

    @property
    def seconds_alone(self) -> float:
        return self.seconds + sum(sum(tasks.values()) for tasks in self.served.values())

    @property
    def share(self) -> float | None:
        return self.seconds / self.seconds_alone if self.seconds_alone > 0 else None

    def to_json(self) -> dict[str, Any]:
        return {
            "seconds": self.seconds,
            "seconds_alone": self.seconds_alone,
            "share": self.share,
            "served": {run: dict(tasks) for run, tasks in self.served.items()},
            "seconds_this_time": self.seconds_this_time,
        }


@dataclass(frozen=True, slots=True)
class Headline:
    """A point's win rate by the first judge (the truth, where it is known), or its mean mark."""

    what: str
    unit: str
    judge: str
    estimate: Estimate

    @classmethod
    def of(cls, numbers: PointNumbers | None) -> Headline | None:
        if numbers is not None and numbers.win_rates:
            rate = numbers.win_rates[0]
            return cls("win rate", "%", rate.label, rate.estimate)
        if numbers is not None and numbers.mark is not None:
            return cls("mean mark", "of 10", numbers.mark.judge, numbers.mark.estimate)
        return None


@dataclass(frozen=True, slots=True)
class HighestPoint:
    """The point with the highest headline, and of how many others the interval overlaps its own."""

    point: str
    headline: Headline
    n_overlapping: int
    n_others: int

    def to_json(self) -> dict[str, Any]:
        headline = self.headline
        return {
            "point": self.point,
            "what": headline.what,
            "unit": headline.unit,
            "judge": headline.judge,
            "figure": figure_json(headline.estimate),
            "n_overlapping": self.n_overlapping,
            "n_others": self.n_others,
        }


@dataclass(frozen=True, slots=True)
class SweepResult:
    """A sweep as it stands, with runs that failed or have not been made."""

    folder: str
    command: str
    keys: tuple[str, ...]
    seeds: tuple[int, ...]
    base: ConfigTree
    points: tuple[PointResult, ...]
    cost: Cost

    @property
    def runs(self) -> list[Run]:
        return [run for point in self.points for run in point.runs]

    @property
    def failed(self) -> list[Run]:
        return [run for run in self.runs if run.state == "failed"]

    @property
    def n_elsewhere(self) -> int:
        return sum(not run.is_here for run in self.runs)

    def grid(self) -> dict[str, list[object]]:
        """The values of every axis, as resolved."""
        return {key: values_of(key, self.points) for key in self.keys}

    def states(self) -> dict[str, int]:
        """How many runs are in each state that any is in."""
        counts = {state: sum(run.state == state for run in self.runs) for state in STATES}
        return {state: n for state, n in counts.items() if n}

    def maps(self) -> list[FigureMap]:
        return figure_maps(self.points, self.keys)

    def highest(self) -> HighestPoint | None:
        headlines = [Headline.of(point.numbers) for point in self.points]
        top = highest(
            [headline.estimate.value if headline else None for headline in headlines],
            intervals=[headline.estimate.ci95 if headline else None for headline in headlines],
        )
        headline = None if top is None else headlines[top.place]
        if top is None or headline is None:
            return None
        return HighestPoint(self.points[top.place].name, headline, top.n_overlapping, top.n_others)

    def to_json(self) -> dict[str, Any]:
        top = self.highest()
        return {
            "format": FORMAT,
            "kind": "sweep",
            "trimtab": __version__,
            "folder": self.folder,
            "command": self.command,
            "grid": self.grid(),
            "seeds": list(self.seeds),
            "points": [point.to_json() for point in self.points],
            "states": self.states(),
            "failed": [{"run": run.name, "error": run.error} for run in self.failed],
            "highest": None if top is None else top.to_json(),
            "maps": [figure_map.to_json() for figure_map in self.maps()],
            "cost": self.cost.to_json(),
            "elsewhere": self.n_elsewhere,
            "notes": list(NOTES),
            "base": dict(self.base),
        }


def cost(runs: Sequence[Run], *, seconds: float) -> Cost:
    """Of the runs of this machine."""
    served = {run.name: _served(run, [other for other in runs if other.cache_key == run.cache_key]) for run in runs}
    return Cost(sum(run.seconds for run in runs), served, seconds)


def _served(run: Run, alike: Sequence[Run]) -> dict[str, float]:
    """Tasks that a run was served from the cache, with the seconds that they took the run which did them."""
    if run.state != "done":
        return {}
    served: dict[str, float] = {}
    for task, seconds in ((task, seconds) for other in alike for task, seconds in other.computed.items()):
        if task.startswith(SHARED_WORK) and task not in run.computed and _needs(run, task):
            served[task] = max(served.get(task, 0.0), seconds)
    return served


def _needs(run: Run, task: str) -> bool:
    return task != "reference" or (Path(run.folder) / "reference.json").is_file()
