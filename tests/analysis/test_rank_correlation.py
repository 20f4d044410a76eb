"""Partial rank correlation: against scipy and plain least squares, and whether its interval holds the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr

from trimtab.analysis.intervals import FloatArray
from trimtab.analysis.rank_correlation import pool_seeds, rank_correlation
from trimtab.errors import DataError


def drawn(seed: int, n: int = 60) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Four columns that hang together; the second and third with many ties."""
    rng = np.random.default_rng(seed)
    quality = rng.integers(0, 5, n).astype(float)
    length = rng.integers(-20, 20, n) + 2 * quality
    time = np.clip(np.round(quality - 0.05 * length + rng.normal(size=n)), 0, 3)
    return length, time, quality, rng.normal(size=n) + length


def test_without_anything_held_it_is_spearmans_with_ties() -> None:
    length, time, _, _ = drawn(0)
    found = rank_correlation(length, time, groups_N=range(60))
    assert found.value == pytest.approx(spearmanr(length, time).statistic, abs=1e-12)
    assert (found.n, found.n_groups) == (60, 60)


def test_what_is_held_equal_is_taken_out_by_least_squares_on_ranks() -> None:
    length, time, quality, other = drawn(1)
    z = [rankdata(column) / 60 - 0.5 for column in (quality, other)]
    held = np.stack([np.ones(60), *z, z[0] ** 2, z[0] * z[1], z[1] ** 2], axis=1)
    left = [ranks - held @ np.linalg.lstsq(held, ranks, rcond=None)[0] for ranks in map(rankdata, (length, time))]
    found = rank_correlation(length, time, controls=[quality, other], groups_N=range(60))
    assert found.value == pytest.approx(np.corrcoef(*left)[0, 1], abs=1e-9)


def test_a_draw_is_the_correlation_of_the_rows_it_drew_ranked_again() -> None:
    length, time, _, _ = drawn(2, n=30)
    found = rank_correlation(length, time, groups_N=range(30), seed=7, n_boot=3)
    rng = np.random.default_rng(7)
    for value in found.draws_B:
        rows = rng.integers(0, 30, size=30)
        assert value == pytest.approx(spearmanr(length[rows], time[rows]).statistic, abs=1e-12)


def test_a_prompt_is_drawn_with_all_of_its_pairs() -> None:
    """Four copies of every row know no more than one: the interval stays as wide when copies share a group."""
    length, time, _, _ = drawn(3)
    four = [np.repeat(column, 4) for column in (length, time)]
    once = rank_correlation(length, time, groups_N=range(60)).standard_error
    grouped = rank_correlation(*four, groups_N=np.repeat(np.arange(60), 4).tolist()).standard_error
    apart = rank_correlation(*four, groups_N=range(240)).standard_error
    assert grouped == pytest.approx(once, rel=0.02)
    assert apart == pytest.approx(once / 2, rel=0.15)


def test_what_does_not_vary_has_no_correlation_and_no_interval() -> None:
    length, time, quality, _ = drawn(4)
    for found in (
        rank_correlation(length, np.ones(60), groups_N=range(60)),
        rank_correlation(quality, time, controls=[quality], groups_N=range(60)),  # nothing is left of it
        rank_correlation(length[:2], time[:2], groups_N=range(2)),
    ):
        assert math.isnan(found.value)
        assert math.isnan(found.ci95[0])
        assert math.isnan(found.standard_error)
    with pytest.raises(DataError, match="differ in length"):
        rank_correlation(length, time[:-1], groups_N=range(60))


def test_seeds_are_pooled_and_their_differences_are_paired() -> None:
    """Both draw the same prompts, so what they share cancels: the difference is known better than either."""
    length, time, _, _ = drawn(6)
    shifted = time + np.random.default_rng(0).normal(0, 0.05, 60)
    first, second = (rank_correlation(length, y, groups_N=range(60)) for y in (time, shifted))
    apart = first - second
    assert apart.value == pytest.approx(first.value - second.value)
    assert apart.standard_error < 0.5 * first.standard_error
    alone, both = pool_seeds([first]), pool_seeds([first, second])
    assert alone.estimate.ci95 == first.ci95
    assert alone.detectable == pytest.approx(2.8 * first.standard_error, rel=0.01)  # z of 97.5 % plus z of 80 %
    assert both.estimate.value == pytest.approx((first.value + second.value) / 2)
    assert (both.estimate.n, both.estimate.n_seeds, both.n_prompts) == (60, 2, 60)
    nothing = pool_seeds([rank_correlation(length, np.ones(60), groups_N=range(60))])
    assert (nothing.estimate.value, nothing.estimate.ci95, nothing.detectable) == (None, None, None)


def test_two_levels_held_equal_are_no_trouble() -> None:
    """Their squares are the same columns again, which least squares must not stumble over."""
    length, time, quality, _ = drawn(5)
    two = (quality > 2).astype(float)
    found = rank_correlation(length, time, controls=[two], groups_N=range(60))
    by_hand = []
    for ranks in (rankdata(length), rankdata(time)):
        by_hand.append(ranks - np.where(two == 1, ranks[two == 1].mean(), ranks[two == 0].mean()))
    assert found.value == pytest.approx(np.corrcoef(*by_hand)[0, 1], abs=1e-9)
    assert found.ci95[0] < found.value < found.ci95[1]


@pytest.mark.parametrize("confounded", [False, True])
def test_no_relation_is_told_from_one_in_about_95_of_100_draws(confounded: bool) -> None:
    """Times of three levels. Confounded: both hang on quality, the time in a bent way, and quality is held equal; the
    plain correlation then claims an order in most draws, so the test can tell one from the other."""
    trials, held, plain = 120, 0, 0
    for trial in range(trials):
        rng = np.random.default_rng(trial)
        quality = rng.choice([0.0, 0.15, 0.5, 0.85, 1.0], size=120)
        bent = 2.5 * quality**2
        length = rng.integers(-15, 16, 120) + (12 * quality if confounded else 0)
        time = np.clip(np.round(rng.normal(1.0, 0.8, 120) + (bent if confounded else 0)), 0, 3)
        controls = [quality] if confounded else []
        low, high = rank_correlation(length, time, controls=controls, groups_N=range(120), n_boot=400).ci95
        held += low <= 0 <= high
        if confounded:
            low, high = rank_correlation(length, time, groups_N=range(120), n_boot=400).ci95
            plain += not low <= 0 <= high
    assert 107 <= held <= 119  # 95 % of 120 is 114, two standard deviations are 4.8
    assert not confounded or plain > 100
