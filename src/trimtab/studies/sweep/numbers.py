"""The figures of a run, and of a point over its seeds: from reports and training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from trimtab.analysis import estimates
from trimtab.analysis.sweep import over_seeds, steps_to_share
from trimtab.records import Estimate

OVER_SEEDS = "t interval over seeds"
SINGLE_SEED = "one seed: no interval"
SIDES = ("pair", "chosen", "rejected")
Kind = Literal["true", "raw", "length-controlled"]
Document = Mapping[str, Any]  # a JSON object that a stage or an earlier sweep wrote


@dataclass(frozen=True, slots=True)
class JudgeRate:
    """A win rate in percent. `n_shrunk`: seeds whose length-controlled rate is 50 because the L1 penalty left no
    strength over.
    """

    judge: str
    label: str
    role: str
    kind: Kind
    estimate: Estimate
    n_shrunk: int = 0

    @property
    def key(self) -> tuple[str, Kind]:
        return self.judge, self.kind

    def to_json(self) -> dict[str, Any]:
        tree = {"judge": self.judge, "label": self.label, "role": self.role, "kind": self.kind}
        n_shrunk = {"n_shrunk": self.n_shrunk} if self.n_shrunk else {}
        return tree | {"win_rate": figure_json(self.estimate)} | n_shrunk

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> JudgeRate:
        estimate = Estimate.from_json(tree["win_rate"], unit="%")
        return cls(tree["judge"], tree["label"], tree["role"], tree["kind"], estimate, tree.get("n_shrunk", 0))


@dataclass(frozen=True, slots=True)
class MeanMark:
    """MT-Bench's: the aligned model's mean over all questions and turns, of 10."""

    judge: str
    estimate: Estimate


@dataclass(frozen=True, slots=True)
class AnswerNumbers:
    """What answers and held-out pairs say; nothing of a run that starved, which has no answers. `length` is in its own
    unit.
    """

    win_rates: tuple[JudgeRate, ...] = ()
    mark: MeanMark | None = None
    true_score: Estimate | None = None
    length: Estimate | None = None
    heldout_accuracy: Estimate | None = None

    def win_rate(self, key: tuple[str, str]) -> Estimate | None:
        """By judge and kind."""
        return next((rate.estimate for rate in self.win_rates if rate.key == key), None)

    def to_json(self) -> dict[str, Any]:
        mark, length = self.mark, self.length
        return {
            "win_rates": [rate.to_json() for rate in self.win_rates],
            "mark": None if mark is None else {**figure_json(mark.estimate), "judge": mark.judge},
            "true_score": None if self.true_score is None else figure_json(self.true_score),
            "length": None if length is None else {"unit": length.unit, "mean": figure_json(length)},
            "heldout_accuracy": None if self.heldout_accuracy is None else figure_json(self.heldout_accuracy),
        }

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> AnswerNumbers:
        mark, length = tree.get("mark"), tree["length"]  # the first sweeps had no marks and true scores
        return cls(
            win_rates=tuple(map(JudgeRate.from_json, tree["win_rates"])),
            mark=None if mark is None else MeanMark(mark["judge"], Estimate.from_json(mark, unit="of 10")),
            true_score=_estimate(tree.get("true_score")),
            length=None if length is None else _estimate(length["mean"], unit=length["unit"]),
            heldout_accuracy=_estimate(tree.get("heldout_accuracy")),
        )

    @classmethod
    def from_report(cls, report: Document) -> AnswerNumbers:
        """Of a `report.json`, of one seed or several."""
        heldout_accuracy = _estimate(report["heldout"] and report["heldout"]["accuracy"])
        if not (benchmark := report["benchmark"]):
            return cls(heldout_accuracy=heldout_accuracy)
        marks, scores, lengths = benchmark["marks"], benchmark["scores"], benchmark["lengths"]
        mark = _estimate(marks and marks["all"]["means"]["aligned"], unit="of 10")
        return cls(
            win_rates=tuple(rate for judge in benchmark["judges"] for rate in _rates(judge)),
            mark=None if mark is None else MeanMark(marks["judge"], mark),
            true_score=_estimate(scores and scores["after"]),
            length=_estimate(lengths[lengths["unit"]]["after"], unit=lengths["unit"]) if lengths else None,
            heldout_accuracy=heldout_accuracy,
        )


@dataclass(frozen=True, slots=True)
class TrainingNumbers:
    """`active`: share of pairs (with either side) and of each side's responses that have a gradient at the end, by
    `SIDES`. `regimes`: a seed, None where it has no name.
    """

    active: Mapping[str, Estimate]
    steps_to_90: Estimate
    regimes: tuple[str | None, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "active": {side: figure_json(self.active[side]) for side in SIDES},
            "steps_to_90": figure_json(self.steps_to_90),
            "regimes": list(self.regimes),
        }

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> TrainingNumbers:
        active = {side: Estimate.from_json(tree["active"][side]) for side in SIDES}
        return cls(active, Estimate.from_json(tree["steps_to_90"], unit="steps"), tuple(tree["regimes"]))


@dataclass(frozen=True, slots=True)
class PointNumbers:
    """A run, or a point over its seeds."""

    answers: AnswerNumbers
    training: TrainingNumbers

    def to_json(self) -> dict[str, Any]:
        return self.answers.to_json() | self.training.to_json()

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> PointNumbers:
        return cls(AnswerNumbers.from_json(tree), TrainingNumbers.from_json(tree))


# --- of one run ------------------------------------------------------------------------------------------------------


def run_numbers(report: Document | None, metrics: Sequence[Document]) -> PointNumbers:
    """From a run's `report.json` and `metrics.jsonl`. Without a report it was stopped for starving: what its training
    left, without a step to 90 %.
    """
    active = {side: _over_seeds([_at_end(metrics, f"active/{side}")]) for side in SIDES}
    if report is None:
        return PointNumbers(AnswerNumbers(), TrainingNumbers(active, _over_seeds([None], unit="steps"), ("starved",)))
    steps = steps_to_share([row["rewards/accuracies"] for row in metrics])
    seeds = report["training"]["seeds"] if report["training"] else []
    regimes = tuple(seed["regime"]["name"] for seed in seeds)
    training = TrainingNumbers(active, _over_seeds([steps], unit="steps"), regimes)
    return PointNumbers(AnswerNumbers.from_report(report), training)


def _rates(judge: Document) -> list[JudgeRate]:
    """A judge's win rate in a `report.json`, and the length-controlled one where there is one."""
    names = judge["judge"], judge["label"], judge["role"]
    kind: Kind = "true" if judge["role"] == "truth" else "raw"
    rates = [JudgeRate(*names, kind, Estimate.from_json(judge["win_rate"], unit="%"))]
    if lc := judge["length_controlled"]:
        # without difficulties a strength of 0 predicts exactly 50, whatever was judged
        weights = [seed["lc_weights"] for seed in lc.get("by_seed", ())]
        n_shrunk = sum(seed.get("own") == 0 and "difficulty" not in seed for seed in weights)
        rates.append(JudgeRate(*names, "length-controlled", Estimate.from_json(lc["win_rate"], unit="%"), n_shrunk))
    return rates


