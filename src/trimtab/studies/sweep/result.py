"""All of `sweep.json`: every point with its figures, the highest of them, their maps, and what the sweep cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trimtab.analysis.sweep import highest
from trimtab.records import Estimate
from trimtab.studies.sweep.grid import ConfigTree
from trimtab.studies.sweep.job import State, TaskSeconds
from trimtab.studies.sweep.maps import FigureMap, PointResult, figure_maps, values_of
from trimtab.studies.sweep.numbers import PointNumbers, figure_json
from trimtab.studies.sweep.run_table import Run
from trimtab.version import __version__

FORMAT = 3  # raise when sweep.json's keys change
STATES: Sequence[State] = ("done", "starved", "pruned", "failed", "stopped", "running", "waiting")
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
    the same data and model that did it. Starting a process and importing are in neither. `from_cache`: by run and task.
    """

    seconds: float
    from_cache: Mapping[str, TaskSeconds]
    seconds_this_time: float

    @property
    def seconds_alone(self) -> float:
        return self.seconds + sum(sum(tasks.values()) for tasks in self.from_cache.values())

    @property
    def share(self) -> float | None:
        return self.seconds / self.seconds_alone if self.seconds_alone > 0 else None

    def to_json(self) -> dict[str, Any]:
        return {
            "seconds": self.seconds,
            "seconds_alone": self.seconds_alone,
            "share": self.share,
            "served": {run: dict(tasks) for run, tasks in self.from_cache.items()},
            "seconds_this_time": self.seconds_this_time,
        }


@dataclass(frozen=True, slots=True)
class Headline:
    """A point's win rate by the first judge (the truth, where it is known), or its mean mark."""

    noun: Literal["win rate", "mean mark"]
    unit: str
    judge: str
    estimate: Estimate

    @classmethod
    def of(cls, numbers: PointNumbers | None) -> Headline | None:
        if numbers is None:
            return None
        for rate in numbers.answers.win_rates:
            return cls("win rate", "%", rate.label, rate.estimate)
        mark = numbers.answers.mark
        return None if mark is None else cls("mean mark", "of 10", mark.judge, mark.estimate)

    def to_json(self) -> dict[str, Any]:
        figure = figure_json(self.estimate)
        return {"what": self.noun, "unit": self.unit, "judge": self.judge, "figure": figure}


@dataclass(frozen=True, slots=True)
class HighestPoint:
    """The point with the highest headline, and of how many others the interval overlaps its own."""

    point: str
    headline: Headline
    n_overlapping: int
    n_others: int

    def to_json(self) -> dict[str, Any]:
        counts = {"n_overlapping": self.n_overlapping, "n_others": self.n_others}
        return {"point": self.point} | self.headline.to_json() | counts


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
    search: Mapping[str, Any] | None = None  # how many trials, over what; None of a grid

    @property
    def runs(self) -> list[Run]:
        return [run for point in self.points for run in point.runs]

    @property
    def failed_runs(self) -> list[Run]:
        return [run for run in self.runs if run.state == "failed"]

    def axes(self) -> list[tuple[str, list[object]]]:
        """Every key of the grid with its values, as resolved."""
        return [(key, values_of(key, self.points)) for key in self.keys]

    def states(self) -> list[tuple[State, int]]:
        """How many runs are in each state that any is in."""
        counts = [(state, sum(run.state == state for run in self.runs)) for state in STATES]
        return [(state, n) for state, n in counts if n]

    def maps(self) -> list[FigureMap]:
        """None of a search, whose points make no grid."""
        return figure_maps(self.points, self.keys) if self.search is None else []

    def highest(self) -> HighestPoint | None:
        headlines = {point.name: Headline.of(point.numbers) for point in self.points}
        entries = [(name, headline) for name, headline in headlines.items() if headline is not None]
        figures = [headline.estimate for _, headline in entries]
        top = highest([figure.value for figure in figures], intervals=[figure.ci95 for figure in figures])
        return None if top is None else HighestPoint(*entries[top.place], top.n_overlapping, top.n_others)

    def to_json(self) -> dict[str, Any]:
        top = self.highest()
        return {
            "format": FORMAT,
            "kind": "sweep",
            "trimtab": __version__,
            "folder": self.folder,
            "command": self.command,
            "grid": dict(self.axes()),
            "seeds": list(self.seeds),
            "points": [point.to_json() for point in self.points],
            "states": dict(self.states()),
            "failed": [{"run": run.name, "error": run.error} for run in self.failed_runs],
            "highest": None if top is None else top.to_json(),
            "maps": [figure_map.to_json() for figure_map in self.maps()],
            "cost": self.cost.to_json(),
            "notes": list(NOTES),
            "search": None if self.search is None else dict(self.search),
            "base": dict(self.base),
        }


def cost(runs: Sequence[Run], *, seconds: float) -> Cost:
    from_cache = {
        run.name: _served_tasks(run, [source for source in runs if source.cache_key == run.cache_key]) for run in runs
    }
    return Cost(sum(run.seconds for run in runs), from_cache, seconds)


def _served_tasks(run: Run, alike: Sequence[Run]) -> TaskSeconds:
    """Tasks that a run was served from the cache, with the seconds that they took the run which did them."""
    if run.state != "done":
        return {}
    from_cache: dict[str, float] = {}
    for task, seconds in ((task, seconds) for source in alike for task, seconds in source.task_seconds.items()):
        if task.startswith(SHARED_WORK) and task not in run.task_seconds and _needs(run, task):
            from_cache[task] = max(from_cache.get(task, 0.0), seconds)
    return from_cache


def _needs(run: Run, task: str) -> bool:
    return task != "reference" or (Path(run.folder) / "reference.json").is_file()
