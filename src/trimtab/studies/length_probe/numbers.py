"""What `trimtab probe` found, as numbers with intervals: who leaves training when, by length.

Intervals treat pairs as the sample (with several seeds: pairs and seeds); those of correlations draw whole prompts.
Shapes: K seeds, P pairs, V visits, S = 2 sides (chosen, rejected). Lengths are tokens, times are visits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from trimtab.analysis import comparison, seeds
from trimtab.analysis.intervals import FloatArray, finite
from trimtab.analysis.length_probe import (
    LEAST_ROWS,
    Bins,
    median_visits,
    order_of,
    quantile_bins,
    rows_apart,
    visits_to_leave,
)
from trimtab.analysis.rank_correlation import METHOD, RankCorrelation, rank_correlation
from trimtab.reporting import estimates
from trimtab.reporting.estimates import Estimate
from trimtab.studies.length_probe.read import FADED, Probed, Visits

Side = Literal["responses", "chosen", "rejected", "pair"]
SIDES: tuple[Side, ...] = ("responses", "chosen", "rejected", "pair")
POINTS = 40  # of a curve over steps, at most
_VISITS_A_POINT = 30  # of a bin, on average: one batch is a small sample
_LEAST_IN_BIN = 10


@dataclass(frozen=True, slots=True)
class Drawn:
    """One correlation of every seed, with its bootstrap draws: what a paired comparison of two runs needs."""

    by_seed: tuple[RankCorrelation, ...]
    estimate: Estimate


@dataclass(frozen=True, slots=True)
class Measured:
    """The numbers of one run, and behind them what a comparison with another run needs."""

    probed: Probed
    numbers: dict[str, Any]
    drawn: Mapping[tuple[Side, str], Drawn]


def bins_of(probed: Probed) -> Bins:
    """Bins of the length difference."""
    return quantile_bins(probed.difference_P, least=_least(len(probed.difference_P)))


def measure(probed: Probed, bins: Bins) -> Measured:
    """Everything about training; the outputs are `probe_answers`'."""
    bin_P = bins.of(probed.difference_P)
    drawn: dict[tuple[Side, str], Drawn] = {}
    sides: dict[str, Any] = {}
    for side in SIDES:
        drawn |= {(side, name): one for name, one in _correlations(probed, side).items()}
        told = {name: one.estimate for (of, name), one in drawn.items() if of == side}
        sides[side] = _side(probed, side, bin_P, len(bins.labels)) | {
            "correlations": told,
            "verdict": _verdict(probed, side, told),
        }
    numbers = {
        "folder": probed.folder,
        "objective": {"name": probed.objective.name} | probed.objective.parameters(),
        "data": probed.told.data.source,
        "seeds": [one.seed for one in probed.seeds],
        "n_pairs": len(probed.length_PS),
        "n_prompts": len(set(probed.prompts_P)),
        "n_left_out": probed.n_left_out,
        "n_visits": probed.n_visits,
        "steps": [one.n_steps for one in probed.seeds],
        "planned_steps": probed.planned_steps,
        "dead_zone": probed.objective.has_dead_zone,
        "leaves": leaves(probed),
        "truth": probed.quality_PS is not None,
        "reference": probed.reference_PS is not None,
        "bins": _bins(bins, bin_P),
        "sides": sides,
        "own_length": {side: _own_length(probed, at) for at, side in enumerate(("chosen", "rejected"))},
    }
    return Measured(probed, numbers, drawn)


def leaves(probed: Probed) -> str:
    """When a response counts as saturated, in words."""
    if probed.objective.has_dead_zone:
        return "its gradient is exactly zero (the dead zone)"
    start = "at the reference" if probed.objective.needs_reference else "at the pair's first visit"
    return f"its coefficient is below {FADED:.0%} of what it was {start} (this objective has no dead zone)"


# --- a side ----------------------------------------------------------------------------------------------------------


def active_of(one: Visits, side: Side) -> FloatArray:
    """[P, V]: 1 where active; for `responses` the share of the pair's two, for `pair` 1 while either is."""
    return _joined(one.active_PVS, side)


