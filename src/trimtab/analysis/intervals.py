"""Intervals and tests that the other modules share; nothing here is random.

Shapes: N rows, B bootstrap resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Interval = tuple[float, float]

NO_INTERVAL: Interval = (math.nan, math.nan)
Z_95 = 1.959963984540054  # the normal's 97.5 % quantile
_ROUND_OFF = 1e-12  # a spread below this is that of floating-point sums
UNSEEN = 1 / 3
"""Spread of outcomes that were possible and not seen, in squared scores: a little more than one toss of a fair coin.

At a quarter, one toss, a judge that is nearly always sure is covered in 92.5 of 100 trials at ten rows, at a third in
93.7; at a half a judge that stays in the middle is covered in 98.5 (tests/analysis/test_coverage.py).
"""


@dataclass(frozen=True, slots=True)
class MeanTest:
    """A 95 % interval of a mean, and the p-value of the same test of a mean of zero: below .05 exactly where the
    interval leaves zero out. NaN where neither can be had.
    """

    ci95: Interval
    p_value: float


def percentile_interval(values_B: FloatArray, *, level: float = 0.95) -> Interval:
    """The central `level` of bootstrap values (Efron's percentile interval); NaN when there are none."""
    if len(values_B) == 0:
        return NO_INTERVAL
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(values_B, [tail, 100 - tail])
    return float(low), float(high)


def wilson_interval(successes: float, *, n: int, z: float = Z_95, effective: float | None = None) -> Interval:
    """Wilson's score interval for a proportion, in [0, 1] (Wilson 1927, JASA 22:209).

    `effective` is how many rows the `n` are worth, where that is another number.
    """
    if n == 0:
        return NO_INTERVAL
    p, rows = successes / n, float(n) if effective is None else effective
    spread = z * math.sqrt(p * (1 - p) / rows + z * z / (4 * rows * rows))
    scale = 1 + z * z / rows
    centre = p + z * z / (2 * rows)
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def effective_rows(n: int, *, variance: float, binary_variance: float) -> float:
    """How many rows of a coin the mean of `n` rows is worth: the variance of outcomes that are 0 or 1 (or −1, 0 or 1)
    with the same mean, against their own.

        n_eff = n · (n·binary_variance + ⅓) / (n·variance + ⅓),      variance with ddof 0

    Scores between the ends vary less than a coin, so they are worth more rows than there are. Rows that are all equal
    say nothing of their spread and are worth `n`.
    """
    if variance <= _ROUND_OFF:
        return float(n)
    return n * (n * binary_variance + UNSEEN) / (n * variance + UNSEEN)


def rate_interval(scores_N: FloatArray) -> Interval:
    """95 % interval of a mean of scores in [0, 1]: Wilson's, at the effective number of rows. NaN for no rows.

    Scores of 0 and 1, and scores that are all equal, have Wilson's interval itself. Chosen over resampling by
    simulation (tests/analysis/test_coverage.py): percentile intervals hold the truth in 63 to 93 of 100 trials at 20
    to 100 rows away from 50 %, and call twenty equal rows certain.
    """
    n = len(scores_N)
    if n == 0:
        return NO_INTERVAL
    return wilson_interval(float(scores_N.mean()) * n, n=n, effective=_effective_scores(scores_N))


def rate_p_value(scores_N: FloatArray, *, even: float = 0.5) -> float:
    """Two-sided p-value of a mean of `even`, by the score test that `rate_interval` inverts; NaN for no rows."""
    if not len(scores_N):
        return math.nan
    distance = abs(float(scores_N.mean()) - even)
    return normal_tails(distance * math.sqrt(_effective_scores(scores_N) / (even * (1 - even))))


def _effective_scores(scores_N: FloatArray) -> float:
    p = float(scores_N.mean())
    return effective_rows(len(scores_N), variance=float(scores_N.var()), binary_variance=p * (1 - p))


def mean_test(values_N: FloatArray, *, level: float = 0.95) -> MeanTest:
    """The mean of values of any unit: Student's t, and with it Hall's correction for skewness (Hall 1992, Journal of
    the Royal Statistical Society B 54:221), whichever reaches further at either end.

        h(T) = T + g·(T²/3 + 1/6)/√n + g²·T³/(27·n),      T = (mean − μ)·√(n − 1)/s,  g the skewness, ddof 0

    Lengths are skewed: at 13 rows of an exponential t alone holds the mean in 91 of 100 trials, both together in 95.
    None where there are fewer than two values, or all are equal: then nothing is known of their spread.
    """
    n = len(values_N)
    deviation = float(values_N.std()) if n else 0.0
    if n < 2 or deviation <= _ROUND_OFF * float(np.abs(values_N).max()):
        return MeanTest(NO_INTERVAL, math.nan)
    mean, error = float(values_N.mean()), deviation / math.sqrt(n - 1)
    skew = float((((values_N - mean) / deviation) ** 3).mean()) / math.sqrt(n)
    reach = student_t(n - 1, level=level)
    hall_ends = [mean - error * _without_skew(sign * reach, skew) for sign in (1, -1)]
    ci95 = (min(mean - reach * error, hall_ends[0]), max(mean + reach * error, hall_ends[1]))
    t = mean / error
    h = t + skew * (t * t / 3 + 1 / 6) + skew * skew * t**3 / 27
    return MeanTest(ci95, t_tails(min(abs(t), abs(h)), n - 1) if t * h > 0 else 1.0)


def paired_mean_test(differences_N: FloatArray, *, level: float = 0.95) -> MeanTest:
    """`mean_test` of paired differences of any unit. Where all are equal and not zero, as if one more were zero: ten
    answers that grew by the same leave room for one that does not. None where all are zero: then there is no scale.
    """
    test = mean_test(differences_N, level=level)
    if not len(differences_N) or not differences_N.any() or not math.isnan(test.p_value):
        return test
    doubt = mean_test(np.append(differences_N, 0.0), level=level)
    mean, (low, high) = float(differences_N[0]), doubt.ci95
    return MeanTest((min(low, mean), max(high, mean)), doubt.p_value)


def _without_skew(y: float, skew: float) -> float:
    """The T of which Hall's h is `y`; `skew` is g/√n."""
    if abs(skew) < 1e-7:
        return y - skew / 6
    return 3 / skew * (float(np.cbrt(1 + skew * (y - skew / 6))) - 1)


def difference_test(differences_N: FloatArray) -> MeanTest:
    """The mean of paired differences in [−1, 1] (of two scores in [0, 1]): `score_test` at the effective rows."""
    n = len(differences_N)
    if n == 0:
        return MeanTest(NO_INTERVAL, math.nan)
    ahead, behind = shares_ahead_and_behind(differences_N)
    binary_variance = ahead + behind - (ahead - behind) ** 2
    rows = effective_rows(n, variance=float(differences_N.var()), binary_variance=binary_variance)
    return score_test(ahead, behind, rows=rows)


def shares_ahead_and_behind(differences: FloatArray) -> tuple[float, float]:
    """Means of the positive and of the negative parts: of whole verdicts, the shares on which either side is ahead."""
    return float(np.maximum(differences, 0).mean()), float(np.maximum(-differences, 0).mean())


def score_test(ahead: float, behind: float, *, rows: float, freedom: float | None = None) -> MeanTest:
    """Tango's score interval of a difference of paired shares (Tango 1998, Statistics in Medicine 17:891), in [−1, 1].

    `ahead` and `behind` are the shares of `rows` pairs on which one side and the other is ahead. Its test of no
    difference is McNemar's: z = (ahead − behind)·√(rows / (ahead + behind)). With `freedom` Student's quantiles stand
    for the normal ones. Where no pair differs the interval ends at z²/(rows + z²), which is Wilson's for 0 of `rows`.
    """
    reach = Z_95 if freedom is None else student_t(freedom)
    difference = ahead - behind
    share_apart = ahead + behind
    statistic = abs(difference) * math.sqrt(rows / share_apart) if share_apart > _ROUND_OFF else 0.0
    p_value = normal_tails(statistic) if freedom is None else t_tails(statistic, freedom)

    def excess(delta: float) -> float:
        """How far the statistic of the difference `delta` lies beyond the quantile."""
        linear = (2 - difference) * delta - share_apart
        root = math.sqrt(max(0.0, linear * linear + 8 * behind * delta * (1 - delta)))
        variance = (root - linear) / 2 + delta * (1 - delta)
        distance = (difference - delta) ** 2 * rows
        return distance - reach * reach * max(0.0, variance)

    low = _interval_end(excess, inside=difference, outside=-1.0)
    return MeanTest((low, _interval_end(excess, inside=difference, outside=1.0)), p_value)


def _interval_end(excess: Callable[[float], float], *, inside: float, outside: float) -> float:
    """Where `excess` rises above zero between `inside` and `outside`, by bisection; `outside` if it never does."""
    if excess(outside) <= 0:
        return outside
    for _ in range(60):
        middle = (inside + outside) / 2
        if excess(middle) > 0:
            outside = middle
        else:
            inside = middle
    return inside


def normal_tails(statistic: float) -> float:
    """Both tails of the standard normal beyond ±`statistic`."""
    return math.erfc(abs(statistic) / math.sqrt(2))


def t_tails(statistic: float, freedom: float) -> float:
    """Both tails of Student's t beyond ±`statistic`."""
    from scipy.special import stdtr

    return 2 * float(stdtr(max(1.0, freedom), -abs(statistic)))


def student_t(freedom: float, *, level: float = 0.95) -> float:
    """The quantile of Student's t that leaves (1 − level)/2 above it."""
    from scipy.special import stdtrit

    return float(stdtrit(max(1.0, freedom), 0.5 + level / 2))


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
