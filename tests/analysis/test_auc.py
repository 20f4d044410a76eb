"""The area under the curve by hand, its interval by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from trimtab.analysis.auc import auc, auc_estimate, auc_interval


def test_by_hand() -> None:
    """Good 3, 1, 2 and bad 2, 0: 3 beats both, 1 beats 0, 2 ties with 2 and beats 0: (2 + 1 + 1.5) / 6."""
    values, good = np.array([3.0, 2.0, 1.0, 0.0, 2.0]), np.array([True, False, True, False, True])
    assert auc(values, good) == pytest.approx(4.5 / 6)
    assert auc(values + 100.0, good) == pytest.approx(4.5 / 6)  # sinking together changes nothing
    assert auc(-values, good) == pytest.approx(1.5 / 6)
    assert math.isnan(auc(values, np.ones(5, dtype=bool)))


def test_interval_by_hand() -> None:
    """One good above one bad: the least area θ with 1 − θ ≤ 1.96·√(θ(1 − θ)), N* = 0: θ = 1/(1 + 1.96²) = 0.206549."""
    low, high = auc_interval(1.0, n_good=1, n_bad=1)
    assert (low, high) == pytest.approx((0.206549, 1.0), abs=1e-6)
    assert auc_interval(0.0, n_good=1, n_bad=1) == pytest.approx((0.0, 0.793451), abs=1e-6)
    low, high = auc_interval(0.5, n_good=7, n_bad=20)
    assert 0.5 - low == pytest.approx(high - 0.5)
    assert all(map(math.isnan, auc_interval(math.nan, n_good=0, n_bad=3)))


@pytest.mark.parametrize(("shift", "n_good", "n_bad"), [(0.0, 20, 20), (1.0, 12, 30), (2.5, 15, 15)])
def test_coverage(shift: float, n_good: int, n_bad: int) -> None:
    """Normal rewards a shift apart: the true area is Φ(shift/√2). 600 trials: a standard error of .9 points at 95."""
    truth = 0.5 * (1 + math.erf(shift / 2))
    rng, hits = np.random.default_rng(0), 0
    good = np.arange(n_good + n_bad) < n_good
    for _ in range(600):
        values = rng.standard_normal(n_good + n_bad) + shift * good
        low, high = auc_interval(auc(values, good), n_good=n_good, n_bad=n_bad)
        hits += low <= truth <= high
    assert hits / 600 > 0.925


def test_several_seeds_are_averaged_and_add_no_rows() -> None:
    good = np.array([True, True, False, False])
    single = auc_estimate(np.array([[2.0, 1.0, 1.5, 0.0]]), good)
    both = auc_estimate(np.array([[2.0, 1.0, 1.5, 0.0], [2.0, 1.6, 1.5, 0.0]]), good)
    assert (single.value, both.value) == (0.75, 0.875)
    assert both.seed_deviation == pytest.approx(0.125 * math.sqrt(2))
    assert both.n == 4
    assert both.ci95 == auc_interval(0.875, n_good=2, n_bad=2)
