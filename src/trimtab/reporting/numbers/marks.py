"""Marks of single answers (MT-Bench): means of both models by turn and category, and what alignment changed.

Shapes: K seeds, N questions; NaN where a question lacks a mark.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from trimtab.analysis import estimates, marks
from trimtab.analysis.comparison import Scores
from trimtab.analysis.marks import Question, Row
from trimtab.records import Estimate
from trimtab.reporting.json_form import fields_form, json_form
from trimtab.reporting.numbers.paired_change import PairedChange, paired_change
from trimtab.reporting.read import SIDES, Run, Side
from trimtab.runtime.judges.judge_record import JudgeRecord


@dataclass(frozen=True, slots=True)
class MarkMeans:
    """Mean mark of 10 of each side, and aligned less unaligned where both have marks."""

    means: Mapping[Side, Estimate]
    change: PairedChange | None


@dataclass(frozen=True, slots=True)
class MarkGroup:
    """One turn, or one category over all turns with each turn's means beside it."""

    kind: Literal["turn", "category"]
    name: str
    means: Mapping[Side, Estimate]
    change: PairedChange | None
    turns: Mapping[str, MarkMeans]


@dataclass(frozen=True, slots=True)
class MarkNumbers:
    """`models` are the names of those that have marks; `n_missing` marks could not be read. In JSON `overall` is
    called `all`."""

    judge: str
    models: Mapping[Side, str]
    n_questions: int
    n_missing: Mapping[Side, int]
    overall: MarkMeans
    groups: tuple[MarkGroup, ...]

    def to_json(self) -> dict[str, object]:
        tree = fields_form(self, "overall", "groups")
        return tree | {"all": json_form(self.overall), "groups": json_form(self.groups)}

    @property
    def categories(self) -> list[MarkGroup]:
        return [group for group in self.groups if group.kind == "category"]


def mark_numbers(runs: Sequence[Run], record: JudgeRecord | None) -> MarkNumbers | None:
    """None where the aligned model of some seed has no marks."""
    sides = [side for side in SIDES if all(run.marks.get(side) for run in runs)]
    if "aligned" not in sides:
        return None
    marking = _Marking(runs, sides)
    questions, turns, categories = marking.questions, marking.turns, runs[0].categories
    groups = [marking.group("turn", f"turn {turn}", questions, turn=turn) for turn in turns]
    for name in _in_official_order(categories.values()):
        members = [question for question in questions if categories.get(question) == name]
        groups.append(marking.group("category", name, members, turns=turns))
    return MarkNumbers(
        judge="the judge" if record is None else record.identity.label,
        models={side: marking.generator(side) for side in sides},
        n_questions=len(questions),
        n_missing={side: sum(row[2] is None for run in runs for row in run.marks[side]) for side in sides},
        overall=marking.means(questions),
        groups=tuple(groups),
    )


def _in_official_order(names: Iterable[str]) -> list[str]:
    distinct = dict.fromkeys(names)
    return sorted(distinct, key=lambda name: marks.CATEGORIES.index(name) if name in marks.CATEGORIES else math.inf)


@dataclass(frozen=True, slots=True)
class _Marking:
    """The marks of every seed on the sides that have them."""

    runs: Sequence[Run]
    sides: Sequence[Side]

    @property
    def rows(self) -> list[Row]:
        return [row for run in self.runs for side in self.sides for row in run.marks[side]]

    @property
    def questions(self) -> list[Question]:
        return list(dict.fromkeys(row[0] for row in self.rows))

    @property
    def turns(self) -> list[int]:
        return sorted({row[1] for row in self.rows})

    def generator(self, side: Side) -> str:
        answers = self.runs[0].after if side == "aligned" else self.runs[0].unaligned
        return next((answer.generator for answer in answers.values()), side)

    def group(
        self,
        kind: Literal["turn", "category"],
        name: str,
        questions: Sequence[Question],
        *,
        turn: int | None = None,
        turns: Sequence[int] = (),
    ) -> MarkGroup:
        whole = self.means(questions, turn=turn)
        by_turn = {str(single): self.means(questions, turn=single) for single in turns}
        return MarkGroup(kind, name, whole.means, whole.change, by_turn)

    def means(self, questions: Sequence[Question], *, turn: int | None = None) -> MarkMeans:
        """On some questions, all turns or one."""
        scores = {side: [_scores_among(run.marks[side], questions, turn) for run in self.runs] for side in self.sides}
        change = None
        if len(self.sides) == len(SIDES):
            change = paired_change(scores["aligned"], scores["unaligned"], scale=1.0, top=marks.TOP)
        return MarkMeans(means={side: _mean(of_side, questions) for side, of_side in scores.items()}, change=change)


def _scores_among(rows: Sequence[Row], questions: Sequence[Question], turn: int | None) -> Scores:
    names = {str(question) for question in questions}
    return {question: score for question, score in marks.scores(rows, turn=turn).items() if question in names}


def _mean(scores: Sequence[Scores], questions: Sequence[Question]) -> Estimate:
    marks_KN = np.array([[of_seed.get(str(q)) for q in questions] for of_seed in scores], dtype=np.float64)
    return estimates.rate(marks_KN / marks.TOP).scaled(marks.TOP)  # a question without a mark is NaN
