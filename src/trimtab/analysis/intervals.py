"""Intervals and exact tests that the other modules share. A seed is always handed in.

Shapes: N rows, B bootstrap resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Interval = tuple[float, float]

NO_INTERVAL: Interval = (math.nan, math.nan)
Z_95 = 1.959963984540054
_DRAWS_AT_ONCE = 2_000_000


def percentile_interval(values_B: FloatArray, *, level: float = 0.95) -> Interval:
    """The central `level` of bootstrap values (Efron's percentile interval); NaN when there are none."""
    if len(values_B) == 0:
        return NO_INTERVAL
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(values_B, [tail, 100 - tail])
    return float(low), float(high)


def bootstrap_interval(
    values_N: FloatArray,
    *,
    statistic: Callable[..., FloatArray] = np.mean,
    seed: int = 0,
    n_boot: int = 10_000,
    level: float = 0.95,
) -> Interval:
    """Percentile bootstrap interval of `statistic(values, axis=1)`, rows drawn with replacement.

    In the unit of the values. NaN for an empty array; degenerate for a constant one, see `rate_interval` for rates.
    """
    n = len(values_N)
    if n == 0:
        return NO_INTERVAL
    rng = np.random.default_rng(seed)
    at_once = max(1, _DRAWS_AT_ONCE // n)
    parts = []
    for start in range(0, n_boot, at_once):
        drawn = rng.integers(0, n, size=(min(at_once, n_boot - start), n))
        parts.append(np.asarray(statistic(values_N[drawn], axis=1), dtype=np.float64))
    return percentile_interval(np.concatenate(parts), level=level)


def wilson_interval(successes: float, *, n: int, z: float = Z_95) -> Interval:
    """Wilson's score interval for a proportion, in [0, 1] (Wilson 1927, JASA 22:209)."""
    if n == 0:
        return NO_INTERVAL
    p = successes / n
    spread = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    centre = p + z * z / (2 * n)
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def rate_interval(scores_N: FloatArray, *, seed: int = 0, n_boot: int = 10_000) -> Interval:
    """95 % interval of a mean of scores in [0, 1].

    The bootstrap, but for scores that are all 0 or all 1, where resampling sees no spread at all and would claim
    certainty from ten rows: those get Wilson's interval. Scores that are all one inner value (a baseline against
    itself: all ties) keep the point.
    """
    if len(scores_N) and (np.all(scores_N == 0) or np.all(scores_N == 1)):
        return wilson_interval(float(scores_N.sum()), n=len(scores_N))
    return bootstrap_interval(scores_N, seed=seed, n_boot=n_boot)


def sign_test(wins: int, losses: int) -> float:
    """Exact two-sided binomial p-value of `wins` against `losses` under a fair coin; ties are left out by the caller.

    Twice the smaller tail, at most 1. Exact in integers, so it neither overflows nor loses the far tail.
    """
    n = wins + losses
    if n == 0:
        return 1.0
    term, tail = 1, 1
    for k in range(1, min(wins, losses) + 1):
        term = term * (n - k + 1) // k
        tail += term
    return min(1.0, 2 * tail / (1 << n))


def finite(value: float) -> float | None:
    """JSON has no NaN: a number that could not be computed is null."""
    return value if math.isfinite(value) else None
