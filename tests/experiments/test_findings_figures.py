"""Figures: what is taken from trimtab's own statistics, and the little that is worked here."""

from __future__ import annotations

import numpy as np
import pytest
from experiments.figures_of import detectable, from_estimate, holm, mean, over_seeds, rank_correlation

from trimtab.analysis import seeds


def test_holm_by_hand() -> None:
    # sorted .005 .01 .03 .04, times 4 3 2 1: .02 .03 .06 .04; the last is raised to the one before it
    assert holm([0.01, 0.04, None, 0.03, 0.005]) == pytest.approx([0.03, 0.06, None, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_several_seeds_are_pooled_as_the_reports_pool_them() -> None:
    values_KN = np.random.default_rng(0).normal(2.0, 1.0, size=(5, 40))
    told, pooled = mean(values_KN, unit="tokens"), seeds.pooled_mean(values_KN)
    assert (told.value, told.ci95, told.p_value) == (pooled.mean, pooled.ci95, pooled.p_value)
    assert (told.n, told.n_seeds, told.unit) == (40, 5, "tokens")


def test_one_seed_has_an_interval_over_prompts_and_no_power() -> None:
    told = mean(np.array([[1.0, 2.0, 3.0, 2.0, 1.0, 3.0]]), unit="points")
    assert told.value == 2.0
    assert told.ci95 is not None
    assert told.ci95[0] < 2.0 < told.ci95[1]
    assert (told.n_seeds, told.detectable) == (1, None)


def test_a_difference_of_the_detectable_size_is_seen_four_times_in_five() -> None:
    rng = np.random.default_rng(1)
    n_seeds, sd, trials = 5, 1.0, 2000
    shift = detectable(sd / n_seeds**0.5, freedom=n_seeds - 1)
    seen = 0
    for _ in range(trials):
        told = over_seeds(list(rng.normal(shift, sd, size=n_seeds)))
        assert told.ci95 is not None
        seen += told.ci95[0] > 0
    assert seen / trials == pytest.approx(0.8, abs=0.04)


def test_seeds_without_a_number_are_left_out() -> None:
    assert over_seeds([1.0, None, 3.0, float("nan")]).value == 2.0
    assert over_seeds([None]).value is None


def test_an_estimate_of_a_report_keeps_its_interval_in_the_new_unit() -> None:
    told = from_estimate({"value": 0.5, "ci95": [0.4, 0.6], "n": 9, "n_seeds": 3, "method": "m"}, unit="%", factor=100)
    assert (told.value, told.ci95, told.n, told.n_seeds) == (50.0, (40.0, 60.0), 9, 3)
    assert from_estimate(None, unit="%").value is None


def test_rank_correlation() -> None:
    assert rank_correlation([1, 2, 3], [10, 20, 30]) == pytest.approx(1.0)
    assert rank_correlation([1, 2, 3], [30, 20, 10]) == pytest.approx(-1.0)
