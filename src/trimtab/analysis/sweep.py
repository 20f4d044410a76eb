"""The arithmetic of a sweep: how fast a run got there, one figure from several seeds, and what the highest is worth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trimtab.analysis.intervals import NO_INTERVAL, Interval
from trimtab.analysis.seeds import Pooled, pooled_figures

SHARE_OF_FINAL = 0.9  # of a figure's end value


def steps_to_share(values: Sequence[float], *, share: float = SHARE_OF_FINAL) -> int | None:
    """The first step (1-based) by which a figure of every step has reached `share` of where it ended.

    One batch is a small sample, so the figure is averaged over the last tenth of the run's length before it is looked
    at; where it ended is that mean at the last step. None without steps, or where it ended at zero or below.
    """
    n = len(values)
    if n == 0:
        return None
    window = max(1, n // 10)
    smooth = np.convolve(np.asarray(values, dtype=np.float64), np.full(window, 1 / window), mode="valid")
    final = float(smooth[-1])
    if not final > 0:
        return None
    tolerance = 1e-12 * abs(final)  # so that 0.9 of a constant is reached by that constant's rounding
    return window + int(np.flatnonzero(smooth >= share * final - tolerance)[0])


def over_seeds(figures: Sequence[float]) -> Pooled:
    """Mean and t interval over seeds of one figure a seed; a single seed has no interval (NaN)."""
    if len(figures) > 1:
        return pooled_figures(figures, standard_errors=[0.0] * len(figures), n_prompts=len(figures))
    mean = float(figures[0]) if figures else math.nan
    return Pooled(mean, math.nan, NO_INTERVAL, math.nan, math.nan, math.nan, len(figures), len(figures), 0)


@dataclass(frozen=True, slots=True)
class Highest:
    """Place of the highest value, and how many others have an interval that overlaps its own."""

    place: int
    n_overlapping: int
    n_others: int


def highest(values: Sequence[float | None], *, intervals: Sequence[Interval | None]) -> Highest | None:
    """None where no value is known. A value without an interval counts as one that cannot be told apart."""
    places = [i for i, value in enumerate(values) if value is not None]
    if not places:
        return None
    place = max(places, key=lambda i: (values[i], -i))
    other_places = [i for i in places if i != place]
    return Highest(place, sum(_overlap(intervals[place], intervals[i]) for i in other_places), len(other_places))


def _overlap(a: Interval | None, b: Interval | None) -> bool:
    return a is None or b is None or (a[0] <= b[1] and b[0] <= a[1])
