"""Spearman's partial correlation with bootstrap draws over groups of rows.

Ranks, because "earlier" and "longer" are all that is asked. Controls, the columns that are held equal, enter as their
ranks, their squares and products, and both sides are replaced by what least squares on these leaves over. The bootstrap
draws whole groups (prompts, with all of their pairs), as weights, and ranks again in every draw. Two calls with the
same rows, groups and seed draw the same groups, so the difference of their draws is a paired one.

Shapes: N rows, G groups, B draws, U distinct values, D columns (2 sides, a constant and the controls).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from trimtab.analysis import comparison, estimates, seeds
from trimtab.analysis.intervals import NO_INTERVAL, FloatArray, Interval, percentile_interval
from trimtab.errors import DataError
from trimtab.records import Estimate

METHOD = "bootstrap over prompts (percentile, 1,000 draws)"
N_BOOT = 1000  # 25 in either tail; each draw sorts every pair
_WEIGHTS_AT_ONCE = 60_000  # what they are multiplied with stays in the cache
_MIN_SPREAD = 1e-9  # of what is left of a variable, below which there is nothing to correlate
_COLLINEAR = 1e-10  # columns that least squares cannot tell apart (a square of two levels is a line)
_MAX_UNDEFINED = 0.05  # share of the draws, above which no interval is given


@dataclass(frozen=True, slots=True)
class RankCorrelation:
    """In [−1, 1]; NaN where a variable does not vary at equal controls. `draws_B` may hold NaN too."""

    value: float
    draws_B: FloatArray
    n: int
    n_groups: int

    @property
    def ci95(self) -> Interval:
        return NO_INTERVAL if self._is_undefined else percentile_interval(self.draws_B[~np.isnan(self.draws_B)])

    @property
    def standard_error(self) -> float:
        """Standard deviation of the draws; NaN where too many of them are not defined."""
        return math.nan if self._is_undefined else float(np.nanstd(self.draws_B, ddof=1))

    @property
    def _is_undefined(self) -> bool:
        return math.isnan(self.value) or bool(np.isnan(self.draws_B).mean() > _MAX_UNDEFINED)

    def __sub__(self, second: RankCorrelation) -> RankCorrelation:
        """Their paired difference; both must have been drawn over the same groups with the same seed."""
        return replace(self, value=self.value - second.value, draws_B=self.draws_B - second.draws_B)


@dataclass(frozen=True, slots=True)
class Correlation:
    """All seeds in one estimate. `detectable` is the size that four of five such studies would tell from 0."""

    by_seed: tuple[RankCorrelation, ...]
    estimate: Estimate
    n_prompts: int
    detectable: float | None

    def to_json(self) -> dict[str, object]:
        return self.estimate.to_json() | {"n_prompts": self.n_prompts, "detectable": self.detectable}


def pool_seeds(by_seed: Sequence[RankCorrelation]) -> Correlation:
    """One correlation a seed, on the same rows and groups (prompts), in one estimate."""
    first = by_seed[0]
    if len(by_seed) == 1:
        estimate, error = estimates.estimate(first.value, first.ci95, n=first.n, method=METHOD), first.standard_error
    else:
        figures = seeds.pooled_figures(
            [correlation.value for correlation in by_seed],
            standard_errors=[correlation.standard_error for correlation in by_seed],
            n_prompts=first.n_groups,
            limits=(-1.0, 1.0),
        )
        estimate = replace(estimates.of_seeds(figures, method=seeds.METHOD_OF_FIGURES), n=first.n)
        error = figures.standard_error
    has_power = estimate.ci95 is not None and error > 0
    detectable = comparison.power(1, delta=1.0, sd=error).detectable if has_power else None
    return Correlation(tuple(by_seed), estimate, first.n_groups, detectable)


def rank_correlation(
    x_N: FloatArray,
    y_N: FloatArray,
    *,
    groups_N: Sequence[object],
    controls: Sequence[FloatArray] = (),
    seed: int = 0,
    n_boot: int = N_BOOT,
) -> RankCorrelation:
    """Correlation of the ranks of x and y at equal `controls`. Raises DataError when the columns differ in length."""
    columns = [np.asarray(column, dtype=np.float64) for column in (x_N, y_N, *controls)]
    if len({len(groups_N), *map(len, columns)}) != 1:
        raise DataError("the columns of a correlation differ in length", remedy="give one value a row in each")
    names: dict[object, int] = {}
    group_N = np.array([names.setdefault(group, len(names)) for group in groups_N], dtype=np.int64)
    if len(names) < 3:
        return RankCorrelation(math.nan, np.full(n_boot, math.nan), len(group_N), len(names))
    levels = [_Levels(column) for column in columns]
    value = float(_correlations(levels, np.ones((1, len(group_N))))[0])
    draws = [_correlations(levels, weights_BN) for weights_BN in _weights(group_N, len(names), seed, n_boot)]
    return RankCorrelation(value, np.concatenate(draws), len(group_N), len(names))


class _Levels:
    """A column by its distinct values, to be ranked under any weights."""

    def __init__(self, values_N: FloatArray) -> None:
        values_U, self._level_N = np.unique(values_N, return_inverse=True)
        self._order_N = np.argsort(self._level_N, kind="stable")
        self._starts_U = np.searchsorted(self._level_N[self._order_N], np.arange(len(values_U)))

    def ranks(self, weights_BN: FloatArray) -> FloatArray:
        """Mid-ranks, shifted and scaled into [−½, ½]."""
        counts_BU = np.add.reduceat(weights_BN[:, self._order_N], self._starts_U, axis=1)
        below_BU = np.cumsum(counts_BU, axis=1) - counts_BU / 2
        ranks: FloatArray = (below_BU / counts_BU.sum(axis=1, keepdims=True) - 0.5)[:, self._level_N]
        return ranks


def _weights(
    group_N: np.ndarray[tuple[int], np.dtype[np.int64]], n: int, seed: int, n_boot: int
) -> Iterator[FloatArray]:
    """How often each row is drawn, [B, N], a part of the draws at a time."""
    rng = np.random.default_rng(seed)
    at_once = max(1, _WEIGHTS_AT_ONCE // len(group_N))
    for start in range(0, n_boot, at_once):
        counts_BG = np.array(
            [np.bincount(rng.integers(0, n, size=n), minlength=n) for _ in range(min(at_once, n_boot - start))]
        )
        yield counts_BG[:, group_N].astype(np.float64)


def _correlations(levels: Sequence[_Levels], weights_BN: FloatArray) -> FloatArray:
    """[B]. Sums of products of all columns at once; what least squares leaves over is their Schur complement."""
    x_BN, y_BN, *controls = (column.ranks(weights_BN) for column in levels)
    products = [a * b for a, b in itertools.combinations_with_replacement(controls, 2)]
    columns_BDN = np.stack([x_BN, y_BN, np.ones_like(x_BN), *controls, *products], axis=1)
    sums_BDD = (columns_BDN * weights_BN[:, None, :]) @ np.swapaxes(columns_BDN, 1, 2)
    sums_BDD /= weights_BN.sum(axis=1)[:, None, None]
    across_B2D = sums_BDD[:, :2, 2:]
    inverse_BDD = np.linalg.pinv(sums_BDD[:, 2:, 2:], rcond=_COLLINEAR, hermitian=True)
    residual_B22 = sums_BDD[:, :2, :2] - across_B2D @ inverse_BDD @ np.swapaxes(across_B2D, 1, 2)
    x_B, y_B = residual_B22[:, 0, 0], residual_B22[:, 1, 1]
    varies_B = np.minimum(x_B, y_B) > _MIN_SPREAD
    scale_B = np.sqrt(np.where(varies_B, x_B * y_B, 1.0))
    correlations_B: FloatArray = np.where(varies_B, residual_B22[:, 0, 1] / scale_B, np.nan)
    return correlations_B
