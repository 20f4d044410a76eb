"""The difference of two length-controlled win rates."""

from __future__ import annotations

import json

import numpy as np
import pytest

from trimtab.analysis.length_control import length_controlled
from trimtab.analysis.length_control_paired import Side, length_controlled_difference
from trimtab.errors import DataError


def side(n: int, *, strength: float, seed: int, longer: float = 1.0) -> Side:
    rng = np.random.default_rng(seed)
    lengths_1 = np.random.default_rng(1).integers(100, 900, n)  # the baseline's answers are the same for everyone
    lengths_2 = (longer * rng.integers(100, 900, n)).astype(int)
    gap = (lengths_1 - lengths_2).astype(float)
    p = 1 / (1 + np.exp(np.tanh(gap / gap.std(ddof=1)) - strength))
    preferences = 1 + (rng.random(n) < p)
    return Side(preferences.astype(float).tolist(), lengths_1.tolist(), lengths_2.tolist())


def test_it_is_the_difference_of_the_two_published_fits() -> None:
    a, b = side(300, strength=1.0, seed=2), side(300, strength=-0.5, seed=3)
    told = length_controlled_difference(a, b)
    alone = [length_controlled(one.preferences, lengths_1=one.lengths_1, lengths_2=one.lengths_2) for one in (a, b)]
    rates = [one.length_controlled_winrate for one in alone]
    assert (told.rate_a, told.rate_b) == pytest.approx(rates)
    assert told.delta == pytest.approx(rates[0] - rates[1])
    assert told.ci95[0] > 0
    assert told.ci95[0] < told.delta < told.ci95[1]
    json.dumps(told.to_json(), allow_nan=False)


def test_length_alone_is_no_difference() -> None:
    """Both are as strong; one writes half as much again, which a judge with this liking for length pays for."""
    a, b = side(800, strength=0.0, seed=8, longer=1.5), side(800, strength=0.0, seed=9)
    raw = 100 * (np.mean(a.preferences) - np.mean(b.preferences))
    told = length_controlled_difference(a, b)
    assert raw > 8
    assert told.ci95[0] < 0 < told.ci95[1]


def test_the_same_verdicts_twice_differ_by_nothing() -> None:
    one = side(100, strength=0.5, seed=4)
    told = length_controlled_difference(one, one)
    assert told.delta == 0
    low, high = told.ci95
    assert -6 < low < 0 < high < 6  # a prompt on which they would have differed may not have been asked


def test_unanimous_sides_leave_doubt() -> None:
    """40 wins of 40 against none: MOVER of Wilson's 91.24 to 100 and 0 to 8.76: 100 − √2·8.76 (was 98.5 to 98.5)."""
    lengths = list(range(100, 140))
    won, lost = (Side([preference] * 40, lengths, lengths[::-1]) for preference in (2.0, 1.0))
    told = length_controlled_difference(won, lost)
    assert told.ci95[0] == pytest.approx(100 - 2**0.5 * 8.76, abs=0.2)
    assert told.ci95[1] == pytest.approx(100, abs=0.1)


def test_too_few_rows_give_no_number() -> None:
    told = length_controlled_difference(side(8, strength=1, seed=2), side(8, strength=0, seed=3))
    assert told.to_json()["delta"] is None
    assert "too few" in told.notes[0]


def test_sides_of_different_length_are_refused() -> None:
    with pytest.raises(DataError, match="20 and 21 verdicts cannot be paired"):
        length_controlled_difference(side(20, strength=0, seed=2), side(21, strength=0, seed=3))
