"""What a report says of a reward model, from eight or more held-out pairs written by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trimtab.reporting.metrics import Metrics
from trimtab.reporting.numbers.reward import reward_numbers
from trimtab.reporting.numbers.training import heldout_numbers
from trimtab.reporting.read import Heldout, PairFacts, Run
from trimtab.reporting.words.reward import reward


def run(rows: list[tuple[float, int, int, float | None]]) -> Run:
    """Rows: reward gap, characters of the chosen and of the rejected response, true quality gap."""
    empty: dict[str, Any] = dict.fromkeys(("benchmark", "plan", "versions", "audit", "screening", "selection"))
    return Run(
        root=Path("run"),
        seed=0,
        metrics=Metrics(()),
        heldout=Heldout(None, {f"p{i}": row[0] for i, row in enumerate(rows)}),
        edited=(),
        pair_facts={f"p{i}": PairFacts(*row[1:]) for i, row in enumerate(rows)},
        **empty,
    )


ROWS: list[tuple[float, int, int, float | None]] = [
    (1.0, 30, 10, 0.5),  # the longer one chosen, and rewarded
    (2.0, 30, 10, 0.5),
    (-1.0, 10, 30, 0.5),  # the shorter one chosen, the longer one rewarded
    (-2.0, 10, 30, -0.5),  # … and here the label is wrong
    (1.0, 10, 30, 0.5),  # the shorter one chosen, and rewarded
    (0.0, 30, 10, 0.0),  # a tie
    (1.0, 20, 20, 0.5),  # of one length
]


def test_length_and_truth_by_hand() -> None:
    numbers = reward_numbers([run(ROWS)])
    assert numbers is not None
    assert numbers.length is not None
    assert numbers.truth is not None
    length = numbers.length
    assert length.by_labels.value == pytest.approx(3 / 6)
    assert length.by_reward.value == pytest.approx((1 + 1 + 1 + 1 + 0 + 0.5) / 6)
    assert length.lean.value == pytest.approx(4.5 / 6 - 3 / 6)
    assert length.accuracy_longer.value == pytest.approx(2.5 / 3)
    assert length.accuracy_shorter.value == pytest.approx(1 / 3)
    assert (length.by_reward.n, length.accuracy_longer.n, length.accuracy_shorter.n) == (6, 3, 3)
    assert numbers.truth.by_reward.value == pytest.approx((1 + 1 + 0 + 1 + 1 + 1) / 6)
    assert numbers.truth.by_labels.value == pytest.approx(5 / 6)


def test_several_seeds_are_pooled_over_the_same_pairs() -> None:
    other = run([(-row[0], *row[1:]) for row in ROWS])
    numbers = reward_numbers([run(ROWS), replace(other, seed=1)])
    assert numbers is not None
    assert numbers.length is not None
    assert numbers.length.by_reward.value == pytest.approx(0.5)
    assert numbers.length.by_reward.n_seeds == 2
    assert numbers.temperature.ci95 is None


def test_pairs_of_one_length_and_unknown_truth_say_nothing() -> None:
    numbers = reward_numbers([run([(1.0, 5, 5, None), (-0.5, 5, 5, None)])])
    assert numbers is not None
    assert numbers.length is None
    assert numbers.truth is None
    assert reward_numbers([replace(run(ROWS), heldout=None)]) is None


def sentences(rows: list[tuple[float, int, int, float | None]]) -> str:
    runs = [run(rows)]
    return " ".join(one.text.replace("\u00a0", " ") for one in reward(heldout_numbers(runs), reward_numbers(runs)))


def test_what_it_says() -> None:
    good = [(1.0, 30, 10, 0.5)] * 40 + [(1.0, 10, 30, 0.5)] * 40 + [(-1.0, 30, 10, 0.5)] * 10
    text = sentences(good)
    assert "it ranks **88.9 %** as their labels do" in text
    assert "chance)." in text
    assert "likes length less" in text
    long = [(1.0, 30, 10, None)] * 40 + [(-1.0, 10, 30, None)] * 30
    assert "likes length** more than the labels do" in sentences(long)
    assert "oracle" not in sentences(long)
    even = [(1.0, 30, 10, None)] * 10 + [(-1.0, 30, 10, None)] * 10
    assert "not distinguishable from chance" in sentences(even)
    assert "too few" in sentences([(1.0, 30, 10, None)] * 4)
    assert "worse than chance" in sentences([(-1.0, 30, 10, None)] * 30 + [(1.0, 30, 10, None)])
    assert "No temperature" in sentences([(-1.0, 30, 10, None)] * 30 + [(0.5, 30, 10, None)])
    assert "was not measured" in reward(None, None)[0].text
