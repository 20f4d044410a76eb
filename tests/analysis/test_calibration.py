"""Calibration of the reward gap, by hand and on samples whose calibration is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.analysis.calibration import (
    calibration,
    chance_error,
    expected_calibration_error,
    reliability_bins,
    temperature,
)
from trimtab.errors import DataError


def test_bins_by_hand() -> None:
    bins = reliability_bins(np.array([0.1, 0.2, 0.5, 0.9, 1.0]), np.array([0.0, 1, 1, 1, 0]), n_bins=2)
    assert [(b.low, b.high, b.count) for b in bins] == [(0.0, 0.5, 2), (0.5, 1.0, 3)]  # .5 belongs to the upper bin
    assert bins[0].confidence == pytest.approx(0.15)
    assert bins[0].accuracy == pytest.approx(0.5)
    assert bins[1].confidence == pytest.approx(0.8)
    assert bins[1].accuracy == pytest.approx(2 / 3)
    # (2·.35 + 3·.1333)/5
    assert expected_calibration_error(bins) == pytest.approx((0.7 + 0.4) / 5)


def test_gaps_by_hand() -> None:
    # σ(ln 3) = .75. Gaps ln 3, ln 3, ln 3, −ln 3: confidence .75 everywhere, three of four right: perfectly calibrated.
    gap = math.log(3)
    told = calibration([gap, gap, gap, -gap])
    assert told.accuracy == 0.75
    assert told.ece == pytest.approx(0.0, abs=1e-12)
    # Brier: three times (1 − .75)² and once (1 − .25)²: (3/16 + 9/16)/4
    assert told.brier == pytest.approx(0.1875)


def test_no_opinion_is_half_right() -> None:
    told = calibration([0.0] * 8)
    assert (told.accuracy, told.ece, told.brier) == (0.5, 0.0, 0.25)


def test_sampled_from_its_own_probabilities_it_is_calibrated_and_tripled_it_is_not() -> None:
    rng = np.random.default_rng(0)
    size = rng.normal(0, 1.5, 20_000)
    gaps = np.where(rng.random(20_000) < 1 / (1 + np.exp(-np.abs(size))), np.abs(size), -np.abs(size))
    assert calibration(gaps).ece < 0.012
    assert calibration(3 * gaps).ece > 0.1


def test_far_gaps_do_not_overflow() -> None:
    told = calibration([1e4, -1e4])
    assert (told.accuracy, told.brier) == (0.5, 0.5)


def test_nothing_to_calibrate() -> None:
    told = calibration([])
    assert told.n == 0
    assert told.to_json()["ece"] is None


def test_what_is_no_probability_is_refused() -> None:
    with pytest.raises(DataError, match="outside"):
        reliability_bins(np.array([1.2]), np.array([1.0]))
    with pytest.raises(DataError, match="2 predictions for 1 outcomes"):
        reliability_bins(np.array([0.2, 0.3]), np.array([1.0]))
    with pytest.raises(DataError, match="not finite"):
        calibration([0.3, math.nan])


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=50), st.integers(1, 15))
@settings(max_examples=50, deadline=None)
def test_bounds(gaps: list[float], n_bins: int) -> None:
    told = calibration(gaps, n_bins=n_bins)
    assert sum(b.count for b in told.bins) == len(gaps)
    assert 0 <= told.ece <= 1
    assert 0 <= told.brier <= 1
    assert all(b.low - 1e-12 <= b.confidence <= b.high + 1e-12 for b in told.bins)


def test_chance_by_hand() -> None:
    # One pair at confidence 3/4: the error is 1/4 when the sign is right (3 of 4 draws) and 3/4 when it is not.
    told = chance_error([math.log(3)], n_draws=20_000)
    assert told.mean == pytest.approx(0.75 * 0.25 + 0.25 * 0.75, abs=0.01)
    assert told.below95 == pytest.approx(0.75)
    assert chance_error([0.0, 0.0]).mean == 0.0  # no opinion is half right, always
    assert math.isnan(chance_error([]).mean)


def test_chance_covers_what_is_calibrated_and_not_what_is_not() -> None:
    rng = np.random.default_rng(1)
    within = {1: 0, 4: 0}
    for _ in range(60):
        size = np.abs(rng.normal(0, 1.5, 80))
        gaps = np.where(rng.random(80) < 1 / (1 + np.exp(-size)), size, -size)
        for stretched in within:
            scaled = stretched * gaps
            within[stretched] += calibration(scaled).ece < chance_error(scaled, n_draws=200).below95
    assert within[1] >= 52  # 95 of 100 in the long run
    assert within[4] <= 3


def test_the_temperature_by_hand() -> None:
    """Three gaps of 1 and one of −1: the slope 3σ(−b) − σ(b) is zero where e^b = 3, so T = 1 / ln 3 = .910."""
    heat = temperature([1.0, 1.0, 1.0, -1.0])
    assert heat.value == pytest.approx(1 / math.log(3), rel=1e-9)
    assert heat.ci95 is None  # four pairs do not reject b = 0, where T has no end
    many = temperature([1.0] * 300 + [-1.0] * 100)
    assert many.value == pytest.approx(1 / math.log(3), rel=1e-9)
    assert many.ci95 is not None
    for end in many.ci95:  # 2·400·(¾·ln(¾/σ(b)) + ¼·ln(¼/σ(−b))) = 1.959964²
        chosen = 1 / (1 + math.exp(-1 / end))
        ratio = 2 * 400 * (0.75 * math.log(0.75 / chosen) + 0.25 * math.log(0.25 / (1 - chosen)))
        assert ratio == pytest.approx(1.959964**2, rel=1e-5)
    assert temperature([2 * gap for gap in [1.0] * 300 + [-1.0] * 100]).value == pytest.approx(2 / math.log(3))


@pytest.mark.parametrize("gaps", [[1.0, 2.0], [-1.0, -2.0, 0.5], [0.0, 0.0], []])
def test_no_temperature_mends_a_reward_that_never_errs_or_ranks_backwards(gaps: list[float]) -> None:
    assert temperature(gaps).value is None


def test_the_temperature_finds_the_factor_that_the_gaps_were_stretched_by() -> None:
    rng = np.random.default_rng(3)
    inside = 0
    for _ in range(200):
        truth = rng.normal(0.8, 1.0, 400)
        signed = np.abs(truth) * np.where(rng.random(400) < 1 / (1 + np.exp(-np.abs(truth))), 1.0, -1.0)
        heat = temperature(3.0 * signed)
        assert heat.ci95 is not None
        inside += heat.ci95[0] <= 3.0 <= heat.ci95[1]
    assert inside >= 183  # 95 % of 200, less 2.3 standard deviations
