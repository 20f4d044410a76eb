"""Do pairs whose chosen response is the longer one leave training first? Bins, times to saturation, and their order.

A response is saturated at a visit when it no longer pulls; it has left from the first visit after which it pulls no
more. With every visit counted alike, the time to saturation of a response is the number of its visits up to the last
one at which it was active: 0 when it never was, V when it still was at the last of V. Those are censored: they leave
later than V, if ever. All are censored at the same V, so to rank them behind all others, tied among themselves, is
exact, and the mean of min(time, V) is the restricted mean that survival analysis uses (Royston and Parmar 2013, BMC
Medical Research Methodology 13:152).

Shapes: P pairs, V visits, S sides. Lengths are tokens, times are visits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from trimtab.analysis.intervals import FloatArray
from trimtab.records import Estimate

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
Order = Literal["first", "last", "not distinguishable", "too few differ"]

MIN_DIFFERING = 10  # rows whose time is not the most common one, before an order is looked for
_ROUND_UNITS = (1, 2, 5, 10, 20, 25, 50, 100, 200, 250, 500, 1000)
_UNITS_ACROSS = 25  # the widest unit of which this many fit between the 5th and the 95th percentile


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
    first, last = ("" if end is None else f"{end:,}".replace("-", "−") for end in (low, high))
    if low is None:
        return f"up to {last}" if last else "all"
    if high is None:
        return f"{first} and more"
    return first if low == high else f"{first} to {last}"


def quantile_bins(values_P: FloatArray, *, n_bins: int = 6, min_count: int = 10) -> Bins:
    """About `n_bins` bins of like size with cuts at round numbers, none with fewer than `min_count` values."""
    if not len(values_P):
        return Bins(())
    low, high = np.quantile(values_P, [0.05, 0.95])
    unit = max((width for width in _ROUND_UNITS if width * _UNITS_ACROSS <= high - low), default=1)
    quantiles = np.quantile(values_P, np.linspace(0, 1, n_bins + 1)[1:-1])
    cuts = sorted({math.ceil(quantile / unit) * unit for quantile in quantiles})
    while cuts:
        counts = np.bincount(Bins(tuple(cuts)).of(values_P), minlength=len(cuts) + 1)
        smallest = int(counts.argmin())
        if counts[smallest] >= min_count:
            break
        neighbours = [at for at in (smallest - 1, smallest + 1) if 0 <= at < len(counts)]
        cuts.pop(min(smallest, min(neighbours, key=lambda at: int(counts[at]))))
    return Bins(tuple(cuts))


def times_to_saturation(active_PVS: BoolArray) -> FloatArray:
    """[P, S]: visits up to and including the last active one; V for a response active to the end (censored)."""
    visit_V = np.arange(1, active_PVS.shape[1] + 1, dtype=np.float64)
    times_PS: FloatArray = np.where(active_PVS, visit_V[:, None], 0.0).max(axis=1, initial=0.0)
    return times_PS


def median_time(times_P: FloatArray, *, n_visits: int) -> float | None:
    """The visit by which half of them had left; None when half of them were active to the end."""
    if not len(times_P):
        return None
    middle = float(np.sort(times_P)[(len(times_P) - 1) // 2])
    return middle if middle < n_visits else None


def count_differing(times_P: FloatArray) -> int:
    """How many rows have another time than the most common one: what there is to tell early from late by."""
    if not len(times_P):
        return 0
    _, counts = np.unique(times_P, return_counts=True)
    return int(len(times_P) - counts.max())


def order_of(correlation: Estimate | None, *, n_differing: int) -> Order:
    """When pairs with the longer chosen response leave, by the correlation of time and length difference."""
    if correlation is None or correlation.ci95 is None or n_differing < MIN_DIFFERING:
        return "too few differ"
    low, high = correlation.ci95
    return "first" if high < 0 else "last" if low > 0 else "not distinguishable"
