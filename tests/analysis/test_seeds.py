"""Pooling seeds: arithmetic by hand, limits that must hold, and coverage in a simulated world."""

from __future__ import annotations

import math

import numpy as np
import pytest

from trimtab.analysis import seeds
from trimtab.analysis.intervals import student_t, wilson_interval
from trimtab.errors import DataError


def test_two_by_two_by_hand() -> None:
    """Two seeds, two prompts.

    y = [[1, 3], [2, 6]]    grand 3    seeds 2, 4    prompts 1.5, 4.5
    rest y − seed − prompt + grand: [[.5, −.5], [−.5, .5]], squares 1, over (2−1)(2−1) = 1
    MS_prompts = 2 · (1.5² + 1.5²) / 1 = 9     MS_seeds = 2 · (1² + 1²) / 1 = 4     MS_rest = 1
    Var(mean) = (9 + 4 − 1) / 4 = 3            freedom = 12² / (81 + 16 + 1) = 144 / 98
    """
    told = seeds.pooled_mean(np.array([[1.0, 3.0], [2.0, 6.0]]))
    assert told.mean == 3
    assert told.standard_error == pytest.approx(math.sqrt(3))
    assert told.degrees_of_freedom == pytest.approx(144 / 98)
    assert told.seed_deviation == pytest.approx(math.sqrt(2))
    low, high = told.ci95
    assert (low + high) / 2 == pytest.approx(3)


def test_the_t_quantile_is_the_textbook_one() -> None:
    """Three seeds, every prompt alike: freedom is K − 1 = 2, whose 97.5 % quantile is 4.303.

    y_k = 1, 2, 3 on each of four prompts: MS_seeds = 4 · 2 / 2 = 4, the others 0, Var = 4 / 12.
    """
    told = seeds.pooled_mean(np.repeat([[1.0], [2.0], [3.0]], 4, axis=1))
    assert told.degrees_of_freedom == pytest.approx(2)
    assert told.ci95[1] - told.mean == pytest.approx(4.3027 * math.sqrt(1 / 3), abs=1e-3)


def test_seeds_that_agree_are_one_seed() -> None:
    """Identical seeds bring no news: the error is that of the prompts, s/√N, with N − 1 degrees of freedom."""
    row = np.random.default_rng(0).random(50)
    told = seeds.pooled_mean(np.stack([row, row, row]))
    assert told.standard_error == pytest.approx(row.std(ddof=1) / math.sqrt(50))
    assert told.degrees_of_freedom == pytest.approx(49)


def test_prompts_that_one_seed_lacks_are_left_out_and_counted() -> None:
    told = seeds.pooled_mean(np.array([[1.0, 2.0, np.nan, 3.0], [1.0, 2.0, 9.0, 3.0]]))
    assert (told.n_prompts, told.n_left_out, told.n_seeds, told.mean) == (3, 1, 2, 2.0)


def test_a_rate_stays_a_rate() -> None:
    certain = seeds.pooled_rate(np.ones((3, 20)))
    assert certain.ci95 == pytest.approx(wilson_interval(20, n=20))
    tied = seeds.pooled_rate(np.full((3, 20), 0.9))
    assert tied.ci95 == pytest.approx(wilson_interval(18, n=20))
    low, high = seeds.pooled_rate(np.array([[1.0, 1.0, 1.0], [1.0, 0.0, 1.0]])).ci95
    assert 0 < low < 5 / 6 < high <= 1


def test_one_seed_twice_is_that_seed_with_students_quantile() -> None:
    row = np.random.default_rng(0).integers(0, 2, 40).astype(float)
    pooled = seeds.pooled_rate(np.stack([row, row]))
    expected = wilson_interval(row.sum(), n=40, z=student_t(39))
    assert pooled.ci95 == pytest.approx(expected)


def test_differences_of_seeds_agree_with_their_p_value() -> None:
    rng = np.random.default_rng(1)
    for _ in range(100):
        pool = seeds.pooled_difference(rng.choice([-1.0, 0.0, 1.0], (3, 25), p=rng.dirichlet([1, 1, 1])))
        low, high = pool.ci95
        assert (low > 0 or high < 0) == (pool.p_value < 0.05)


def test_equal_figures_have_no_interval() -> None:
    """Three seeds that all come to +50: nothing is known of their spread (was (50, 50) with p = 0)."""
    told = seeds.pooled_figures([50.0] * 3, standard_errors=[0.0] * 3, n_prompts=3)
    assert told.mean == 50
    assert math.isnan(told.p_value)
    assert told.to_json()["ci95"] == [None, None]
    assert math.isnan(seeds.pooled_mean(np.full((3, 10), 50.0)).ci95[0])


def test_one_seed_and_no_common_prompt() -> None:
    with pytest.raises(DataError, match="one seed"):
        seeds.pooled_mean(np.ones((1, 5)))
    nothing = seeds.pooled_mean(np.array([[1.0, np.nan], [np.nan, 1.0]]))
    assert nothing.to_json()["mean"] is None
    assert nothing.to_json()["ci95"] == [None, None]


def test_figures_by_hand() -> None:
    """Figures 50 and 54 with errors 3 and 4: s²/K = 8/2 = 4, mean(se²) = 12.5, Var = 16.5."""
    told = seeds.pooled_figures([50.0, 54.0], standard_errors=[3.0, 4.0], n_prompts=100)
    assert told.mean == 52
    assert told.standard_error == pytest.approx(math.sqrt(16.5))
    assert told.degrees_of_freedom == pytest.approx(16.5**2 / (4**2 / 1 + 12.5**2 / 99))
    with pytest.raises(DataError):
        seeds.pooled_figures([50.0], standard_errors=[3.0], n_prompts=100)


@pytest.mark.parametrize("seed_deviation", [0.0, 0.05])
def test_coverage(seed_deviation: float) -> None:
    """Three seeds, 60 prompts, 400 worlds with a known mean: the interval holds it about 95 times in 100.

    Resampling prompts alone holds it far less often once seeds differ, which is why it is not used.
    """
    rng = np.random.default_rng(1)
    held = held_by_prompts_alone = 0
    for _ in range(400):
        values = (
            0.5
            + rng.normal(0, 0.15, size=(1, 60))
            + rng.normal(0, seed_deviation, size=(3, 1))
            + rng.normal(0, 0.2, size=(3, 60))
        )
        low, high = seeds.pooled_mean(values).ci95
        held += low <= 0.5 <= high
        prompts = values.mean(axis=0)
        held_by_prompts_alone += abs(prompts.mean() - 0.5) <= 1.96 * prompts.std(ddof=1) / math.sqrt(60)
    assert 0.92 <= held / 400 <= 1.0
    if seed_deviation:
        assert held_by_prompts_alone / 400 < 0.9


def test_an_interval_of_figures_stays_within_what_they_can_be() -> None:
    """Two rates of 90 and 98 %: Student's t with one degree of freedom alone would reach from 43 to 145."""
    pool = seeds.pooled_figures([90.0, 98.0], standard_errors=[0.0, 0.0], n_prompts=100)
    assert pool.ci95[1] > 100
    pool = seeds.pooled_figures([90.0, 98.0], standard_errors=[0.0, 0.0], n_prompts=100, limits=(0.0, 100.0))
    assert pool.ci95 == (pytest.approx(94 - 4 * 12.7062, abs=0.01), 100.0)
