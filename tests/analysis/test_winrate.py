"""Raw win rates: AlpacaEval's rule by hand."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.analysis.winrate import by_family, scores_from, win_rate

PREFERENCES = st.lists(st.floats(1, 2) | st.sampled_from([0.0, 1.0, 1.5, 2.0]), min_size=2, max_size=40)


def test_four_rows_by_hand() -> None:
    # Scores 1, 0, .5 (legacy 0), .75: mean .5625. Deviations .4375, −.5625, −.0625, .1875: squares sum
    # .19140625 + .31640625 + .00390625 + .03515625 = .546875; /3 = .182291667, root .426956, /2 = .213478.
    rate = win_rate([2, 1, 0, 1.75])
    assert rate.win_rate == 56.25
    assert rate.standard_error == pytest.approx(21.3478, abs=1e-4)
    assert (rate.n_total, rate.n_missing) == (4, 0)
    assert (rate.n_wins, rate.n_losses, rate.n_ties) == (2, 1, 1)


@pytest.mark.parametrize("missing", [None, math.nan, -1.0, 0.5, 2.0001, math.inf])
def test_what_is_no_preference_is_counted_and_not_scored(missing: float | None) -> None:
    rate = win_rate([2, missing, 2, 1, missing])
    assert rate.win_rate == pytest.approx(200 / 3)
    assert (rate.n_total, rate.n_missing) == (3, 2)


def test_two_rows_have_a_standard_error_and_one_has_none() -> None:
    assert win_rate([1, 2]).standard_error == pytest.approx(100 * math.sqrt(0.5) / math.sqrt(2))  # sd .7071 over √2
    assert math.isnan(win_rate([2]).standard_error)


def test_nothing_judged_is_no_number_and_valid_json() -> None:
    rate = win_rate([None, None])
    assert math.isnan(rate.win_rate)
    assert json.loads(json.dumps(rate.to_json(), allow_nan=False))["win_rate"] is None


def test_families_in_order_of_appearance() -> None:
    rates = by_family([2, 1, 2, None, 1.5], ["math", "prose", "math", "prose", "code"])
    assert list(rates) == ["math", "prose", "code"]
    assert [rates[name].win_rate for name in rates] == [100, 0, 50]
    assert rates["prose"].n_missing == 1


def test_families_must_match_rows() -> None:
    with pytest.raises(ValueError, match="shorter"):
        by_family([2, 1], ["math"])


@given(PREFERENCES)
@settings(max_examples=50, deadline=None)
def test_swapping_the_sides_mirrors_the_rate(preferences: list[float]) -> None:
    there = win_rate(preferences)
    back = win_rate([p if p == 0 else 3 - p for p in preferences])
    assert there.win_rate + back.win_rate == pytest.approx(100)
    assert there.standard_error == pytest.approx(back.standard_error, abs=1e-9)
    assert (there.n_wins, there.n_losses, there.n_ties) == (back.n_losses, back.n_wins, back.n_ties)


@given(PREFERENCES)
@settings(max_examples=50, deadline=None)
def test_the_interval_holds_the_rate_and_stays_in_bounds(preferences: list[float]) -> None:
    rate = win_rate(preferences)
    low, high = rate.ci95
    assert -1e-9 <= low <= rate.win_rate + 1e-9
    assert rate.win_rate - 1e-9 <= high <= 100 + 1e-9


@given(st.lists(st.floats(allow_nan=True) | st.none(), max_size=40))
@settings(max_examples=50, deadline=None)
def test_every_row_is_accounted_for(preferences: list[float | None]) -> None:
    rate = win_rate(preferences)
    assert rate.n_total + rate.n_missing == len(preferences)
    assert rate.n_wins + rate.n_losses + rate.n_ties == rate.n_total
    assert len(scores_from(preferences)) == len(preferences)
