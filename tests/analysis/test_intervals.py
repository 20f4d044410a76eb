"""Intervals and tests against arithmetic done by hand and against simulation."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.analysis.intervals import (
    difference_test,
    finite,
    mean_test,
    paired_mean_test,
    percentile_interval,
    rate_interval,
    rate_p_value,
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
    """Ten ties and ten scores of .5 ± .5: p(1 − p) = 1/4, v = 1/8, so n_eff = 20 · (5 + 1/3) / (2.5 + 1/3) = 37.647."""
    scores = np.array([0.5] * 10 + [0.0, 1.0] * 5)
    assert rate_interval(scores) == pytest.approx(wilson_interval(10, n=20, effective=20 * (16 / 3) / (17 / 6)))
    # 0 and 1 vary as a coin does, so they are worth as many rows as there are
    assert rate_interval(np.array([1.0, 1.0, 1.0, 0.0])) == pytest.approx(wilson_interval(3, n=4))


@pytest.mark.parametrize("score", [0.0, 0.5, 0.9, 1.0])
def test_equal_scores_have_wilsons_interval(score: float) -> None:
    """Nothing is known of their spread, so they are coins of that mean (issue 18, point 7; never of zero width)."""
    low, high = rate_interval(np.full(20, score))
    assert (low, high) == pytest.approx(wilson_interval(20 * score, n=20))
    assert high - low > 0.1


def test_the_p_value_of_a_rate_is_the_score_tests() -> None:
    """15 wins of 20: z = (.75 − .5) / √(.25/20) = 2.236, both tails of the normal .0253."""
    assert rate_p_value(np.array([1.0] * 15 + [0.0] * 5)) == pytest.approx(0.02535, abs=1e-5)
    assert math.isnan(rate_p_value(np.empty(0)))


def test_probabilities_are_worth_more_than_outcomes() -> None:
    low, high = rate_interval(np.array([0.4, 0.6] * 50))
    coin_low, coin_high = rate_interval(np.array([0.0, 1.0] * 50))
    assert high - low < 0.25 * (coin_high - coin_low)
    assert low < 0.5 < high


def test_a_judge_that_is_sure_of_a_few_rows_is_not_believed_about_the_next() -> None:
    """160 rows of one in ten thousand: the 161st may still be a win, so the upper bound is about that of no win."""
    _, high = rate_interval(np.full(160, 1e-4))
    assert high > 0.5 * wilson_interval(0, n=160)[1]


def test_no_difference_at_all_leaves_wilsons_doubt() -> None:
    """Tango 1998: where no pair differs the interval ends at ± z²/(n + z²), Wilson's for 0 of n."""
    test = difference_test(np.zeros(20))
    assert test.ci95 == pytest.approx((-(3.8415 / 23.8415), 3.8415 / 23.8415), abs=1e-5)
    assert test.p_value == 1
    assert all(math.isnan(end) for end in difference_test(np.empty(0)).ci95)


def test_tangos_interval_from_its_definition() -> None:
    """12 pairs ahead and 2 behind of 50 (Tango 1998, equation 6): at either end the likeliest share behind, found here
    on a grid, gives the difference a z of 1.96. z of no difference is (12 − 2)/√14 = 2.673, which is McNemar's.
    """
    n, ahead, behind = 50, 12, 2
    test = difference_test(np.array([1.0] * ahead + [-1.0] * behind + [0.0] * (n - ahead - behind)))
    assert test.p_value == pytest.approx(0.00753, abs=1e-5)
    for end in test.ci95:
        shares = np.linspace(max(0, -end) + 1e-6, (1 - abs(end)) / 2 + max(0, -end), 400_001)
        with np.errstate(divide="ignore", invalid="ignore"):
            likelihood = ahead * np.log(shares + end) + behind * np.log(shares)
            likelihood += (n - ahead - behind) * np.log(1 - 2 * shares - end)
        share = shares[np.nanargmax(likelihood)]
        z = (ahead - behind - n * end) / math.sqrt(n * (2 * share + end * (1 - end)))
        assert abs(z) == pytest.approx(1.95996, abs=1e-3)


DIFFERENCES = st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.25, 1.0]) | st.floats(-1, 1), min_size=2, max_size=60)


@given(DIFFERENCES)
@settings(max_examples=150, deadline=None)
def test_interval_and_p_value_of_a_difference_always_agree(values: list[float]) -> None:
    differences = np.array(values)
    test, mirrored = difference_test(differences), difference_test(-differences)
    low, high = test.ci95
    assert (low > 0 or high < 0) == (test.p_value < 0.05)
    assert low <= differences.mean() + 1e-9
    assert differences.mean() - 1e-9 <= high
    assert high - low > 0.01
    assert (mirrored.ci95, mirrored.p_value) == (pytest.approx((-high, -low), abs=1e-9), pytest.approx(test.p_value))


@given(st.lists(st.floats(-100, 100), min_size=3, max_size=60))
@settings(max_examples=100, deadline=None)
def test_interval_and_p_value_of_a_mean_always_agree(values: list[float]) -> None:
    test = mean_test(np.array(values))
    low, high = test.ci95
    assert math.isnan(low) == math.isnan(test.p_value)
    if not math.isnan(low):
        assert (low > 0 or high < 0) == (test.p_value < 0.05)


def test_a_mean_by_hand() -> None:
    """−1, 0, 1: mean 0, s = 1, no skew: 0 ± t.975(2)·1/√3 = ± 2.484. Equal values say nothing of their spread."""
    assert mean_test(np.array([-1.0, 0.0, 1.0])).ci95 == pytest.approx((-2.4841, 2.4841), abs=1e-3)
    assert math.isnan(mean_test(np.full(30, 15.0)).ci95[0])
    low, high = paired_mean_test(np.full(30, 15.0)).ci95  # as if a 31st had not differed
    assert 10 < low < 14.5
    assert high >= 15
    assert math.isnan(paired_mean_test(np.zeros(30)).ci95[0])
    assert math.isnan(mean_test(np.array([1.0])).ci95[0])


def test_a_mean_of_many_is_the_normal_one() -> None:
    values = np.random.default_rng(3).normal(0.3, 1.0, 1000)
    reach = 1.96 * values.std() / math.sqrt(1000)
    assert mean_test(values).ci95 == pytest.approx((values.mean() - reach, values.mean() + reach), abs=0.004)


def test_long_tails_reach_further_on_their_side() -> None:
    """Hall's correction: the mean of skewed values may lie further up than Student's t says."""
    values = np.array([1.0] * 8 + [2.0, 12.0])
    low, high = mean_test(values).ci95
    reach = 2.2622 * values.std(ddof=1) / math.sqrt(10)
    assert high > values.mean() + 1.3 * reach
    assert low == pytest.approx(values.mean() - reach, abs=1e-3)


def test_student_t_from_the_textbook() -> None:
    assert student_t(2) == pytest.approx(4.3027, abs=1e-4)
    assert student_t(1e9) == pytest.approx(1.95996, abs=1e-4)


def test_no_rows_have_no_interval() -> None:
    assert all(math.isnan(bound) for bound in rate_interval(np.empty(0)))
    assert all(math.isnan(bound) for bound in wilson_interval(0, n=0))


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
