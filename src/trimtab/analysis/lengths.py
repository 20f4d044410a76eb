"""How the win rate moves with the length of the answers. Unit: whatever the caller counts (characters or tokens), the
same on both sides."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from trimtab.analysis.intervals import FloatArray
from trimtab.analysis.winrate import WinRate, by_family
from trimtab.errors import DataError


def equal_share_bins(gap_N: FloatArray, *, n_bins: int) -> npt.NDArray[np.int64]:
    """The bin of every value, [N], from 0: bins of equal share by quantiles. Equal values stay in one bin, so there may
    be fewer bins."""
    edges = np.unique(np.quantile(gap_N, np.linspace(0, 1, n_bins + 1)[1:-1]))
    return np.searchsorted(edges, gap_N, side="right")


def win_rate_by_length_gap(
    preferences: Sequence[float | None],
    *,
    lengths_1: Sequence[int],
    lengths_2: Sequence[int],
    n_bins: int = 5,
) -> dict[tuple[float, float], WinRate]:
    """Win rate a bin of (model's length − baseline's), bins of equal share from shortest to longest.

    Keys are each bin's own smallest and largest gap.
    """
    gap = np.asarray(lengths_2, dtype=np.float64) - np.asarray(lengths_1, dtype=np.float64)
    if len(gap) != len(preferences):
        raise DataError(
            f"{len(preferences)} preferences for {len(gap)} pairs of lengths", remedy="give one of each a row"
        )
    if not len(gap):
        return {}
    bins = equal_share_bins(gap, n_bins=n_bins)
    rates = by_family(preferences, bins.tolist())
    return {(float(gap[bins == k].min()), float(gap[bins == k].max())): rates[k] for k in sorted(rates)}