def _at_end(metrics: Sequence[Document], key: str) -> float | None:
    """The mean over the last tenth of the steps: one batch is a small sample."""
    tail = [row[key] for row in metrics[-max(1, len(metrics) // 10) :]]
    return float(np.mean(tail)) if tail else None


# --- of a point ------------------------------------------------------------------------------------------------------


def pool_training(runs: Sequence[TrainingNumbers]) -> TrainingNumbers:
    """Over the seeds of a point, one a run."""
    return TrainingNumbers(
        {side: _over_seeds([run.active[side].value for run in runs]) for side in SIDES},
        _over_seeds([run.steps_to_90.value for run in runs], unit="steps"),
        tuple(name for run in runs for name in run.regimes),
    )


# --- estimates -------------------------------------------------------------------------------------------------------


def _over_seeds(values: Sequence[float | None], *, unit: str = "") -> Estimate:
    """Mean of a number a seed, None where a seed has none."""
    numbers = [float(value) for value in values if value is not None]
    method = OVER_SEEDS if len(numbers) > 1 else SINGLE_SEED
    estimate = estimates.of_seeds(over_seeds(numbers), method=method, unit=unit).within(*_limits(unit))
    return replace(estimate, n_missing=len(values) - len(numbers))


def _limits(unit: str) -> tuple[float, float]:
    """What a number of this unit can be: two seeds that differ have an interval that reaches far beyond it."""
    return {"": (0.0, 1.0), "%": (0.0, 100.0), "of 10": (1.0, 10.0)}.get(unit, (0.0, math.inf))


def figure_json(estimate: Estimate) -> Document:
    """An estimate's JSON form. A mean over seeds has always named their deviation here, for a single seed as null."""
    tree = estimate.to_json()
    return tree | {"seed_deviation": None} if estimate.method == SINGLE_SEED else tree


def _estimate(tree: Document | None, *, unit: str = "") -> Estimate | None:
    return Estimate.from_json(tree, unit=unit) if tree else None
