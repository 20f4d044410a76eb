"""Do pairs whose chosen response is the longer one leave training first? Bins, times to saturation, the order found.

A response is saturated at a visit when it no longer pulls; it has left from the first visit after which it pulls no
more. With every visit counted alike, the time to saturation of a response is the number of its visits up to the last
one at which it was active: 0 when it never was, V when it still was at the last of V. Those are censored: they leave
later than V, if ever. All are censored at the same V, so to rank them behind all others, tied among themselves, is
exact, and the mean of min(time, V) is the restricted mean that survival analysis uses (Royston and Parmar 2013, BMC
Medical Research Methodology 13:152).

Shapes: P pairs, V visits. Lengths are tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from trimtab.analysis.intervals import FloatArray

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
Order = Literal["first", "last", "not distinguishable", "too few differ"]

N_BINS = 6
LEAST_ROWS = 10  # whose time differs from the commonest one, before an order is looked for
_NICE = (1, 2, 5, 10, 20, 25, 50, 100, 200, 250, 500, 1000)
_CUTS_FINE = 25  # the widest unit of which this many fit between the 5th and the 95th percentile


@dataclass(frozen=True, slots=True)
class Bins:
    """Whole numbers cut into ranges: below the first cut, from each cut to the next, from the last cut on."""

    cuts: tuple[int, ...]

    def of(self, values_P: FloatArray) -> IntArray:
        """The bin of each value, from 0."""
        return np.searchsorted(np.array(self.cuts, dtype=np.float64), values_P, side="right").astype(np.int64)

    @property
    def bounds(self) -> list[tuple[int | None, int | None]]:
        """Smallest and largest whole number of each bin; None where it is open."""
        lows: list[int | None] = [None, *self.cuts]
        return [(low, None if high is None else high - 1) for low, high in zip(lows, [*self.cuts, None], strict=True)]

    @property
    def labels(self) -> list[str]:
        """`up to −6`, `−5 to 0`, `1`, `12 and more`."""
        return [_label(low, high) for low, high in self.bounds]


def _label(low: int | None, high: int | None) -> str:
    if low is None:
        return "all" if high is None else f"up to {_signed(high)}"
    if high is None:
        return f"{_signed(low)} and more"
    return _signed(low) if low == high else f"{_signed(low)} to {_signed(high)}"


def _signed(value: int) -> str:
    return f"{value:,}".replace("-", "−")


def quantile_bins(values_P: FloatArray, *, n_bins: int = N_BINS, least: int = 10) -> Bins:
    """About `n_bins` bins of about equal numbers with cuts at round numbers, none with fewer than `least` values."""
    if not len(values_P):
        return Bins(())
    low, high = np.quantile(values_P, [0.05, 0.95])
    unit = max((nice for nice in _NICE if nice * _CUTS_FINE <= high - low), default=1)
    wanted = np.quantile(values_P, np.linspace(0, 1, n_bins + 1)[1:-1])
    cuts = sorted({math.ceil(value / unit) * unit for value in wanted})
    while cuts:
        counts = np.bincount(Bins(tuple(cuts)).of(values_P), minlength=len(cuts) + 1)
        smallest = int(counts.argmin())
        if counts[smallest] >= least:
            break
        beside = [at for at in (smallest - 1, smallest + 1) if 0 <= at < len(counts)]
        cuts.pop(min(smallest, min(beside, key=lambda at: int(counts[at]))))
    return Bins(tuple(cuts))


def visits_to_leave(active_PV: BoolArray) -> FloatArray:
    """[P]: visits up to and including the last active one; V for a response that was active to the end (censored)."""
    n_visits = active_PV.shape[1]
    last_PV = np.where(active_PV, np.arange(1, n_visits + 1, dtype=np.float64), 0.0)
    left_P: FloatArray = last_PV.max(axis=1, initial=0.0)
    return left_P


def median_visits(left_P: FloatArray, *, n_visits: int) -> float | None:
    """The visit by which half of them had left; None when half of them were active to the end."""
    if not len(left_P):
        return None
    middle = float(np.sort(left_P)[(len(left_P) - 1) // 2])
    return middle if middle < n_visits else None


def rows_apart(left_P: FloatArray) -> int:
    """How many rows differ from the commonest time: what there is to tell early from late by."""
    if not len(left_P):
        return 0
    _, counts = np.unique(left_P, return_counts=True)
    return int(len(left_P) - counts.max())


def order_of(interval: Sequence[float] | None, *, n_apart: int) -> Order:
    """What a correlation of time to saturation with the length difference says of long-favoured pairs."""
    if interval is None or n_apart < LEAST_ROWS:
        return "too few differ"
    low, high = interval
    return "first" if high < 0 else "last" if low > 0 else "not distinguishable"
