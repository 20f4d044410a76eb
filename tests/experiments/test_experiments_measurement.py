"""Measurements: what is taken from trimtab's own statistics, and the little that is worked here."""

from __future__ import annotations

import numpy as np
import pytest
from experiments.measurement import Measurement, detectable, holm, mean, over_seeds, rank_correlation

from trimtab.analysis import seeds


def test_holm_by_hand() -> None:
    # sorted .005 .01 .03 .04, times 4 3 2 1: .02 .03 .06 .04; the last is raised to the one before it
    assert holm([0.01, 0.04, None, 0.03, 0.005]) == pytest.approx([0.03, 0.06, None, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_several_seeds_are_pooled_as_the_reports_pool_them() -> None:
    values_KN = np.random.default_rng(0).normal(2.0, 1.0, size=(5, 40))
    measurement, pool = mean(values_KN, unit="tokens"), seeds.pooled_mean(values_KN)
    assert (measurement.value, measurement.ci95, measurement.p_value) == (pool.mean, pool.ci95, pool.p_value)
    estimate = measurement.estimate
    assert (estimate.n, estimate.n_seeds, estimate.unit) == (40, 5, "tokens")


def test_one_seed_has_an_interval_over_prompts_and_no_power() -> None:
    measurement = mean(np.array([[1.0, 2.0, 3.0, 2.0, 1.0, 3.0]]), unit="points")
    assert measurement.value == 2.0
    assert measurement.ci95 is not None
    assert measurement.ci95[0] < 2.0 < measurement.ci95[1]
    assert (measurement.estimate.n_seeds, measurement.detectable) == (1, None)


def test_a_difference_of_the_detectable_size_shows_four_times_in_five() -> None:
    rng = np.random.default_rng(1)
    n_seeds, sd, trials = 5, 1.0, 2000
    shift = detectable(sd / n_seeds**0.5, freedom=n_seeds - 1)
    n_above_zero = 0
    for _ in range(trials):
        measurement = over_seeds(list(rng.normal(shift, sd, size=n_seeds)))
        assert measurement.ci95 is not None
        n_above_zero += measurement.ci95[0] > 0
    assert n_above_zero / trials == pytest.approx(0.8, abs=0.04)


def test_seeds_without_a_number_are_left_out() -> None:
    assert over_seeds([1.0, None, 3.0, float("nan")]).value == 2.0
    assert over_seeds([None]).value is None


def test_an_estimate_of_a_report_keeps_its_interval_in_the_new_unit() -> None:
    measurement = Measurement.from_json(
        {"value": 0.5, "ci95": [0.4, 0.6], "n": 9, "n_seeds": 3, "method": "m"}, unit="%", factor=100
    )
    assert (measurement.value, measurement.ci95, measurement.estimate.n, measurement.estimate.n_seeds) == (
        50.0,
        (40.0, 60.0),
        9,
        3,
    )
    assert Measurement.from_json(None, unit="%").value is None


def test_rank_correlation() -> None:
    assert rank_correlation([1, 2, 3], [10, 20, 30]) == pytest.approx(1.0)
    assert rank_correlation([1, 2, 3], [30, 20, 10]) == pytest.approx(-1.0)
