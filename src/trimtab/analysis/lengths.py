"""How long answers are, how that changed, and how the win rate moves with it. Unit: whatever the caller counts
(characters or tokens), the same on both sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trimtab.analysis.intervals import Interval, finite, paired_interval
from trimtab.analysis.winrate import WinRate, by_family
from trimtab.errors import DataError


@dataclass(frozen=True, slots=True)
class LengthChange:
    """Answers to the same prompts before and after. `delta` = mean after − mean before, with a paired interval."""

    n: int
    mean_before: float
    mean_after: float
    median_before: float
    median_after: float
    delta: float
    delta_ci95: Interval

    def to_json(self) -> dict[str, Any]:
        return {
            "n": self.n,
            "mean_before": finite(self.mean_before),
            "mean_after": finite(self.mean_after),
            "median_before": finite(self.median_before),
            "median_after": finite(self.median_after),
            "delta": finite(self.delta),
            "delta_ci95": [finite(bound) for bound in self.delta_ci95],
        }


def length_change(before: Sequence[int], after: Sequence[int], *, seed: int = 0) -> LengthChange:
    """Lengths of the answers to the same prompts in the same order. Raises DataError if they cannot be paired."""
    if len(before) != len(after) or not before:
        raise DataError(
            f"{len(before)} lengths before and {len(after)} after cannot be paired",
            remedy="give the lengths of both answers to each prompt, at least one prompt",
        )
    old, new = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    return LengthChange(
        n=len(old),
        mean_before=float(old.mean()),
        mean_after=float(new.mean()),
        median_before=float(np.median(old)),
        median_after=float(np.median(new)),
        delta=float((new - old).mean()),
        delta_ci95=paired_interval(new - old, seed=seed),
    )


def win_rate_by_length_gap(
    preferences: Sequence[float | None],
    *,
    lengths_1: Sequence[int],
    lengths_2: Sequence[int],
    n_bins: int = 5,
) -> dict[tuple[float, float], WinRate]:
    """Win rate a bin of (model's length − baseline's), bins of equal share from shortest to longest.

    Keys are each bin's own smallest and largest gap. Equal gaps stay in one bin, so there may be fewer bins.
    """
    gap = np.asarray(lengths_2, dtype=np.float64) - np.asarray(lengths_1, dtype=np.float64)
    if len(gap) != len(preferences):
        raise DataError(
            f"{len(preferences)} preferences for {len(gap)} pairs of lengths", remedy="give one of each a row"
        )
    if not len(gap):
        return {}
    edges = np.unique(np.quantile(gap, np.linspace(0, 1, n_bins + 1)[1:-1]))
    which = np.searchsorted(edges, gap, side="right")
    rates = by_family(preferences, which.tolist())
    return {(float(gap[which == k].min()), float(gap[which == k].max())): rates[k] for k in sorted(rates)}
