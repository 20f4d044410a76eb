"""What `trimtab probe` measured, as numbers with intervals: which pairs leave training when, by length.

Intervals treat pairs as the sample (with several seeds: pairs and seeds); those of correlations draw whole prompts.
Shapes: K seeds, P pairs, V visits, S = 2 sides (chosen, rejected). Lengths are tokens, times are visits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from trimtab.analysis import estimates
from trimtab.analysis import length_probe as analysis
from trimtab.analysis.intervals import FloatArray, finite
from trimtab.analysis.length_probe import Bins, IntArray, Order
from trimtab.analysis.rank_correlation import Correlation, pool_seeds, rank_correlation
from trimtab.records import Estimate
from trimtab.reporting.json_form import fields_form, json_form
from trimtab.studies.length_probe.answer_lengths import AnswerNumbers
from trimtab.studies.length_probe.read import WEAK_PULL, TrainedRun

Side = Literal["responses", "chosen", "rejected", "pair"]
SIDES: tuple[Side, ...] = ("responses", "chosen", "rejected", "pair")
# what the time to saturation (for `pull`: the pull at the last visit) is correlated with, and what is held equal
Contrast = Literal[
    "length_difference", "at_equal_quality", "at_equal_reference", "at_equal_length", "at_equal_quality_and_length",
    "own_length", "pull",
]  # fmt: skip

_POINTS = 40  # of a curve over steps, at most
_VISITS_A_POINT = 30  # of a bin, on average: one batch is a small sample


@dataclass(frozen=True, slots=True)
class BinCount:
    """A range of lengths, open where an end is None, and how many pairs are in it."""

    label: str
    low: int | None
    high: int | None
    n: int


@dataclass(frozen=True, slots=True)
class Curves:
    """Share active of each bin over steps; None where no pair of the bin was visited."""

    step: tuple[float, ...]
    share: tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True, slots=True)
class Times:
    """Restricted mean of the visits to leave, their median (None: it is beyond the last visit), and the share that
    never left."""

    mean: Estimate
    median: float | None
    never: Estimate


@dataclass(frozen=True, slots=True)
class OwnLengthRow:
    """The responses of one side in one bin of their own length; log-ratios are those of the last visit, in nats."""

    times: Times
    log_ratio: Estimate
    log_ratio_a_token: Estimate

    def to_json(self) -> dict[str, object]:
        return fields_form(self.times) | fields_form(self, "times")


@dataclass(frozen=True, slots=True)
class OwnLength:
    """One side by the response's own length: the mechanical effect of a sum over tokens."""

    bins: tuple[BinCount, ...]
    rows: tuple[OwnLengthRow, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """When pairs with the longer chosen response leave, and by which correlation."""

    order: Order
    by: Contrast


@dataclass(frozen=True, slots=True)
class SideNumbers:
    """Shares by bin and visit, times by bin, and what the times correlate with. `n_apart` counts the pairs with another
    time than the most common one."""

    share_left: Estimate
    active: tuple[tuple[Estimate, ...], ...]
    active_by_step: Curves
    visits: tuple[Times, ...]
    n_apart: int
    correlations: Mapping[Contrast, Correlation]
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class RunNumbers:
    """One run. `label` tells it from the others; `bins` are of the length difference and the same for all."""

    run: TrainedRun
    label: str
    bins: tuple[BinCount, ...]
    sides: Mapping[Side, SideNumbers]
    own_length: Mapping[Side, OwnLength]
    answers: AnswerNumbers | None

    @property
    def has_truth(self) -> bool:
        return self.run.quality_PS is not None

    @property
    def saturation(self) -> str:
        """When a response counts as saturated, in words."""
        objective = self.run.objective
        if objective.has_dead_zone:
            return "its gradient is exactly zero (the dead zone)"
        start = "at the reference" if objective.needs_reference else "at the pair's first visit"
        return f"its coefficient is below {WEAK_PULL:.0%} of what it was {start} (this objective has no dead zone)"

    def to_json(self) -> dict[str, object]:
        run = self.run
        return {
            "folder": run.folder,
            "objective": {"name": run.objective.name} | run.objective.parameters(),
            "data": run.data,
            "seeds": run.seeds,
            "n_pairs": len(run.length_PS),
            "n_prompts": len(set(run.prompts_P)),
            "n_left_out": run.n_left_out,
            "n_visits": run.n_visits,
            "steps": list(run.n_steps),
            "planned_steps": run.planned_steps,
            "dead_zone": run.objective.has_dead_zone,
            "leaves": self.saturation,
            "truth": self.has_truth,
            "reference": run.reference_PS is not None,
            "bins": json_form(self.bins),
            "sides": json_form(self.sides),
            "own_length": json_form(self.own_length),
            "label": self.label,
            "answers": json_form(self.answers),
        }


def bins_of(length_P: FloatArray) -> Bins:
    """Of lengths, or of their differences."""
    return analysis.quantile_bins(length_P, min_count=max(10, len(length_P) // 50))


def measure(run: TrainedRun, bins: Bins, *, label: str, answers: AnswerNumbers | None) -> RunNumbers:
    """Everything about training, by bins of the length difference."""
    bin_P = bins.of(run.length_difference_P)
    return RunNumbers(
        run=run,
        label=label,
        bins=_counts(bins, bin_P),
        sides={side: _side(run, side, bin_P, len(bins.labels)) for side in SIDES},
        own_length={side: _own_length(run, side) for side in SIDES if side in ("chosen", "rejected")},
        answers=answers,
    )


def of_side(values: FloatArray, side: Side) -> FloatArray:
    """From [..., S]; of both responses the mean, of the pair the greater: it is active while either is."""
    match side:
        case "chosen":
            return values[..., 0]
        case "rejected":
            return values[..., 1]
        case "pair":
            greater: FloatArray = values.max(axis=-1)
            return greater
        case "responses":
            mean: FloatArray = values.mean(axis=-1)
            return mean


def _side(run: TrainedRun, side: Side, bin_P: IntArray, n_bins: int) -> SideNumbers:
    active_KPV, times_KP = of_side(run.active_KPVS, side), times_of(run, side)
    never_KP = _never_left(run, side)
    members = [bin_P == at for at in range(n_bins)]
    n_apart = min(analysis.count_differing(times_P) for times_P in times_KP)
    correlations = _correlations(run, side, times_KP, has_order=n_apart >= analysis.MIN_DIFFERING)
    by: Contrast = "length_difference" if run.quality_PS is None else "at_equal_quality"
    correlation = correlations[by].estimate if by in correlations else None
    return SideNumbers(
        share_left=_rate(1 - never_KP),
        active=tuple(tuple(_rate(active_KPV[:, m, v]) for v in range(run.n_visits)) for m in members),
        active_by_step=_curves(run, side, bin_P, n_bins),
        visits=tuple(_times(times_KP[:, m], never_KP[:, m], run.n_visits) for m in members),
        n_apart=n_apart,
        correlations=correlations,
        verdict=Verdict(analysis.order_of(correlation, n_differing=n_apart), by),
    )


def times_of(run: TrainedRun, side: Side) -> FloatArray:
    """[K, P]: visits to saturation; V where it never came."""
    return of_side(np.array([analysis.times_to_saturation(active_PVS > 0) for active_PVS in run.active_KPVS]), side)


def _never_left(run: TrainedRun, side: Side) -> FloatArray:
    """[K, P]: 1 where a response was active to the end, which is where its last visit is active."""
    return of_side(run.active_KPVS[:, :, -1], side)


def _times(times_KP: FloatArray, never_KP: FloatArray, n_visits: int) -> Times:
    return Times(_mean(times_KP), analysis.median_time(times_KP.ravel(), n_visits=n_visits), _rate(never_KP))


def _curves(run: TrainedRun, side: Side, bin_P: IntArray, n_bins: int) -> Curves:
    """Over stretches of equally many steps, all seeds together."""
    n_steps = max(run.n_steps)
    n_rows = sum(len(visits.step_W) for visits in run.visits)
    n_points = min(_POINTS, n_steps, max(run.n_visits, n_rows // (n_bins * _VISITS_A_POINT)))
    active, count = np.zeros((n_bins, n_points)), np.zeros((n_bins, n_points))
    for visits in run.visits:
        at = bin_P[visits.pair_W], (visits.step_W - 1) * n_points // n_steps
        np.add.at(active, at, of_side(visits.active_WS.astype(np.float64), side))
        np.add.at(count, at, 1)
    shares = np.divide(active, count, out=np.full_like(active, np.nan), where=count > 0)
    return Curves(
        step=tuple((point + 0.5) * n_steps / n_points + 0.5 for point in range(n_points)),
        share=tuple(tuple(map(finite, row)) for row in shares.tolist()),
    )


def _own_length(run: TrainedRun, side: Side) -> OwnLength:
    length_P = of_side(run.length_PS, side)
    times_KP, never_KP = times_of(run, side), _never_left(run, side)
    ratio_KP = of_side(run.last_ratio_KPS, side)
    bins = bins_of(length_P)
    bin_P = bins.of(length_P)
    rows = tuple(
        OwnLengthRow(
            times=_times(times_KP[:, m], never_KP[:, m], run.n_visits),
            log_ratio=_mean(ratio_KP[:, m]),
            log_ratio_a_token=_mean(ratio_KP[:, m] / length_P[m]),
        )
        for m in (bin_P == at for at in range(len(bins.labels)))
    )
    return OwnLength(_counts(bins, bin_P), rows)


def _counts(bins: Bins, bin_P: IntArray) -> tuple[BinCount, ...]:
    counts = np.bincount(bin_P, minlength=len(bins.labels)).tolist()
    return tuple(BinCount(label, *ends, n) for label, ends, n in zip(bins.labels, bins.bounds, counts, strict=True))


# --- correlations ----------------------------------------------------------------------------------------------------


def _correlations(run: TrainedRun, side: Side, times_KP: FloatArray, *, has_order: bool) -> dict[Contrast, Correlation]:
    """Of the time to saturation, where enough leave; of `pull`, of what is left of the pull at the last visit."""
    length_P = of_side(run.length_PS, side) if side in ("chosen", "rejected") else run.length_PS.sum(axis=1)
    quality = [] if run.quality_PS is None else [run.quality_PS[:, 0], run.quality_PS[:, 1]]
    controls: dict[Contrast, list[FloatArray]] = {"length_difference": [], "at_equal_length": [length_P]}
    if quality:
        controls |= {"at_equal_quality": quality, "at_equal_quality_and_length": [*quality, length_P]}
    if run.reference_PS is not None:
        controls["at_equal_reference"] = [run.reference_PS[:, 0] - run.reference_PS[:, 1]]
    correlations: dict[Contrast, Correlation] = {}
    if has_order:
        for contrast, columns in controls.items():
            correlations[contrast] = correlate(run, run.length_difference_P, times_KP, controls=columns)
        correlations["own_length"] = correlate(run, length_P, times_KP, controls=quality)
    pull_KP = of_side(run.last_pull_KPS, side)
    correlations["pull"] = correlate(run, run.length_difference_P, pull_KP, controls=quality)
    return correlations


def correlate(
    run: TrainedRun, x_P: FloatArray, y_KP: FloatArray, *, controls: Sequence[FloatArray] = ()
) -> Correlation:
    """One rank correlation a seed on the same draws of prompts, and all seeds in one estimate."""
    return pool_seeds([rank_correlation(x_P, y_P, controls=controls, groups_N=run.prompts_P) for y_P in y_KP])


# --- estimates over pairs --------------------------------------------------------------------------------------------


def _rate(values_KP: FloatArray) -> Estimate:
    return of_pairs(estimates.rate(values_KP, rows="pairs"))


def _mean(values_KP: FloatArray) -> Estimate:
    return of_pairs(estimates.mean(values_KP, rows="pairs"))


def of_pairs(estimate: Estimate) -> Estimate:
    """One pair alone has no interval."""
    return estimate if estimate.n > 1 else replace(estimate, method=f"{estimate.method}: one pair", ci95=None)
