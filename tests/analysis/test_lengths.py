"""Win rates by length gap, by hand."""

from __future__ import annotations

import pytest

from trimtab.analysis.lengths import win_rate_by_length_gap
from trimtab.errors import DataError


def test_win_rate_by_length_gap() -> None:
    # Gaps −4, −2, 0, 2, 4, 6 in three bins of two.
    rates = win_rate_by_length_gap(
        [1, 1, 1, 2, 2, None], lengths_1=[10] * 6, lengths_2=[6, 8, 10, 12, 14, 16], n_bins=3
    )
    assert list(rates) == [(-4, -2), (0, 2), (4, 6)]
    assert [rate.win_rate for rate in rates.values()] == [0, 50, 100]
    assert [rate.n_missing for rate in rates.values()] == [0, 0, 1]


def test_equal_gaps_share_one_bin() -> None:
    rates = win_rate_by_length_gap([2, 1, 2, 1], lengths_1=[5] * 4, lengths_2=[5] * 4)
    assert [(key, rate.n_total) for key, rate in rates.items()] == [((0, 0), 4)]


def test_no_rows_have_no_bins() -> None:
    assert win_rate_by_length_gap([], lengths_1=[], lengths_2=[]) == {}
    with pytest.raises(DataError, match="2 preferences for 1 pairs"):
        win_rate_by_length_gap([1, 2], lengths_1=[1], lengths_2=[1])
