"""Intervals and the sign test against arithmetic done by hand and against simulation."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.analysis.intervals import (
    bootstrap_interval,
    finite,
    paired_interval,
    percentile_interval,
    rate_interval,
    sign_test,
    student_t,
    wilson_interval,
)


def test_percentile_interval_cuts_two_and_a_half_percent_on_each_side() -> None:
    # 0, 1, ... 1000: the 2.5th percentile of 1001 equally spaced values is 25, the 97.5th is 975.
    assert percentile_interval(np.arange(1001.0)) == pytest.approx((25, 975))


def test_wilson_by_hand() -> None:
    # p = 1/2, n = 4, z = 2: scale 1 + 4/4 = 2, centre 1/2 + 4/8 = 1, spread 2·√(1/16 + 4/64) = 2·√(1/8) = .70711
    low, high = wilson_interval(2, n=4, z=2)
    assert low == pytest.approx((1 - math.sqrt(0.5)) / 2)
    assert high == pytest.approx((1 + math.sqrt(0.5)) / 2)


def test_ten_wins_of_ten_do_not_claim_certainty() -> None:
    # Wilson with p = 1: low = n / (n + z²) = 10 / (10 + 3.8415)
    low, high = rate_interval(np.ones(10))
    assert low == pytest.approx(10 / (10 + 1.959963984540054**2))
    assert high == pytest.approx(1.0)
    low, high = rate_interval(np.zeros(10))
    assert low == pytest.approx(0.0, abs=1e-12)
    assert high == pytest.approx(1 - 10 / (10 + 1.959963984540054**2))


def test_effective_rows_by_hand() -> None:
    """Twenty ties: p(1 − p) = 1/4, v = 0, so n_eff = 20 · (20/4 + 1/4) / (1/4) = 420; a Wilson interval around 1/2."""
    assert rate_interval(np.full(20, 0.5)) == pytest.approx(wilson_interval(210, n=420))
    # 0 and 1 vary as a coin does, so they are worth as many rows as there are
    assert rate_interval(np.array([1.0, 1.0, 1.0, 0.0])) == pytest.approx(wilson_interval(3, n=4))


def test_probabilities_are_worth_more_than_outcomes() -> None:
    low, high = rate_interval(np.array([0.4, 0.6] * 50))
    coin_low, coin_high = rate_interval(np.array([0.0, 1.0] * 50))
    assert high - low < 0.25 * (coin_high - coin_low)
    assert low < 0.5 < high


def test_a_judge_that_is_sure_of_a_few_rows_is_not_believed_about_the_next() -> None:
    """160 rows of one in ten thousand: the 161st may still be a win, so the upper bound is about that of no win."""
    _, high = rate_interval(np.full(160, 1e-4))
    assert high > 0.5 * wilson_interval(0, n=160)[1]


def test_paired_interval_by_hand() -> None:
    """No difference at all is a point; ten equal differences still leave room for another kind of row."""
    assert paired_interval(np.zeros(30)) == (0.0, 0.0)
    low, high = paired_interval(np.ones(10))
    assert 0.4 < low < 0.9
    assert high == 1.0
    assert all(math.isnan(bound) for bound in paired_interval(np.empty(0)))


def test_paired_interval_is_that_of_the_mean_on_many_rows() -> None:
    """Two pseudo-rows in a thousand do not show: 1.96 · s/√n on either side."""
    values = np.random.default_rng(3).normal(0.3, 1.0, 1000)
    low, high = paired_interval(values)
    reach = 1.96 * values.std() / math.sqrt(1000)
    assert (low, high) == pytest.approx((values.mean() - reach, values.mean() + reach), abs=0.004)


def test_student_t_from_the_textbook() -> None:
    assert student_t(2) == pytest.approx(4.3027, abs=1e-4)
    assert student_t(1e9) == pytest.approx(1.95996, abs=1e-4)


def test_no_rows_have_no_interval() -> None:
    assert all(math.isnan(bound) for bound in rate_interval(np.empty(0)))
    assert all(math.isnan(bound) for bound in wilson_interval(0, n=0))


def test_bootstrap_depends_on_its_seed_and_on_nothing_else() -> None:
    values = np.random.default_rng(1).random(40)
    before = np.random.get_state()
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)
    assert bootstrap_interval(values, seed=3) != bootstrap_interval(values, seed=4)
    assert str(np.random.get_state()) == str(before)


def test_bootstrap_of_a_long_sample_is_drawn_in_parts() -> None:
    # 300,000 rows leave room for six resamples at once; the standard error of the mean is 1/√(12·n) = 5.27e-4.
    values = np.random.default_rng(2).random(300_000)
    low, high = bootstrap_interval(values, n_boot=40)
    assert low < values.mean() < high
    assert high - low < 10 * 5.27e-4


def test_bootstrap_of_another_statistic() -> None:
    low, high = bootstrap_interval(np.array([1.0, 2.0, 100.0]), statistic=np.median)
    assert (low, high) == (1.0, 100.0)


@pytest.mark.parametrize(
    ("wins", "losses", "p"),
    [
        (0, 0, 1.0),
        (5, 0, 2 / 32),  # two tails of one outcome in 2⁵
        (1, 5, 2 * 7 / 64),  # 1 + 6 outcomes in 2⁶, both tails
        (8, 2, 2 * 56 / 1024),  # 1 + 10 + 45
        (3, 3, 1.0),  # twice the smaller tail is above 1
    ],
)
def test_sign_test_by_hand(wins: int, losses: int, p: float) -> None:
    assert sign_test(wins, losses) == pytest.approx(p)
    assert sign_test(losses, wins) == sign_test(wins, losses)


@given(wins=st.integers(0, 60), losses=st.integers(0, 60))
@settings(max_examples=60, deadline=None)
def test_sign_test_is_the_binomial_tail(wins: int, losses: int) -> None:
    n = wins + losses
    tail = sum(Fraction(math.comb(n, k), 2**n) for k in range(min(wins, losses) + 1))
    assert sign_test(wins, losses) == pytest.approx(float(min(Fraction(1), 2 * tail)), rel=1e-12)


def test_sign_test_keeps_its_far_tail_on_large_samples() -> None:
    assert sign_test(5000, 5000) == 1.0
    # z = (6000 − 5000)/50 = 20, whose two-sided normal tail is about 5.5e-89
    assert 1e-91 < sign_test(6000, 4000) < 1e-86


def test_finite() -> None:
    assert finite(1.5) == 1.5
    assert finite(math.nan) is None
    assert finite(math.inf) is None
