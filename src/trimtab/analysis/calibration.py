"""Does a reward gap mean what it says? σ(gap) read as the probability that the chosen response is preferred.

Labels are always "chosen", so gaps are scored by confidence, which has two sides: a gap predicts its own sign with
confidence σ(|gap|), and is right when gap > 0 (half right at 0). Shapes: N rows, bins as listed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trimtab.analysis.estimates import estimate
from trimtab.analysis.intervals import NO_INTERVAL, Z_95, FloatArray, Interval, finite, rate_interval
from trimtab.errors import DataError
from trimtab.records import Estimate


@dataclass(frozen=True, slots=True)
class Bin:
    """One bin of confidence, [low, high): how many rows, their mean confidence, and the share that was right."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float

    def to_json(self) -> list[float | None]:
        return [self.low, self.high, self.count, finite(self.confidence), finite(self.accuracy)]


@dataclass(frozen=True, slots=True)
class Calibration:
    """Fractions, not percent. `ece` is the expected calibration error (Guo et al. 2017, Eq. 3), `brier` the mean
    squared error of σ(gap) against 1, `accuracy` the share of gaps above zero (half for zero) with its interval."""

    n: int
    accuracy: float
    accuracy_ci95: Interval
    ece: float
    brier: float
    bins: tuple[Bin, ...]

    def to_json(self) -> dict[str, object]:
        return {
            "n": self.n,
            "accuracy": finite(self.accuracy),
            "accuracy_ci95": [finite(end) for end in self.accuracy_ci95],
            "ece": finite(self.ece),
            "brier": finite(self.brier),
            "bins": [reliability_bin.to_json() for reliability_bin in self.bins],
        }


@dataclass(frozen=True, slots=True)
class GapScores:
    """Of each reward gap: σ(|gap|), whether its sign is right (½ at 0), and the squared error of σ(gap) against 1."""

    confidence: FloatArray
    right: FloatArray
    squared_error: FloatArray


def score_gaps(reward_gaps: npt.ArrayLike) -> GapScores:
    """Gaps in nats, of any shape. Raises DataError for one that is not finite."""
    gaps: FloatArray = np.asarray(reward_gaps, dtype=np.float64)
    if not np.isfinite(gaps).all():
        raise DataError("a reward gap is not finite", remedy="look for the pair whose log-probability is not finite")
    confidence = 1 / (1 + np.exp(-np.abs(gaps)))
    shortfall = np.where(gaps >= 0, 1 - confidence, confidence)  # 1 − σ(gap), exact for large gaps
    return GapScores(confidence, np.where(gaps > 0, 1.0, np.where(gaps < 0, 0.0, 0.5)), shortfall**2)


def reliability_bins(
    confidence_N: FloatArray, right_N: FloatArray, *, low: float = 0.0, high: float = 1.0, n_bins: int = 10
) -> tuple[Bin, ...]:
    """Equal-width bins over [low, high] of confidences and whether each was right, in [0, 1]; empty bins left out.

    A confidence on an inner edge belongs to the upper bin, one at `high` to the last. Raises DataError for others.
    """
    if len(confidence_N) != len(right_N):
        raise DataError(f"{len(confidence_N)} predictions for {len(right_N)} outcomes", remedy="give one a prediction")
    if not (np.isfinite(right_N).all() and ((confidence_N >= low) & (confidence_N <= high)).all()):
        raise DataError(f"predictions outside [{low}, {high}] or not finite", remedy="give probabilities")
    edges = np.linspace(low, high, n_bins + 1)
    bin_N = np.clip(np.searchsorted(edges, confidence_N, side="right") - 1, 0, n_bins - 1)
    return tuple(
        Bin(
            float(edges[k]),
            float(edges[k + 1]),
            int((bin_N == k).sum()),
            float(confidence_N[bin_N == k].mean()),
            float(right_N[bin_N == k].mean()),
        )
        for k in np.unique(bin_N)
    )


def expected_calibration_error(bins: Sequence[Bin]) -> float:
    """Σ (count / n) · |accuracy − confidence|; NaN without rows."""
    n = sum(b.count for b in bins)
    return sum(b.count * abs(b.accuracy - b.confidence) for b in bins) / n if n else math.nan