def _joined(active: np.ndarray[Any, Any], side: Side) -> FloatArray:
    chosen, rejected = active[..., 0], active[..., 1]
    match side:
        case "chosen":
            found = chosen
        case "rejected":
            found = rejected
        case "pair":
            found = chosen | rejected
        case "responses":
            found = (chosen.astype(np.float64) + rejected) / 2
    shares: FloatArray = found.astype(np.float64)
    return shares


def left_of(one: Visits, side: Side) -> FloatArray:
    """[P]: visits to leave; for `responses` the mean of the pair's two, which may be half a visit."""
    if side == "responses":
        return (left_of(one, "chosen") + left_of(one, "rejected")) / 2
    return visits_to_leave(active_of(one, side) > 0)


def _side(probed: Probed, side: Side, bin_P: Any, n_bins: int) -> dict[str, Any]:
    active_KPV = np.array([active_of(one, side) for one in probed.seeds])
    left_KP = np.array([left_of(one, side) for one in probed.seeds])
    gone_KP = np.array([_gone(one, side) for one in probed.seeds])
    members = [bin_P == at for at in range(n_bins)]
    return {
        "share_left": of_pairs(estimates.rate(gone_KP)),
        "active": [[of_pairs(estimates.rate(active_KPV[:, m, v])) for v in range(probed.n_visits)] for m in members],
        "active_by_step": _curves(probed, side, bin_P, n_bins),
        "visits": [_times(left_KP[:, m], gone_KP[:, m], probed.n_visits) for m in members],
        "n_apart": min(rows_apart(left_P) for left_P in left_KP),
    }


def _gone(one: Visits, side: Side) -> FloatArray:
    """[P]: 1 where it left before the end; for `responses` the share of the pair's two."""
    if side == "responses":
        return (_gone(one, "chosen") + _gone(one, "rejected")) / 2
    gone: FloatArray = (left_of(one, side) < one.active_PVS.shape[1]).astype(np.float64)
    return gone


def _times(left_KP: FloatArray, gone_KP: FloatArray, n_visits: int) -> dict[str, Any]:
    """Restricted mean of the visits to leave, their median (over all seeds), and the share that never left."""
    return {
        "mean": of_pairs(estimates.mean(left_KP)),
        "median": median_visits(left_KP.ravel(), n_visits=n_visits),
        "never": of_pairs(estimates.rate(1 - gone_KP)),
    }


