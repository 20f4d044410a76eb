"""Marks from 0 to 10, as MT-Bench gives them: means by turn and category, and the difference of two models.

A question is the unit that was sampled: its turns hang together, so every interval is over questions. Intervals are
those of rates (`intervals.rate_interval`) on marks divided by ten: they stay on the scale, and hold at ten questions.

A row is (question, turn, mark or None where none could be read).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, TypeAlias, TypeVar

import numpy as np

from trimtab.analysis.comparison import Comparison, Scores, compare, compare_groups
from trimtab.analysis.intervals import Interval, finite, rate_interval
from trimtab.errors import DataError

Question: TypeAlias = int | str
QuestionId = TypeVar("QuestionId", bound=Question)
Row: TypeAlias = tuple[Question, int, float | None]

TOP = 10.0  # of MT-Bench's scale
METHOD = "Wilson at the effective number of questions, on marks of 0 to 10"
CATEGORIES = ("writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities")
_FIRST, _PER_CATEGORY = 81, 10  # question ids of the official set: 81 to 160, ten a category in order


@dataclass(frozen=True, slots=True)
class Mean:
    """`value` weighs every mark alike, as FastChat does; `ci95` is over the `n_questions` that have a mark."""

    value: float
    ci95: Interval
    n_questions: int
    n_marks: int
    n_missing: int

    def to_json(self) -> dict[str, Any]:
        return {
            "value": finite(self.value),
            "ci95": [finite(end) for end in self.ci95],
            "n_questions": self.n_questions,
            "n_marks": self.n_marks,
            "n_missing": self.n_missing,
        }


def official_category(question: Question) -> str | None:
    """The category of MT-Bench's questions 81 to 160, which come ten a category; None for any other."""
    place = (question - _FIRST) // _PER_CATEGORY if isinstance(question, int) else -1
    return CATEGORIES[place] if 0 <= place < len(CATEGORIES) else None


def categories_of(questions: Iterable[QuestionId]) -> dict[QuestionId, str]:
    """`official_category` of every question; empty unless all of them are MT-Bench's."""
    categories = {question: official_category(question) for question in questions}
    official = {question: category for question, category in categories.items() if category is not None}
    return official if len(official) == len(categories) else {}


def mean_mark(rows: Sequence[Row]) -> Mean:
    """The mean of all marks; NaN without any."""
    by_question: dict[Question, list[float]] = defaultdict(list)
    for question, _, mark in rows:
        if mark is not None:
            by_question[question].append(mark)
    marks = [mark for of_question in by_question.values() for mark in of_question]
    low, high = rate_interval(np.array([fmean(of) for of in by_question.values()], dtype=np.float64) / TOP)
    return Mean(
        value=fmean(marks) if marks else math.nan,
        ci95=(TOP * low, TOP * high),
        n_questions=len(by_question),
        n_marks=len(marks),
        n_missing=len(rows) - len(marks),
    )


def by_turn(rows: Sequence[Row]) -> dict[int, Mean]:
    """One mean a turn."""
    return {turn: mean_mark([row for row in rows if row[1] == turn]) for turn in sorted({row[1] for row in rows})}


def by_category(rows: Sequence[Row], categories: Mapping[Any, str]) -> dict[str, dict[str, Mean]]:
    """Means of every category: `"all"` turns, then each turn by its number. Raises DataError for a question in none."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row[0] not in categories:
            raise DataError(f"question {row[0]} is in no category", remedy="give the questions these marks are about")
        groups[categories[row[0]]].append(row)
    in_order = [name for name in CATEGORIES if name in groups] + [name for name in groups if name not in CATEGORIES]
    return {
        name: {"all": mean_mark(groups[name])} | {str(turn): mean for turn, mean in by_turn(groups[name]).items()}
        for name in in_order
    }


def scores(rows: Sequence[Row], *, turn: int | None = None) -> Scores:
    """Mean mark of a question over its turns (or one turn's), by question; None where one of them is missing."""
    marks_by_question: dict[str, list[float | None]] = defaultdict(list)
    for question, at, mark in rows:
        if turn is None or at == turn:
            marks_by_question[str(question)].append(mark)
    return {
        question: None if any(mark is None for mark in of) else fmean(mark for mark in of if mark is not None)
        for question, of in marks_by_question.items()
    }


def compare_marks(
    a: Sequence[Sequence[Row]],
    b: Sequence[Sequence[Row]],
    *,
    categories: Mapping[Any, str],
    names: tuple[str, str] = ("A", "B"),
) -> tuple[Comparison, dict[str, Comparison], dict[str, Comparison]]:
    """A minus B in marks, paired by question: all, by turn, by category. A side is one list of rows a seed.

    `names` stand in the first one's verdict; the groups' speak of A and B.
    """
    all_a, all_b = ([scores(rows) for rows in side] for side in (a, b))
    whole = compare(all_a, all_b, scale=1.0, top=TOP, names=names)
    turns = sorted({row[1] for side in (a, b) for rows in side for row in rows})
    of_turns: dict[str, Comparison] = {}
    for turn in turns:
        group = {str(row[0]): str(turn) for side in (a, b) for rows in side for row in rows}
        at_a, at_b = ([scores(rows, turn=turn) for rows in side] for side in (a, b))
        of_turns |= compare_groups(at_a, at_b, group, scale=1.0, top=TOP)
    groups = {str(question): category for question, category in categories.items()}
    return whole, of_turns, compare_groups(all_a, all_b, groups, scale=1.0, top=TOP)
