"""Marks of 0 to 10: means by hand, categories, and the paired difference of two models."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from trimtab.analysis.intervals import rate_interval
from trimtab.analysis.marks import (
    CATEGORIES,
    by_category,
    by_turn,
    categories_of,
    compare_marks,
    mean_mark,
    official_category,
    scores,
)
from trimtab.errors import DataError
from trimtab.judging.mt_bench import read_marks

ROWS = [(81, 1, 8.0), (81, 2, 6.0), (91, 1, 5.0), (91, 2, None), (82, 1, 9.0), (82, 2, 10.0)]


def test_means_by_hand() -> None:
    """(8 + 6 + 5 + 9 + 10) / 5 = 7.6; the questions' means are 7, 5 and 9.5."""
    mean = mean_mark(ROWS)
    assert mean.value == pytest.approx(7.6)
    assert (mean.n_questions, mean.n_marks, mean.n_missing) == (3, 5, 1)
    low, high = rate_interval(np.array([0.7, 0.5, 0.95]))
    assert mean.ci95 == pytest.approx((10 * low, 10 * high))


def test_turns_and_categories() -> None:
    turns = by_turn(ROWS)
    assert [turns[1].value, turns[2].value] == pytest.approx([22 / 3, 8])
    found = by_category(ROWS, categories_of({row[0] for row in ROWS}))
    assert list(found) == ["writing", "roleplay"]
    assert found["writing"]["all"].value == pytest.approx(33 / 4)
    assert found["writing"]["2"].value == pytest.approx(8)
    assert math.isnan(found["roleplay"]["2"].value)
    assert found["roleplay"]["2"].to_json()["value"] is None
    with pytest.raises(DataError, match="question 91 is in no category"):
        by_category(ROWS, {81: "writing", 82: "writing"})


def test_a_question_with_a_missing_turn_has_no_score() -> None:
    assert scores(ROWS) == {"81": 7.0, "91": None, "82": 9.5}
    assert scores(ROWS, turn=1) == {"81": 8.0, "91": 5.0, "82": 9.0}


def test_categories_of_another_benchmark_are_not_guessed() -> None:
    assert official_category(80) is None
    assert official_category(161) is None
    assert official_category("81") is None
    assert categories_of([81, 82, 200]) == {}


def test_the_difference_is_paired_by_question() -> None:
    a = [(81 + i, turn, 6.0 + i % 3) for i in range(40) for turn in (1, 2)]
    b = [(question, turn, mark - turn) for question, turn, mark in a]
    whole, turns, categories = compare_marks([a], [b], categories=categories_of({row[0] for row in a}))
    assert whole.delta == pytest.approx(1.5)
    assert whole.verdict == "A is better"
    assert (whole.n_common, whole.wins_a) == (40, 40)
    assert {turn: one.delta for turn, one in turns.items()} == pytest.approx({"1": 1, "2": 2})
    assert list(categories) == ["writing", "roleplay", "reasoning", "math"]
    assert all(one.n_common == 10 for one in categories.values())


def test_a_mark_that_one_side_lacks_is_counted() -> None:
    a = [(81 + i, 1, 6.0) for i in range(12)]
    b = [(81 + i, 1, None if i < 2 else 5.0) for i in range(11)]
    whole, _, _ = compare_marks([a], [b], categories={})
    assert (whole.n_common, whole.n_missing, whole.delta) == (9, 3, 1)
    assert "only 9 common" in whole.verdict


@pytest.mark.needs_shared
def test_the_categories_are_the_published_ones(shared_data: Path) -> None:
    lines = (shared_data / "eval/mt_bench/question.jsonl").read_text(encoding="utf-8").splitlines()
    published = {row["question_id"]: row["category"] for row in map(json.loads, lines)}
    assert categories_of(published) == published
    assert set(CATEGORIES) == set(published.values())


@pytest.mark.needs_shared
def test_published_judgments(shared_data: Path) -> None:
    """Means that FastChat's own summary gives for these judgments (last judgment of each question)."""
    found = read_marks(shared_data / "eval/mt_bench/sample_judgments/gpt-4_single.jsonl").marks
    means = {}
    for model in ("mistral-orpo-capybara", "mistral-orpo-trl", "mistral-orpo-mix"):
        rows = [(m.question_id, m.turn, m.score) for m in found if m.model == model]
        means[model] = mean_mark(rows).value
    assert means == pytest.approx(
        {"mistral-orpo-capybara": 6.8187, "mistral-orpo-trl": 7.1656, "mistral-orpo-mix": 6.0031}, abs=5e-5
    )