def _curves(probed: Probed, side: Side, bin_P: Any, n_bins: int) -> dict[str, Any]:
    """Share active of each bin, over stretches of equally many steps, all seeds together; null where none was seen."""
    last = max(one.n_steps for one in probed.seeds)
    n_visits = sum(len(one.step_W) for one in probed.seeds)
    n_points = min(POINTS, last, max(probed.n_visits, n_visits // (n_bins * _VISITS_A_POINT)))
    total = np.zeros((n_bins, n_points))
    count = np.zeros((n_bins, n_points))
    for one in probed.seeds:
        at_W = (one.step_W - 1) * n_points // last
        np.add.at(total, (bin_P[one.pair_W], at_W), _joined(one.active_WS, side))
        np.add.at(count, (bin_P[one.pair_W], at_W), 1)
    return {
        "step": [float((at + 0.5) * last / n_points + 0.5) for at in range(n_points)],
        "share": [
            [finite(t / c) if c else None for t, c in zip(*row, strict=True)]
            for row in zip(total.tolist(), count.tolist(), strict=True)
        ],
    }


def _own_length(probed: Probed, at: int) -> dict[str, Any]:
    """One side binned by the response's own length: the mechanical effect of a sum over tokens."""
    length_P = probed.length_PS[:, at]
    bins = quantile_bins(length_P, least=_least(len(length_P)))
    bin_P = bins.of(length_P)
    side: Side = "rejected" if at else "chosen"
    left_KP, gone_KP = (np.array([of(one, side) for one in probed.seeds]) for of in (left_of, _gone))
    ratio_KP = np.array([one.ratio_PVS[:, -1, at] for one in probed.seeds])
    rows = []
    for row in range(len(bins.labels)):
        m = bin_P == row
        rows.append(
            _times(left_KP[:, m], gone_KP[:, m], probed.n_visits)
            | {
                "log_ratio": of_pairs(estimates.mean(ratio_KP[:, m])),
                "log_ratio_a_token": of_pairs(estimates.mean(ratio_KP[:, m] / length_P[m])),
            }
        )
    return {"bins": _bins(bins, bin_P), "rows": rows}


def _bins(bins: Bins, bin_P: Any) -> list[dict[str, Any]]:
    return [
        {"label": label, "low": low, "high": high, "n": int((bin_P == at).sum())}
        for at, (label, (low, high)) in enumerate(zip(bins.labels, bins.bounds, strict=True))
    ]


def _least(n: int) -> int:
    return max(_LEAST_IN_BIN, n // 50)


# --- correlations ----------------------------------------------------------------------------------------------------


def _correlations(probed: Probed, side: Side) -> dict[str, Drawn]:
    """Rank correlations of the time to saturation, where enough leave; of `pull`, of what is left at the last visit."""
    left = [left_of(one, side) for one in probed.seeds]
    difference_P = probed.difference_P
    length_P = {"chosen": probed.length_PS[:, 0], "rejected": probed.length_PS[:, 1]}.get(
        side, probed.length_PS.sum(axis=1)
    )
    quality = [] if probed.quality_PS is None else [probed.quality_PS[:, 0], probed.quality_PS[:, 1]]
    given = {"length_difference": [], "at_equal_length": [length_P]}
    if quality:
        given |= {"at_equal_quality": quality, "at_equal_quality_and_length": [*quality, length_P]}
    if probed.reference_PS is not None:
        given["at_equal_reference"] = [probed.reference_PS[:, 0] - probed.reference_PS[:, 1]]
    found = {}
    if min(rows_apart(left_P) for left_P in left) >= LEAST_ROWS:
        found = {name: correlate(probed, difference_P, left, given=held) for name, held in given.items()}
        found["own_length"] = correlate(probed, length_P, left, given=quality)
    pull = [_pull(one, side) for one in probed.seeds]
    found["pull"] = correlate(probed, difference_P, pull, given=quality)
    return found


def _pull(one: Visits, side: Side) -> FloatArray:
    """[P]: what is left of the first pull at the last visit; for a pair the stronger, for `responses` the mean."""
    last_PS = one.pull_PVS[:, -1]
    match side:
        case "chosen":
            found: FloatArray = last_PS[:, 0]
        case "rejected":
            found = last_PS[:, 1]
        case "pair":
            found = last_PS.max(axis=1)
        case "responses":
            found = last_PS.mean(axis=1)
    return found


def correlate(
    probed: Probed, x_P: FloatArray, y_KP: Sequence[FloatArray], *, given: Sequence[FloatArray] = ()
) -> Drawn:
    """One rank correlation a seed on the same draws of prompts, and all seeds in one estimate."""
    by_seed = tuple(rank_correlation(x_P, y_P, given=given, groups_N=probed.prompts_P) for y_P in y_KP)
    return Drawn(by_seed, pooled(by_seed))


def pooled(by_seed: Sequence[RankCorrelation]) -> Estimate:
    """All seeds in one estimate. `detectable` is the size that four of five such probes would tell from 0."""
    first = by_seed[0]
    if len(by_seed) == 1:
        told = estimates.estimate(first.value, first.ci95, n=first.n, method=METHOD)
        error = first.standard_error
    else:
        over = seeds.pooled_figures(
            [one.value for one in by_seed],
            standard_errors=[one.standard_error for one in by_seed],
            n_prompts=first.n_groups,
        )
        told = estimates.of_seeds(over, method=seeds.METHOD_OF_FIGURES) | {"n": first.n}
        error = over.standard_error
    known = told["ci95"] is not None and error > 0
    detectable = comparison.power(1, delta=1.0, sd=error).detectable if known else None
    return told | {"n_prompts": first.n_groups, "detectable": detectable}


def _verdict(probed: Probed, side: Side, told: Mapping[str, Estimate]) -> dict[str, Any]:
    by = "length_difference" if probed.quality_PS is None else "at_equal_quality"
    apart = min(rows_apart(left_of(one, side)) for one in probed.seeds)
    return {"order": order_of(told[by]["ci95"] if by in told else None, n_apart=apart), "by": by}


def of_pairs(told: Estimate) -> Estimate:
    """The report's methods speak of prompts; here the rows are pairs, and one alone has no interval."""
    method = told["method"].replace("prompts", "pairs")
    return dict(told) | ({"method": method} if told["n"] > 1 else {"method": f"{method}: one pair", "ci95": None})
