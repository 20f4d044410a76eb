"""The figures of a run, and of a point over its seeds: from reports and training, or from its runs' own figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from trimtab.analysis import estimates
from trimtab.analysis.intervals import student_t
from trimtab.analysis.seeds import METHOD_OF_FIGURES, pooled_figures
from trimtab.analysis.sweep import over_seeds, steps_to_share
from trimtab.records import Estimate

OVER_SEEDS = "t interval over seeds"
SINGLE_SEED = "one seed: no interval"
Kind = Literal["true", "raw", "length-controlled"]


@dataclass(frozen=True, slots=True)
class WinRate:
    """Percent. `n_shrunk`: seeds whose length-controlled rate is 50 because the L1 penalty left no strength over."""

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
        shrunk = {"n_shrunk": self.n_shrunk} if self.n_shrunk else {}
        return tree | {"win_rate": figure_json(self.estimate)} | shrunk

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> WinRate:
        estimate = Estimate.from_json(tree["win_rate"], unit="%")
        return cls(tree["judge"], tree["label"], tree["role"], tree["kind"], estimate, tree.get("n_shrunk", 0))

    @classmethod
    def from_report(cls, judge: Mapping[str, Any]) -> list[WinRate]:
        """Of a judge's entry in `report.json`: its win rate, and the length-controlled one where there is one."""
        names = judge["judge"], judge["label"], judge["role"]
        kind: Kind = "true" if judge["role"] == "truth" else "raw"
        rates = [cls(*names, kind, Estimate.from_json(judge["win_rate"], unit="%"))]
        if controlled := judge["length_controlled"]:
            estimate = Estimate.from_json(controlled["win_rate"], unit="%")
            rates.append(cls(*names, "length-controlled", estimate, _n_shrunk(controlled)))
        return rates


@dataclass(frozen=True, slots=True)
class Mark:
    """MT-Bench's: the aligned model's mean over all questions and turns, of 10."""

    judge: str
    estimate: Estimate

    def to_json(self) -> dict[str, Any]:
        return figure_json(self.estimate) | {"judge": self.judge}

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Mark:
        return cls(tree["judge"], Estimate.from_json(tree, unit="of 10"))


@dataclass(frozen=True, slots=True)
class ActiveShares:
    """Share of pairs, with either side, and of each side's responses that have a gradient at the end of training."""

    pair: Estimate
    chosen: Estimate
    rejected: Estimate

    def to_json(self) -> dict[str, Any]:
        return {side: figure_json(getattr(self, side)) for side in self.__slots__}

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> ActiveShares:
        return cls(*(Estimate.from_json(tree[side]) for side in cls.__slots__))


@dataclass(frozen=True, slots=True)
class PointNumbers:
    """A point over its seeds, or one run. `length` is in its own unit. A seed that starved has no answers."""

    win_rates: tuple[WinRate, ...]
    mark: Mark | None
    true_score: Estimate | None
    length: Estimate | None
    heldout_accuracy: Estimate | None
    active: ActiveShares
    steps_to_90: Estimate
    regimes: tuple[str | None, ...]

    def win_rate(self, key: tuple[str, str]) -> Estimate | None:
        """By judge and kind."""
        return next((rate.estimate for rate in self.win_rates if rate.key == key), None)

    def n_shrunk(self, key: tuple[str, str]) -> int:
        return sum(rate.n_shrunk for rate in self.win_rates if rate.key == key)

    def to_json(self) -> dict[str, Any]:
        return {
            "win_rates": [rate.to_json() for rate in self.win_rates],
            "mark": None if self.mark is None else self.mark.to_json(),
            "true_score": _optional_json(self.true_score),
            "length": None if self.length is None else {"unit": self.length.unit, "mean": figure_json(self.length)},
            "heldout_accuracy": _optional_json(self.heldout_accuracy),
            "active": self.active.to_json(),
            "steps_to_90": figure_json(self.steps_to_90),
            "regimes": list(self.regimes),
        }

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> PointNumbers:
        mark, length = tree.get("mark"), tree["length"]  # the first sweeps had no marks
        return cls(
            win_rates=tuple(map(WinRate.from_json, tree["win_rates"])),
            mark=None if mark is None else Mark.from_json(mark),
            true_score=_optional(tree.get("true_score")),
            length=None if length is None else Estimate.from_json(length["mean"], unit=length["unit"]),
            heldout_accuracy=_optional(tree.get("heldout_accuracy")),
            active=ActiveShares.from_json(tree["active"]),
            steps_to_90=Estimate.from_json(tree["steps_to_90"], unit="steps"),
            regimes=tuple(tree["regimes"]),
        )


# --- of one run ------------------------------------------------------------------------------------------------------


def run_numbers(report: Mapping[str, Any] | None, metrics: Sequence[Mapping[str, Any]]) -> PointNumbers:
    """From a run's `report.json` and `metrics.jsonl`. Without a report it was stopped for starving: what its training
    left, without a step to 90 %.
    """
    active = ActiveShares(*(_over_seeds([_at_end(metrics, f"active/{side}")]) for side in ActiveShares.__slots__))
    if report is None:
        return PointNumbers((), None, None, None, None, active, _over_seeds([None], unit="steps"), ("starved",))
    steps = steps_to_share([row["rewards/accuracies"] for row in metrics])
    return replace(answer_numbers(report), active=active, steps_to_90=_over_seeds([steps], unit="steps"))


