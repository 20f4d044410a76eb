"""Marks of single answers (MT-Bench): means of both models by turn and category, and what alignment changed.

Shapes: K seeds, N questions; NaN where a question lacks a mark.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trimtab.analysis import marks
from trimtab.analysis.comparison import Scores
from trimtab.analysis.intervals import FloatArray
from trimtab.analysis.marks import Question
from trimtab.reporting import estimates
from trimtab.reporting.inputs import Run, Side
from trimtab.reporting.judged import difference, label

SIDES: tuple[Side, ...] = ("aligned", "unaligned")


def mark_numbers(runs: Sequence[Run], record: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Mean marks of 10 and paired differences; None where the aligned model of some seed has no marks."""
    if not all(run.marks.get("aligned") for run in runs):
        return None
    sides = [side for side in SIDES if all(run.marks.get(side) for run in runs)]
    asked = list(dict.fromkeys(row[0] for run in runs for side in sides for row in run.marks[side]))
    turns = sorted({row[1] for run in runs for side in sides for row in run.marks[side]})
    categories = runs[0].categories
    names = [name for name in marks.CATEGORIES if name in categories.values()]
    names += [name for name in dict.fromkeys(categories.values()) if name not in names]
    groups: list[tuple[str, str, list[Question], list[int | None]]] = [
        ("turn", f"turn {turn}", asked, [turn]) for turn in turns
    ]
    groups += [("category", name, [q for q in asked if categories.get(q) == name], [None, *turns]) for name in names]
    judge = "the judge" if record is None else label(record)
    return {
        "judge": judge,
        "models": {side: next(iter(run.generator for run in _answers(runs[0], side)), side) for side in sides},
        "n_questions": len(asked),
        "n_missing": {side: sum(row[2] is None for run in runs for row in run.marks[side]) for side in sides},
        "all": _numbers(runs, sides, asked, None),
        "groups": [
            {"kind": kind, "name": name}
            | _numbers(runs, sides, questions, at[0])
            | {"turns": {str(turn): _numbers(runs, sides, questions, turn) for turn in at[1:]}}
            for kind, name, questions, at in groups
        ],
    }


def _answers(run: Run, side: Side) -> list[Any]:
    return list((run.after if side == "aligned" else run.unaligned).values())


def _numbers(runs: Sequence[Run], sides: Sequence[Side], asked: Sequence[Question], turn: int | None) -> dict[str, Any]:
    """Means of every side on some questions, all turns or one, and the difference of the two where there are two."""
    kept = {str(question) for question in asked}
    scores = {
        side: [{q: score for q, score in marks.scores(run.marks[side], turn=turn).items() if q in kept} for run in runs]
        for side in sides
    }
    told: dict[str, Any] = {"means": {side: _mean(of, asked) for side, of in scores.items()}, "change": None}
    if len(sides) == len(SIDES):
        told["change"] = difference(scores["aligned"], scores["unaligned"], scale=1.0)
    return told


def _mean(scores: Sequence[Scores], asked: Sequence[Question]) -> dict[str, Any]:
    table_KN: FloatArray = np.array([[_number(of.get(str(q))) for q in asked] for of in scores], dtype=np.float64)
    return estimates.scaled(estimates.rate(table_KN / marks.TOP), marks.TOP)


def _number(score: float | None) -> float:
    return math.nan if score is None else score
