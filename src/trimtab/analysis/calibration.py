"""Does a reward gap mean what it says? σ(gap) read as the probability that the chosen response is preferred.

Labels are always "chosen", so gaps are scored by confidence, which has two sides: a gap predicts its own sign with
confidence σ(|gap|), and is right when gap > 0 (half right at 0). Shapes: N rows, bins as listed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trimtab.analysis.intervals import FloatArray, Interval, finite, rate_interval
from trimtab.errors import DataError


@dataclass(frozen=True, slots=True)
class Bin:
    """One bin of predicted probability, [low, high): how many rows, mean prediction, share that came true."""

    low: float
    high: float
    count: int
    predicted: float
    observed: float


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

    def to_json(self) -> dict[str, Any]:
        return {
            "n": self.n,
            "accuracy": finite(self.accuracy),
            "accuracy_ci95": [finite(bound) for bound in self.accuracy_ci95],
            "ece": finite(self.ece),
            "brier": finite(self.brier),
            "bins": [[b.low, b.high, b.count, finite(b.predicted), finite(b.observed)] for b in self.bins],
        }


def reliability_bins(
    predicted: Sequence[float], outcomes: Sequence[float], *, low: float = 0.0, high: float = 1.0, n_bins: int = 10
) -> tuple[Bin, ...]:
    """Equal-width bins over [low, high] of predicted probabilities and their outcomes in [0, 1]; empty bins left out.

    A prediction on an inner edge belongs to the upper bin, one at `high` to the last. Raises DataError for others.
    """
    p, y = np.asarray(predicted, dtype=np.float64), np.asarray(outcomes, dtype=np.float64)
    if len(p) != len(y):
        raise DataError(f"{len(p)} predictions for {len(y)} outcomes", remedy="give one outcome a prediction")
    if len(p) and not (np.isfinite(y).all() and np.isfinite(p).all() and p.min() >= low and p.max() <= high):
        raise DataError(f"predictions outside [{low}, {high}] or not finite", remedy="give probabilities")
    edges = np.linspace(low, high, n_bins + 1)
    which = np.clip(np.searchsorted(edges, p, side="right") - 1, 0, n_bins - 1)
    bins = []
    for k in range(n_bins):
        inside = which == k
        count = int(inside.sum())
        if count:
            bins.append(
                Bin(float(edges[k]), float(edges[k + 1]), count, float(p[inside].mean()), float(y[inside].mean()))
            )
    return tuple(bins)


def expected_calibration_error(bins: Sequence[Bin]) -> float:
    """Σ (count / n) · |observed − predicted|; NaN without rows."""
    n = sum(b.count for b in bins)
    return sum(b.count * abs(b.observed - b.predicted) for b in bins) / n if n else float("nan")


def calibration(reward_gaps: Sequence[float], *, n_bins: int = 10) -> Calibration:
    """Calibration of σ(reward(chosen) − reward(rejected)) on pairs, gaps in nats.

    Raises DataError for a non-finite gap.
    """
    gaps: FloatArray = np.asarray(reward_gaps, dtype=np.float64)
    if not np.isfinite(gaps).all():
        raise DataError("a reward gap is not finite", remedy="look for the pair whose log-probability is not finite")
    confidence = 1 / (1 + np.exp(-np.abs(gaps)))
    right = np.where(gaps > 0, 1.0, np.where(gaps < 0, 0.0, 0.5))
    wrongness = np.where(gaps >= 0, 1 - confidence, confidence)  # 1 − σ(gap), exact for large gaps
    bins = reliability_bins(confidence.tolist(), right.tolist(), low=0.5, high=1.0, n_bins=n_bins)
    empty = not len(gaps)
    return Calibration(
        n=len(gaps),
        accuracy=float("nan") if empty else float(right.mean()),
        accuracy_ci95=rate_interval(right),
        ece=expected_calibration_error(bins),
        brier=float("nan") if empty else float((wrongness**2).mean()),
        bins=bins,
    )


@dataclass(frozen=True, slots=True)
class Chance:
    """The calibration error that a perfectly calibrated reward would show on as many pairs: its mean, and what it
    stays below in 95 of 100 cases. A small sample always shows some."""

    mean: float
    below95: float

    def to_json(self) -> dict[str, Any]:
        return {"mean": finite(self.mean), "below95": finite(self.below95)}


def chance_error(reward_gaps: Sequence[float], *, n_bins: int = 10, seed: int = 0, n_draws: int = 2000) -> Chance:
    """Consistency resampling (Bröcker and Smith 2007, Weather and Forecasting 22:651): the confidences stay, each sign
    is right with exactly that probability. Pairs are taken as independent of each other. NaN without pairs."""
    gaps: FloatArray = np.asarray(reward_gaps, dtype=np.float64)
    n = len(gaps)
    if n == 0:
        return Chance(float("nan"), float("nan"))
    confidence = 1 / (1 + np.exp(-np.abs(gaps)))
    which = np.minimum(((confidence - 0.5) * 2 * n_bins).astype(np.int64), n_bins - 1)
    members_NB = np.zeros((n, n_bins))
    members_NB[np.arange(n), which] = 1.0
    rng = np.random.default_rng(seed)
    errors = []
    for _ in range(n_draws):
        right = np.where(gaps == 0, 0.5, rng.random(n) < confidence)
        errors.append(np.abs((right - confidence) @ members_NB).sum() / n)
    return Chance(float(np.mean(errors)), float(np.quantile(errors, 0.95)))
