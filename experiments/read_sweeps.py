"""A sweep's folder as the questions ask for it: points by their settings, a row a seed, a column a prompt.

Only runs that are done count, and only sweeps that are whole (`sweep.json` is there). Shapes: K seeds, N prompts,
P pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from experiments.measurement import Measurement
from trimtab import store
from trimtab.analysis.intervals import FloatArray

BENCHMARK = "windtunnel"
Selection = Mapping[str, Sequence[object]]  # by dotted key, the values that a point may have


class NoSuchPoint(Exception):  # noqa: N818  # no error of ours: a sweep of other values than a question is about
    """What a question compares is not in the sweep."""


@dataclass(frozen=True)
class Point:
    """One combination of values and the folders of its seeds. Rows of every array are the seeds in their order."""

    name: str
    values: Mapping[str, Any]
    folder: Path
    runs: tuple[Path, ...]

    @cached_property
    def config(self) -> dict[str, Any]:
        return dict(store.read_json(self.runs[0] / "config.json"))

    def setting(self, key: str) -> Any:
        """A configuration key by its dotted name, as the runs had it."""
        value: Any = self.config
        for part in key.split("."):
            value = value[part]
        return value

    def is_at(self, **values: Any) -> bool:
        """Whether the settings are these; a key is written with two underscores for its dot."""
        return all(self.setting(key.replace("__", ".")) == value for key, value in values.items())

    @cached_property
    def prompts(self) -> tuple[str, ...]:
        return tuple(row["prompt_id"] for row in store.read_json(_answers(self.runs[0])))

    @cached_property
    def tokens_KN(self) -> FloatArray:
        """Length of the aligned model's answers."""
        return np.array([_column(_answers(run), "n_tokens") for run in self.runs], dtype=np.float64)

    @cached_property
    def tokens_before_N(self) -> FloatArray:
        """Length of the unaligned model's answers, which all seeds share."""
        return np.array(_column(self.runs[0] / "answers" / f"{BENCHMARK}.baseline.json", "n_tokens"), dtype=np.float64)

    def wins_KN(self, judge: str = "oracle") -> FloatArray:
        """Percent: 100 where the aligned answer wins, 50 for a tie; a doubting judge's lie between."""
        files = [run / "verdicts" / f"{BENCHMARK}.{judge}.json" for run in self.runs]
        return np.array([[100 * (float(value) - 1) for value in _column(file, "preference")] for file in files])

    def curves(self, key: str) -> list[list[float]]:
        """A seed: a figure of `metrics.jsonl`, a value an optimizer step."""
        return [[row[key] for row in store.read_jsonl(run / "metrics.jsonl")] for run in self.runs]

    @cached_property
    def _reports(self) -> list[dict[str, Any]]:
        return [store.read_json(run / "report.json") for run in self.runs]

    def rates(self, kind: str) -> list[float | None]:
        """Win rate in percent a seed: kind is true, raw (the biased judge's), unbiased or controlled."""
        rates = [_rate(report, kind) for report in self._reports]
        return [None if rate is None else rate.value for rate in rates]

    def pooled_rate(self, kind: str) -> Measurement | None:
        """The point's own win rate over its seeds, from its report; None where it has no report, or that no rate."""
        path = self.folder / "report.json"
        return _rate(store.read_json(path), kind) if path.is_file() else None

    @cached_property
    def regimes(self) -> list[str]:
        return [report["training"]["seeds"][0]["regime"]["name"] for report in self._reports]

    @cached_property
    def log_ratios(self) -> list[FloatArray]:
        """A seed: [P, 2], chosen and rejected, in nats, as the objective saw each pair at its last visit."""
        return [_last_visits(run) for run in self.runs]


