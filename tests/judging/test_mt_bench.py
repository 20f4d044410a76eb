"""MT-Bench marks: means by turn and category, repeated judgments dropped."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from trimtab.errors import DataError
from trimtab.judging.mt_bench import Mark, read_categories, read_marks, summarise_marks


def row(question: int, turn: int, score: float | None, **changes: Any) -> dict[str, Any]:
    return {
        "question_id": question, "turn": turn, "score": score, "model": "m", "judge": ["gpt-4", "single-v1"],
        "judgment": "Rating: [[7]]", "tstamp": 1.0,
    } | changes  # fmt: skip


def written(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "judgments.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return path


def test_means_by_hand(tmp_path: Path) -> None:
    marks = read_marks(written(tmp_path, row(81, 1, 8), row(81, 2, 6), row(101, 1, 3), row(101, 2, -1))).marks
    (told,) = summarise_marks(marks, categories={81: "writing", 101: "reasoning"})
    assert told.mean == pytest.approx(17 / 3)
    assert (told.n_total, told.n_missing) == (3, 1)
    assert told.by_turn == {1: 5.5, 2: 6}
    assert told.by_category == {"writing": 7, "reasoning": 3}
    # Question means 7 and 3: sd √8, over √2 is 2
    assert told.standard_error == pytest.approx(2)


def test_the_last_of_repeated_judgments_stays(tmp_path: Path) -> None:
    told = read_marks(
        written(
            tmp_path,
            row(81, 1, 2),
            row(81, 1, 9),
            row(81, 1, 5, judge=["other", "single-v1"]),
            row(81, 1, 4, model="n"),
        )
    )
    assert told.n_repeated == 1
    assert [(one.model, one.judge, one.mean) for one in summarise_marks(told.marks)] == [
        ("m", "gpt-4", 9),
        ("m", "other", 5),
        ("n", "gpt-4", 4),
    ]


def test_nothing_readable_is_no_number() -> None:
    (told,) = summarise_marks([Mark(81, 1, "m", "j", None)])
    assert math.isnan(told.mean)
    assert json.loads(json.dumps(told.to_json(), allow_nan=False))["mean"] is None


def test_a_question_of_no_category_is_refused() -> None:
    with pytest.raises(DataError, match="question 81 is in no category"):
        summarise_marks([Mark(81, 1, "m", "j", 8.0)], categories={82: "math"})


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"judge": "gpt-4"}, r"row 1: 'judge' is not \[model, prompt\]"),
        ({"score": "9"}, "row 1: 'score' is '9', not a number"),
        ({"question_id": "81"}, "row 1: 'question_id' is '81', not a whole number"),
        ({"model": None}, "row 1: 'model' is null, not text"),
    ],
)
def test_rows_of_another_form_are_refused(tmp_path: Path, change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        read_marks(written(tmp_path, row(81, 1, 8) | change))


@pytest.mark.needs_shared
def test_published_judgments(shared_data: Path) -> None:
    """800 judgments of four models, one of them judged twice: 160 marks a model are left, with the published means."""
    folder = shared_data / "eval" / "mt_bench"
    told = read_marks(folder / "sample_judgments" / "gpt-4_single.jsonl")
    summaries = {
        one.model: one for one in summarise_marks(told.marks, categories=read_categories(folder / "question.jsonl"))
    }
    assert (len(told.marks), told.n_repeated) == (640, 160)
    means = {name: round(one.mean, 4) for name, one in summaries.items()}
    assert means["mistral-orpo-capybara"] == 6.8187
    assert means["mistral-orpo-trl"] == 7.1656
    assert means["mistral-orpo-mix"] == 6.0031
    assert round(summaries["mistral-orpo"].mean, 3) == 6.328  # averaging both runs would give 5.859
    for one in summaries.values():
        assert one.n_total + one.n_missing == 160
        assert len(one.by_category) == 8
