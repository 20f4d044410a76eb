"""Pairs of ranked responses, worked by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.data.pair_rules import Rule, RulePairs, pairs_by_rule

SCORES = [2.0, 5.0, 2.0, 1.0]  # best at place 1, worst at 3, a tie between 0 and 2


@pytest.mark.parametrize(
    ("rule", "places", "n_ties"),
    [
        ("best_worst", ((1, 3),), 0),
        ("all", ((1, 0), (1, 2), (1, 3), (0, 3), (2, 3)), 1),
        ("adjacent", ((1, 0), (2, 3)), 1),
    ],
)
def test_each_rule_makes_its_pairs_and_counts_the_tie(
    rule: Rule, places: tuple[tuple[int, int], ...], n_ties: int
) -> None:
    assert pairs_by_rule(SCORES, rule=rule) == RulePairs(places, n_ties)


@pytest.mark.parametrize("rule", ["best_worst", "all", "adjacent"])
def test_equal_scores_are_ties_and_never_a_pair(rule: Rule) -> None:
    n = {"best_worst": 1, "all": 3, "adjacent": 2}[rule]
    assert pairs_by_rule([0.5, 0.5, 0.5], rule=rule) == RulePairs((), n)
    assert pairs_by_rule([0.5], rule=rule) == RulePairs((), 0)


def test_a_gap_may_be_asked_for() -> None:
    assert pairs_by_rule(SCORES, rule="all", least_gap=3.0) == RulePairs(((1, 0), (1, 2), (1, 3)), 3)


def test_the_widest_gap_among_those_allowed_is_taken() -> None:
    lengths = [10, 30, 100, 90]

    def alike(a: int, b: int) -> bool:
        return max(lengths[a], lengths[b]) <= 1.25 * min(lengths[a], lengths[b])

    assert pairs_by_rule(SCORES, rule="best_worst", is_allowed=alike) == RulePairs(((2, 3),), 0)
    assert pairs_by_rule(SCORES, rule="all", is_allowed=alike) == RulePairs(((2, 3),), 0, n_unmatched=5)
    assert pairs_by_rule(SCORES[:2], rule="best_worst", is_allowed=alike) == RulePairs((), 0, n_unmatched=1)


@given(st.lists(st.integers(0, 4).map(float), min_size=2, max_size=7))
def test_all_pairs_and_ties_are_every_two(scores: list[float]) -> None:
    made = pairs_by_rule(scores, rule="all")
    assert len(made.places) + made.n_ties == math.comb(len(scores), 2)
    assert all(scores[better] > scores[worse] for better, worse in made.places)