def answer_numbers(report: Mapping[str, Any]) -> PointNumbers:
    """What a `report.json`, of one seed or several, says of answers, held-out pairs and regimes."""
    benchmark = report["benchmark"] or {"judges": [], "marks": None, "scores": None, "lengths": None}
    marks, scores, lengths = benchmark["marks"], benchmark["scores"], benchmark["lengths"]
    unit = lengths["unit"] if lengths else ""
    training = report["training"]["seeds"] if report["training"] else []
    unknown = _over_seeds([])
    return PointNumbers(
        win_rates=tuple(rate for judge in benchmark["judges"] for rate in WinRate.from_report(judge)),
        mark=Mark.from_json({**marks["all"]["means"]["aligned"], "judge": marks["judge"]}) if marks else None,
        true_score=Estimate.from_json(scores["after"]) if scores else None,
        length=Estimate.from_json(lengths[unit]["after"], unit=unit) if lengths else None,
        heldout_accuracy=Estimate.from_json(report["heldout"]["accuracy"]) if report["heldout"] else None,
        active=ActiveShares(unknown, unknown, unknown),
        steps_to_90=_over_seeds([], unit="steps"),
        regimes=tuple(entry["regime"]["name"] for entry in training),
    )


def _at_end(metrics: Sequence[Mapping[str, Any]], key: str) -> float | None:
    """The mean over the last tenth of the steps: one batch is a small sample."""
    tail = [row[key] for row in metrics[-max(1, len(metrics) // 10) :]]
    return float(np.mean(tail)) if tail else None


def _n_shrunk(controlled: Mapping[str, Any]) -> int:
    """Without difficulties a strength of 0 predicts exactly 50, whatever was judged."""
    weights = [seed["lc_weights"] for seed in controlled.get("by_seed", ())]
    return sum(seed.get("own") == 0 and "difficulty" not in seed for seed in weights)


# --- of a point ------------------------------------------------------------------------------------------------------


def point_numbers(runs: Sequence[PointNumbers], *, report: Mapping[str, Any] | None) -> PointNumbers:
    """Over the seeds of a point, from its runs' numbers. report: of all its seeds that have answers, whose figures go
    before those pooled from the runs; None where their folders are on several machines.
    """
    judged = [run for run in runs if run.win_rates or run.length or run.mark]
    marks = [run.mark for run in judged if run.mark is not None]
    pooled = PointNumbers(
        win_rates=_pooled_rates([rate for run in judged for rate in run.win_rates]),
        mark=Mark(marks[0].judge, _pooled([mark.estimate for mark in marks])) if marks else None,
        true_score=_pooled_if_any([run.true_score for run in judged]),
        length=_pooled_if_any([run.length for run in judged]),
        heldout_accuracy=_pooled_if_any([run.heldout_accuracy for run in runs]),
        active=ActiveShares(
            _over_seeds([run.active.pair.value for run in runs]),
            _over_seeds([run.active.chosen.value for run in runs]),
            _over_seeds([run.active.rejected.value for run in runs]),
        ),
        steps_to_90=_over_seeds([run.steps_to_90.value for run in runs], unit="steps"),
        regimes=tuple(name for run in runs for name in run.regimes),
    )
    if report is None:
        return pooled
    answers = answer_numbers(report)
    return replace(answers, active=pooled.active, steps_to_90=pooled.steps_to_90, regimes=pooled.regimes)


def _pooled_rates(rates: Sequence[WinRate]) -> tuple[WinRate, ...]:
    by_key: dict[tuple[str, Kind], list[WinRate]] = {}
    for rate in rates:
        by_key.setdefault(rate.key, []).append(rate)
    return tuple(
        replace(
            seeds[-1],
            estimate=_pooled([seed.estimate for seed in seeds]),
            n_shrunk=sum(seed.n_shrunk for seed in seeds),
        )
        for seeds in by_key.values()
    )


def _pooled_if_any(seeds: Sequence[Estimate | None]) -> Estimate | None:
    known = [seed for seed in seeds if seed is not None]
    return _pooled(known) if known else None


def _pooled(seeds: Sequence[Estimate]) -> Estimate:
    """Mean over seeds; the prompts' error is taken from the seeds' own 95 % intervals, and is common to all of them."""
    bounded = [(seed.value, seed.ci95) for seed in seeds if seed.value is not None and seed.ci95 is not None]
    unit = seeds[0].unit
    if len(bounded) < 2 or len(bounded) < len(seeds):
        return _over_seeds([seed.value for seed in seeds], unit=unit)
    n_prompts = min(seed.n for seed in seeds)
    reach = 2 * student_t(max(1, n_prompts - 1))
    pooled = pooled_figures(
        [value for value, _ in bounded],
        standard_errors=[(high - low) / reach for _, (low, high) in bounded],
        n_prompts=n_prompts,
    )
    return estimates.of_seeds(pooled, method=METHOD_OF_FIGURES, unit=unit)


# --- estimates -------------------------------------------------------------------------------------------------------


def _over_seeds(values: Sequence[float | None], *, unit: str = "") -> Estimate:
    """Mean of a number a seed, None where a seed has none."""
    known = [float(value) for value in values if value is not None]
    method = OVER_SEEDS if len(known) > 1 else SINGLE_SEED
    estimate = estimates.of_seeds(over_seeds(known), method=method, unit=unit)
    return replace(estimate, n_missing=len(values) - len(known))


def figure_json(estimate: Estimate) -> dict[str, Any]:
    """An estimate's JSON form. A mean over seeds has always named their deviation here, for a single seed as null."""
    tree = estimate.to_json()
    return tree | {"seed_deviation": None} if estimate.method == SINGLE_SEED else tree


def _optional_json(estimate: Estimate | None) -> dict[str, Any] | None:
    return None if estimate is None else figure_json(estimate)


def _optional(tree: Mapping[str, Any] | None) -> Estimate | None:
    return None if tree is None else Estimate.from_json(tree)
