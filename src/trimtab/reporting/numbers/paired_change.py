"""What alignment changed: the aligned model less the unaligned one, paired by prompt or question."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from trimtab.analysis import comparison, estimates
from trimtab.analysis.comparison import Scores
from trimtab.analysis.intervals import NO_INTERVAL, FloatArray, finite
from trimtab.errors import DataError
from trimtab.records import Direction, Estimate


@dataclass(frozen=True, slots=True)
class PairedChange:
    """The mean difference; how many are better, equal and worse after alignment; the p-value of `test`.

    `direction` is unknown below `comparison.MIN_COMMON` common prompts.
    """

    estimate: Estimate
    wins_a: int
    wins_b: int
    ties: int
    p_value: float | None
    test: str
    direction: Direction

    def to_json(self) -> dict[str, object]:
        tree = self.estimate.to_json()
        tree.pop("seed_deviation", None)  # a comparison pools without it
        return tree | {
            "wins_a": self.wins_a,
            "wins_b": self.wins_b,
            "ties": self.ties,
            "p_value": self.p_value,
            "test": self.test,
            "direction": self.direction,
        }


def paired_change(
    aligned: Sequence[Scores], unaligned: Sequence[Scores], *, scale: float, top: float = 1.0
) -> PairedChange:
    """`analysis.comparison` of one dictionary of scores a seed; without a value where no prompt is common."""
    try:
        result = comparison.compare(aligned, unaligned, scale=scale, top=top, names=("aligned", "unaligned"))
    except DataError:
        estimate = estimates.estimate(math.nan, NO_INTERVAL, n=0, method=estimates.PAIRED)
        return PairedChange(estimate, 0, 0, 0, None, comparison.SCORE_TEST, "unknown")
    estimate = estimates.estimate(
        result.delta,
        result.ci95,
        n=result.n_common,
        n_missing=result.n_missing,
        n_seeds=result.n_seeds,
        method=result.method,
    )
    p_value = finite(result.p_value)
    direction = estimate.direction(0.0)
    return PairedChange(estimate, result.wins_a, result.wins_b, result.ties, p_value, result.test, direction)


def win_rate_change(aligned_KN: FloatArray, unaligned_KN: FloatArray) -> PairedChange:
    """In points of win rate; columns are the same prompts on both sides."""
    return paired_change(_by_column(aligned_KN), _by_column(unaligned_KN), scale=100)


def _by_column(scores_KN: FloatArray) -> list[Scores]:
    return [{str(n): finite(float(score)) for n, score in enumerate(row_N)} for row_N in scores_KN]
