"""Two probed runs beside each other, pair by pair where they trained on the same pairs.

The correlations of both were drawn over the same prompts, so the difference of their draws is a paired one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from trimtab.analysis.length_probe import Bins
from trimtab.analysis.rank_correlation import RankCorrelation
from trimtab.reporting import estimates
from trimtab.reporting.estimates import Estimate
from trimtab.studies.length_probe.numbers import SIDES, Measured, active_of, of_pairs, pooled


def compared(first: Measured, other: Measured, bins: Bins) -> dict[str, Any]:
    """First less other. Where they cannot be paired `why_not` says why, and there is no number."""
    why = _why_not(first, other)
    told: dict[str, Any] = {"first": first.numbers["folder"], "other": other.numbers["folder"], "why_not": why}
    if why is not None:
        return told
    bin_P = bins.of(first.probed.difference_P)
    n_visits = min(first.probed.n_visits, other.probed.n_visits)
    sides: dict[str, Any] = {}
    for side in SIDES:
        ends_KP = [
            np.array([active_of(one, side)[:, n_visits - 1] for one in run.probed.seeds]) for run in (first, other)
        ]
        apart_KP = ends_KP[0] - ends_KP[1]
        sides[side] = {
            "active": [of_pairs(estimates.paired(apart_KP[:, bin_P == at])) for at in range(len(bins.labels))],
            "correlations": {
                name: _difference(one.by_seed, other.drawn[side, name].by_seed)
                for (of, name), one in first.drawn.items()
                if of == side and (side, name) in other.drawn
            },
        }
    return told | {"visit": n_visits, "sides": sides}


def _why_not(first: Measured, other: Measured) -> str | None:
    a, b = first.probed, other.probed
    if a.pairs_digest != b.pairs_digest:
        return "they did not train on the same pairs"
    if [one.seed for one in a.seeds] != [one.seed for one in b.seeds]:
        return "they do not have the same seeds"
    if a.prompts_P != b.prompts_P:
        return "one of them did not visit all pairs that the other did"
    return None


def _difference(a: Sequence[RankCorrelation], b: Sequence[RankCorrelation]) -> Estimate:
    return pooled([_less(one, other) for one, other in zip(a, b, strict=True)])


def _less(one: RankCorrelation, other: RankCorrelation) -> RankCorrelation:
    value = math.nan if math.isnan(one.value) else one.value - other.value
    return replace(one, value=value, draws_B=one.draws_B - other.draws_B)
