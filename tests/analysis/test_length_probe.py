"""Bins with readable edges, times to saturation, and the order they are read as: worked by hand, and by property."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.analysis.length_probe import (
    Bins,
    count_differing,
    median_time,
    order_of,
    quantile_bins,
    times_to_saturation,
)
from trimtab.records import Estimate


def test_a_response_has_left_from_the_first_visit_after_which_it_pulls_no_more() -> None:
    active = np.array(
        [
            [True, True, True],  # to the end: censored at 3
            [True, False, True],  # came back: it had not left
            [True, False, False],
            [False, True, False],
            [False, False, False],
        ]
    )
    times_PS = times_to_saturation(np.stack([active, ~active], axis=-1))
    assert times_PS[:, 1].tolist() == [0, 2, 3, 3, 3]  # the other side was active where this one was not
    times = times_PS[:, 0]
    assert times.tolist() == [3, 3, 1, 2, 0]
    assert median_time(times, n_visits=3) == 2
    assert median_time(np.array([3.0, 3.0, 1.0]), n_visits=3) is None
    assert median_time(np.array([]), n_visits=3) is None
    assert count_differing(times) == 3
    assert count_differing(np.full(4, 3.0)) == 0
    assert count_differing(np.array([])) == 0


def test_bins_are_cut_at_whole_numbers_and_say_what_is_in_them() -> None:
    bins = Bins((-5, 0, 1, 12))
    assert bins.labels == ["up to −6", "−5 to −1", "0", "1 to 11", "12 and more"]
    assert bins.of(np.array([-6, -5, -1, 0, 1, 11, 12, 99])).tolist() == [0, 1, 1, 2, 3, 3, 4, 4]
    assert Bins(()).labels == ["all"]


def test_cuts_of_a_wide_range_are_round() -> None:
    values = np.random.default_rng(0).normal(40, 400, 5000).round()
    assert all(cut % 50 == 0 for cut in quantile_bins(values).cuts)
    counts = np.bincount(quantile_bins(values).of(values))
    assert len(counts) == 6
    assert counts.min() > 500


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-300, 300), max_size=200), st.integers(1, 8), st.integers(1, 30))
def test_every_value_is_in_its_bin_and_no_bin_is_all_but_empty(values: list[int], n_bins: int, min_count: int) -> None:
    bins = quantile_bins(np.array(values, dtype=float), n_bins=n_bins, min_count=min_count)
    which = bins.of(np.array(values, dtype=float))
    assert list(bins.cuts) == sorted(set(bins.cuts))
    for value, at in zip(values, which, strict=True):
        low, high = bins.bounds[at]
        assert low is None or low <= value
        assert high is None or value <= high
    assert not bins.cuts or np.bincount(which, minlength=len(bins.labels)).min() >= min_count


@pytest.mark.parametrize(
    ("interval", "n_differing", "order"),
    [
        ((-0.3, -0.1), 50, "first"),
        ((0.1, 0.3), 50, "last"),
        ((-0.1, 0.1), 50, "not distinguishable"),
        ((-0.3, -0.1), 9, "too few differ"),
        (None, 50, "too few differ"),
    ],
)
def test_the_order_is_read_from_the_whole_interval(
    interval: tuple[float, float] | None, n_differing: int, order: str
) -> None:
    correlation = Estimate(value=0.0, ci95=interval, n=60, method="by hand")
    assert order_of(correlation, n_differing=n_differing) == order
    assert order_of(None, n_differing=n_differing) == "too few differ"
