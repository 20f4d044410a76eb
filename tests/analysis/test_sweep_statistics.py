"""Steps to 90 %, figures over seeds, and the highest of several."""

from __future__ import annotations

import math

import pytest

from trimtab.analysis.sweep import highest, over_seeds, steps_to_share


def test_steps_to_90_percent_by_hand() -> None:
    """Ten steps, so a window of one: the end is .8, 90 % of it .72; step 4 (.7) is below, step 5 (.75) above."""
    values = [0.5, 0.5, 0.6, 0.7, 0.75, 0.7, 0.8, 0.9, 0.8, 0.8]
    assert steps_to_share(values) == 5
    assert steps_to_share(values, share=1.0) == 7


def test_one_lucky_batch_of_a_long_run_is_not_an_arrival() -> None:
    """Twenty steps, a window of two: the means end at 1. A single 1 at step 4 makes means of .5 there, which is below
    .9; from step 11 on every value is 1, and the first mean of 1 is that of steps 11 and 12."""
    values = [0.0] * 3 + [1.0] + [0.0] * 6 + [1.0] * 10
    assert steps_to_share(values) == 12


def test_a_constant_is_there_at_once_and_nothing_is_never_there() -> None:
    assert steps_to_share([0.3] * 40) == 4  # the first whole window
    assert steps_to_share([0.7]) == 1
    assert steps_to_share([]) is None
    assert steps_to_share([0.5, 0.0]) is None


def test_over_seeds_is_students_interval() -> None:
    """Mean of 1, 2, 3 is 2; s = 1, so the reach is t(2) · 1/√3 = 4.302653 · .577350 = 2.484138."""
    pooled = over_seeds([1.0, 2.0, 3.0])
    assert (pooled.mean, pooled.n_seeds) == (2.0, 3)
    assert pooled.ci95 == pytest.approx((2 - 2.484138, 2 + 2.484138), abs=1e-5)
    single = over_seeds([4.0])
    assert single.mean == 4.0
    assert math.isnan(single.ci95[0])
    assert math.isnan(over_seeds([]).mean)


def test_the_highest_and_what_it_cannot_be_told_from() -> None:
    found = highest([50.0, 60.0, None, 58.0, 40.0], intervals=[(48, 52), (55, 65), None, (53, 63), None])
    assert found is not None
    assert (found.place, found.n_overlapping, found.n_others) == (1, 2, 3)  # 58's interval, and 40's missing one
    assert highest([None], intervals=[None]) is None
    apart = highest([10.0, 90.0], intervals=[(9, 11), (89, 91)])
    assert apart is not None
    assert (apart.place, apart.n_overlapping, apart.n_others) == (1, 0, 1)