def calibration(reward_gaps: npt.ArrayLike, *, n_bins: int = 10) -> Calibration:
    """Calibration of σ(reward(chosen) − reward(rejected)) on pairs, gaps in nats.

    Raises DataError for a non-finite gap.
    """
    scores = score_gaps(reward_gaps)
    n = len(scores.right)
    bins = reliability_bins(scores.confidence, scores.right, low=0.5, high=1.0, n_bins=n_bins)
    return Calibration(
        n=n,
        accuracy=float(scores.right.mean()) if n else math.nan,
        accuracy_ci95=rate_interval(scores.right),
        ece=expected_calibration_error(bins),
        brier=float(scores.squared_error.mean()) if n else math.nan,
        bins=bins,
    )


@dataclass(frozen=True, slots=True)
class Chance:
    """The calibration error that a perfectly calibrated reward would show on as many pairs: its mean, and what it
    stays below in 95 of 100 cases. A small sample always shows some."""

    mean: float
    below95: float

    def to_json(self) -> dict[str, float | None]:
        return {"mean": finite(self.mean), "below95": finite(self.below95)}


def chance_error(reward_gaps: npt.ArrayLike, *, n_bins: int = 10, seed: int = 0, n_draws: int = 2000) -> Chance:
    """Consistency resampling (Bröcker and Smith 2007, Weather and Forecasting 22:651): the confidences stay, each sign
    is right with exactly that probability. Pairs are taken as independent of each other. NaN without pairs."""
    scores = score_gaps(reward_gaps)
    n = len(scores.right)
    if n == 0:
        return Chance(math.nan, math.nan)
    bin_N = np.minimum(((scores.confidence - 0.5) * 2 * n_bins).astype(np.int64), n_bins - 1)
    members_NB = np.zeros((n, n_bins))
    members_NB[np.arange(n), bin_N] = 1.0
    rng = np.random.default_rng(seed)
    errors = []
    for _ in range(n_draws):
        right_N = np.where(scores.right == 0.5, 0.5, rng.random(n) < scores.confidence)  # a gap of 0 stays half right
        errors.append(np.abs((right_N - scores.confidence) @ members_NB).sum() / n)
    return Chance(float(np.mean(errors)), float(np.quantile(errors, 0.95)))


def temperature(reward_gaps: npt.ArrayLike) -> Estimate:
    """The T of which σ(gap / T) is the likeliest account of the labels: above 1 the gaps are over-confident.

    Temperature scaling (Guo et al. 2017, §4.2) of a logistic model without intercept; its interval holds what the
    likelihood ratio does not reject, and is None where that has no end. No value where all gaps that are not 0 have one
    sign, or their sum is not above 0: no temperature mends that. Raises DataError for a gap that is not finite.
    """
    from scipy.optimize import brentq

    right = score_gaps(reward_gaps).right
    gaps: FloatArray = np.asarray(reward_gaps, dtype=np.float64)

    def report(value: float, ci95: Interval) -> Estimate:
        return estimate(value, ci95, n=len(gaps), method="profile likelihood over pairs")

    if not (0.0 in right and 1.0 in right and gaps.sum() > 0):
        return report(math.nan, NO_INTERVAL)

    def log_likelihood(sharpness: float) -> float:
        return -float(np.logaddexp(0.0, -sharpness * gaps).sum())

    def slope(sharpness: float) -> float:
        return float((gaps / (1 + np.exp(np.clip(sharpness * gaps, -700, 700)))).sum())

    most = 1 / float(np.abs(gaps).max())
    while slope(most) > 0:
        most *= 2
    best = brentq(slope, 0.0, most)

    def excess(sharpness: float) -> float:
        return 2 * (log_likelihood(best) - log_likelihood(sharpness)) - Z_95**2

    if excess(0.0) <= 0:
        return report(1 / best, NO_INTERVAL)
    while excess(most) < 0:
        most *= 2
    return report(1 / best, (1 / brentq(excess, best, most), 1 / brentq(excess, 0.0, best)))