@dataclass(frozen=True)
class Sweep:
    name: str
    folder: Path
    command: str
    points: tuple[Point, ...]

    def at(self, **values: Any) -> Point:
        """The one point with these settings. Raises NoSuchPoint when there is none, or several."""
        points = self.points_at(**values)
        if len(points) != 1:
            raise NoSuchPoint(f"{self.folder} has {len(points)} points at {values}")
        return points[0]

    def points_at(self, **values: Any) -> list[Point]:
        return [point for point in self.points if point.is_at(**values)]

    def among(self, values: Selection) -> list[Point]:
        """The points whose settings, by dotted key, are each one of the values given for it."""
        return [point for point in self.points if all(point.setting(key) in any_of for key, any_of in values.items())]

    def values(self, key: str) -> list[Any]:
        """The values of a key over the points, in their order."""
        return list(dict.fromkeys(point.setting(key) for point in self.points))


def points_among(sweeps: Mapping[str, Sweep], selections: Mapping[str, Selection]) -> Iterator[tuple[Sweep, Point]]:
    """The selected points of the sweeps that are there, by the sweep's name."""
    for name, selection in selections.items():
        if name in sweeps:
            yield from ((sweeps[name], point) for point in sweeps[name].among(selection))


def read(folder: Path) -> Sweep | None:
    """None where the sweep has not been run to its end. Points without a seed that is done are left out."""
    path = folder / "sweep.json"
    if not path.is_file():
        return None
    tree = store.read_json(path)
    points = []
    for entry in tree["points"]:
        home = folder / "points" / entry["name"]
        runs = tuple(home / f"seed-{run['seed']}" for run in sorted(entry["runs"], key=_seed) if run["state"] == "done")
        if runs:
            points.append(Point(entry["name"], entry["values"], home, runs))
    return Sweep(folder.name, folder, tree["command"], tuple(points)) if points else None


def pairs_of(a: Point, b: Point) -> tuple[list[int], list[int]]:
    """Rows of A and of B that were trained with the same seed."""
    seeds_a, seeds_b = ([run.name for run in point.runs] for point in (a, b))
    shared_seeds = [seed for seed in seeds_a if seed in seeds_b]
    return [seeds_a.index(seed) for seed in shared_seeds], [seeds_b.index(seed) for seed in shared_seeds]


def difference(a: Point, b: Point, of: Callable[[Point], FloatArray]) -> FloatArray:
    """A minus B, [K, N], on the same seeds and prompts. Raises NoSuchPoint where the prompts are not the same."""
    if a.prompts != b.prompts:
        raise NoSuchPoint(f"{a.folder} and {b.folder} answer other prompts")
    rows_a, rows_b = pairs_of(a, b)
    result: FloatArray = of(a)[rows_a] - of(b)[rows_b]
    return result


def drift(point: Point) -> list[float]:
    """A seed: mean of |log-ratio| over both sides of all pairs at their last visit, in nats a response."""
    return [float(np.abs(ratios).mean()) for ratios in point.log_ratios]


def _answers(run: Path) -> Path:
    return run / "answers" / f"{BENCHMARK}.json"


def _column(path: Path, key: str) -> list[Any]:
    return [row[key] for row in store.read_json(path)]


def _seed(run: Mapping[str, Any]) -> int:
    return int(run["seed"])


def _rate(report: Mapping[str, Any], kind: str) -> Measurement | None:
    judges = {"true": "oracle", "raw": "biased", "controlled": "biased", "unbiased": "unbiased"}
    entry = next(entry for entry in report["benchmark"]["judges"] if entry["judge"] == judges[kind])
    if kind == "controlled":
        entry = entry["length_controlled"]
    return None if entry is None else Measurement.from_json(entry["win_rate"], unit="%")


def _last_visits(run: Path) -> FloatArray:
    log_ratios: dict[int, tuple[float, float]] = {}
    for row in store.read_jsonl(run / "visits.jsonl"):
        for pair, chosen, rejected in zip(row["pairs"], row["chosen"], row["rejected"], strict=True):
            log_ratios[pair] = (chosen, rejected)
    return np.array([log_ratios[pair] for pair in sorted(log_ratios)], dtype=np.float64)


def median_of(values: Sequence[float]) -> float:
    return float(np.median(np.asarray(values, dtype=np.float64)))
