"""Marks of single answers (MT-Bench): means of both models by turn and category, and what alignment changed.

Shapes: K seeds, N questions; NaN where a question lacks a mark.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Literal

import numpy as np

from trimtab.analysis import estimates, marks
from trimtab.analysis.comparison import Scores
from trimtab.analysis.intervals import FloatArray
from trimtab.analysis.marks import Question
from trimtab.records import Estimate
from trimtab.reporting.json_form import fields_form, json_form
from trimtab.reporting.judge_record import JudgeRecord
from trimtab.reporting.numbers.paired_change import PairedChange, paired_change
from trimtab.reporting.read import SIDES, Run, Side


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
    if not all(run.marks.get("aligned") for run in runs):
        return None
    sides = [side for side in SIDES if all(run.marks.get(side) for run in runs)]
    rows = [row for run in runs for side in sides for row in run.marks[side]]
    questions = list(dict.fromkeys(row[0] for row in rows))
    turns = sorted({row[1] for row in rows})
    categories = runs[0].categories
    models = {"aligned": runs[0].after, "unaligned": runs[0].unaligned}
    groups = [_group("turn", f"turn {turn}", runs, sides, questions, turn=turn, turns=()) for turn in turns]
    groups += [
        _group("category", name, runs, sides, [q for q in questions if categories.get(q) == name], turns=turns)
        for name in _in_official_order(categories.values())
    ]
    return MarkNumbers(
        judge="the judge" if record is None else record.label,
        models={side: next((answer.generator for answer in models[side].values()), side) for side in sides},
        n_questions=len(questions),
        n_missing={side: sum(row[2] is None for run in runs for row in run.marks[side]) for side in sides},
        overall=_means(runs, sides, questions, turn=None),
        groups=tuple(groups),
    )


def _in_official_order(names: Iterable[str]) -> list[str]:
    distinct = dict.fromkeys(names)
    return sorted(distinct, key=lambda name: marks.CATEGORIES.index(name) if name in marks.CATEGORIES else math.inf)


def _group(
    kind: Literal["turn", "category"],
    name: str,
    runs: Sequence[Run],
    sides: Sequence[Side],
    questions: Sequence[Question],
    *,
    turns: Sequence[int],
    turn: int | None = None,
) -> MarkGroup:
    whole = _means(runs, sides, questions, turn=turn)
    by_turn = {str(single): _means(runs, sides, questions, turn=single) for single in turns}
    return MarkGroup(kind, name, whole.means, whole.change, by_turn)


def _means(runs: Sequence[Run], sides: Sequence[Side], questions: Sequence[Question], *, turn: int | None) -> MarkMeans:
    """On some questions, all turns or one."""
    names = {str(question) for question in questions}
    scores = {side: [_scores_among(run, side, names, turn=turn) for run in runs] for side in sides}
    return MarkMeans(
        means={side: _mean(of_side, questions) for side, of_side in scores.items()},
        change=paired_change(scores["aligned"], scores["unaligned"], scale=1.0) if len(sides) == len(SIDES) else None,
    )


def _scores_among(run: Run, side: Side, questions: Set[str], *, turn: int | None) -> Scores:
    return {q: score for q, score in marks.scores(run.marks[side], turn=turn).items() if q in questions}


def _mean(scores: Sequence[Scores], questions: Sequence[Question]) -> Estimate:
    marks_KN: FloatArray = np.array(
        [[_nan_if_none(of_seed.get(str(q))) for q in questions] for of_seed in scores], dtype=np.float64
    )
    return estimates.rate(marks_KN / marks.TOP).scaled(marks.TOP)


def _nan_if_none(score: float | None) -> float:
    return math.nan if score is None else score
