"""MT-Bench judgments (FastChat's `single` JSONL): marks from 1 to 10, two turns a question, judged apart."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from trimtab.errors import DataError
from trimtab.judging.files import read_objects
from trimtab.judging.rows import Place, Row, text_field


@dataclass(frozen=True, slots=True)
class Mark:
    """One judged answer. `score` is None where no mark could be read (FastChat writes −1)."""

    question_id: int
    turn: int
    model: str
    judge: str
    score: float | None


@dataclass(frozen=True, slots=True)
class Marks:
    """`marks` after repeated judgments were dropped; `n_repeated` says how many were."""

    marks: tuple[Mark, ...]
    n_repeated: int


@dataclass(frozen=True, slots=True)
class MarkSummary:
    """Means of one model by one judge, every row of equal weight as in FastChat; NaN where there are no marks.

    `standard_error` is over questions (the two turns of a question are one unit: they hang together), NaN below two.
    """

    model: str
    judge: str
    mean: float
    standard_error: float
    n_total: int
    n_missing: int
    by_turn: Mapping[int, float]
    by_category: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "judge": self.judge,
            "mean": _finite(self.mean),
            "standard_error": _finite(self.standard_error),
            "n_total": self.n_total,
            "n_missing": self.n_missing,
            "by_turn": {str(turn): _finite(mean) for turn, mean in self.by_turn.items()},
            "by_category": {category: _finite(mean) for category, mean in self.by_category.items()},
        }


def read_marks(path: Path) -> Marks:
    """A judgment file. A judge that was run twice appended its rows: the last of (model, question, turn, judge) stays.

    Raises DataError naming the row for a file of another form.
    """
    last_marks: dict[tuple[str, int, int, str], Mark] = {}
    rows = read_objects(path)
    for place, row in rows:
        mark = _mark(row, place=place)
        last_marks[(mark.model, mark.question_id, mark.turn, mark.judge)] = mark
    return Marks(tuple(last_marks.values()), n_repeated=len(rows) - len(last_marks))


def summarise_marks(marks: Iterable[Mark], *, categories: Mapping[int, str] | None = None) -> list[MarkSummary]:
    """One summary a model and judge, in order of appearance. `categories` maps question ids to their categories.

    Raises DataError for a question that is in no category, when categories are given.
    """
    groups: dict[tuple[str, str], list[Mark]] = defaultdict(list)
    for mark in marks:
        groups[(mark.model, mark.judge)].append(mark)
    return [_summary(model, judge, group, categories or {}) for (model, judge), group in groups.items()]


def read_categories(path: Path) -> dict[int, str]:
    """Question id → category from MT-Bench's `question.jsonl`."""
    return {
        _whole(row, "question_id", place=place): text_field(row, "category", place=place)
        for place, row in read_objects(path)
    }


def _summary(model: str, judge: str, marks: Sequence[Mark], categories: Mapping[int, str]) -> MarkSummary:
    pairs = [(mark, mark.score) for mark in marks if mark.score is not None]
    by_turn: dict[int, list[float]] = defaultdict(list)
    by_category: dict[str, list[float]] = defaultdict(list)
    by_question: dict[int, list[float]] = defaultdict(list)
    for mark, score in pairs:
        by_turn[mark.turn].append(score)
        by_question[mark.question_id].append(score)
        if categories:
            by_category[_category(mark.question_id, categories)].append(score)
    question_means = [fmean(of_question) for of_question in by_question.values()]
    return MarkSummary(
        model=model,
        judge=judge,
        mean=fmean(score for _, score in pairs) if pairs else math.nan,
        standard_error=stdev(question_means) / math.sqrt(len(question_means)) if len(question_means) > 1 else math.nan,
        n_total=len(pairs),
        n_missing=len(marks) - len(pairs),
        by_turn={turn: fmean(by_turn[turn]) for turn in sorted(by_turn)},
        by_category={category: fmean(of_category) for category, of_category in by_category.items()},
    )


def _category(question_id: int, categories: Mapping[int, str]) -> str:
    if question_id not in categories:
        raise DataError(f"question {question_id} is in no category", remedy="give the questions these marks are about")
    return categories[question_id]


def _mark(row: Row, *, place: Place) -> Mark:
    judge = row.get("judge")
    if not (isinstance(judge, list) and judge and isinstance(judge[0], str)):
        raise DataError(f"{place}: 'judge' is not [model, prompt]", remedy="give FastChat's single-answer judgments")
    score = row.get("score")
    if isinstance(score, bool) or not isinstance(score, int | float | None):
        raise DataError(
            f"{place}: 'score' is {score!r}, not a number", remedy="give FastChat's single-answer judgments"
        )
    return Mark(
        question_id=_whole(row, "question_id", place=place),
        turn=_whole(row, "turn", place=place),
        model=text_field(row, "model", place=place),
        judge=judge[0],
        score=None if score is None or not 0 <= score <= 10 else float(score),
    )


def _whole(row: Row, name: str, *, place: Place) -> int:
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, int):
        raise DataError(f"{place}: {name!r} is {value!r}, not a whole number", remedy="give the file FastChat writes")
    return value


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
