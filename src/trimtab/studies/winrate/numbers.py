"""What is known about one file of verdicts on pairs, or of marks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from trimtab.analysis import marks as analysis
from trimtab.analysis.intervals import Interval, finite
from trimtab.analysis.summary import Summary
from trimtab.judging.mt_bench import Mark, Marks, MarkSummary, read_categories, summarise_marks
from trimtab.studies.winrate.read import require_judged

NO_CATEGORIES = "the questions are not MT-Bench's 81 to 160, so no categories are known: --questions FILE names them"


@dataclass(frozen=True, slots=True)
class WinRateNumbers:
    """`n_absent` prompts have no row at all; `n_missing` counts them and the rows without a verdict. `table_notes` say
    what is to be known of the tables of length control; `out` is the folder in which answers were judged just now, and
    `alarms` what the judge's canaries said there.
    """

    file: str
    summary: Summary
    n_repeated: int
    n_absent: int
    n_missing: int
    table_notes: tuple[str, ...] = ()
    out: Path | None = None
    alarms: tuple[str, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What must stand above the numbers."""
        return (*self.alarms, *self.summary.warnings)

    @property
    def notes(self) -> tuple[str, ...]:
        return (*self.summary.length_controlled.notes, *self.table_notes)

    def to_json(self) -> dict[str, Any]:
        head = {"file": self.file, "kind": "alpaca_eval", "n_repeated": self.n_repeated, "n_absent": self.n_absent}
        tree = (
            head
            | self.summary.to_json()
            | {
                "n_missing": self.n_missing,
                "lc_notes": list(self.notes),
                "warnings": list(self.warnings),
            }
        )
        return tree if self.out is None else tree | {"out": str(self.out)}


@dataclass(frozen=True, slots=True)
class ModelMarks:
    """One model's marks by one judge. `n_missing` counts the turns that other models of the file were marked on, too.
    `categories` hold means by name, each of `"all"` turns and of each turn by its number.
    """

    summary: MarkSummary
    n_missing: int
    ci95: Interval
    categories: Mapping[str, Mapping[str, analysis.Mean]]

    def to_json(self) -> dict[str, Any]:
        return self.summary.to_json() | {
            "n_missing": self.n_missing,
            "ci95": [finite(end) for end in self.ci95],
            "categories": {
                name: {turn: mean.to_json() for turn, mean in by_turn.items()}
                for name, by_turn in self.categories.items()
            },
        }


@dataclass(frozen=True, slots=True)
class MarkNumbers:
    """FastChat's judgments: of every model and judge in the file."""

    file: str
    n_repeated: int
    n_questions: int
    models: tuple[ModelMarks, ...]
    notes: tuple[str, ...] = ()
    out: Path | None = None
    alarms: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        tree = {
            "file": self.file,
            "kind": "mt_bench",
            "n_repeated": self.n_repeated,
            "n_questions": self.n_questions,
            "models": [model.to_json() for model in self.models],
            "notes": list(self.notes),
        }
        return tree if self.out is None else tree | {"out": str(self.out), "warnings": list(self.alarms)}


Numbers: TypeAlias = WinRateNumbers | MarkNumbers


def mark_numbers(file: str, judgments: Marks, *, questions: str | None, allow_missing: bool) -> MarkNumbers:
    """Means by turn and category. `questions` is the file that names the categories of questions not MT-Bench's.

    Raises RunError when more than 1 % of a model's marks is missing and that was not allowed: a mark that could not be
    read, or a turn that another model in the file was marked on.
    """
    categories = categories_of(judgments.marks, questions)
    turns = {(mark.question_id, mark.turn) for mark in judgments.marks}
    models = []
    for summary in summarise_marks(judgments.marks, categories=categories or None):
        n_missing = len(turns) - summary.n_total
        require_judged(f"{file}, {summary.model}", n=len(turns), n_missing=n_missing, allow_missing=allow_missing)
        rows = rows_of([mark for mark in judgments.marks if (mark.model, mark.judge) == (summary.model, summary.judge)])
        by_category = analysis.by_category(rows, categories) if categories else {}
        models.append(ModelMarks(summary, n_missing, analysis.mean_mark(rows).ci95, by_category))
    return MarkNumbers(
        file=file,
        n_repeated=judgments.n_repeated,
        n_questions=len({question for question, _ in turns}),
        models=tuple(models),
        notes=() if categories else (NO_CATEGORIES,),
    )


def categories_of(marks: Sequence[Mark], questions: str | None) -> Mapping[int, str]:
    """By question: from the file of questions, else MT-Bench's own where the numbers are; empty where neither."""
    if questions is not None:
        return read_categories(Path(questions))
    return analysis.categories_of(sorted({mark.question_id for mark in marks}))


def rows_of(marks: Sequence[Mark]) -> list[analysis.Row]:
    """Marks as `analysis.marks` takes them."""
    return [(mark.question_id, mark.turn, mark.score) for mark in marks]
