"""Mean marks from FastChat's judgments: of every model and judge in the file, by turn and category."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trimtab.analysis import marks as analysis
from trimtab.commands.missing import require_judged
from trimtab.judging.mt_bench import Mark, read_categories, read_marks, summarise_marks

NO_CATEGORIES = "the questions are not MT-Bench's 81 to 160, so no categories are known: --questions FILE names them"


def main(file: str, *, questions: str | None, allow_missing: bool) -> dict[str, Any]:
    """`{"file", "kind", "n_repeated", "n_questions", "models": [...], "notes"}`, a row a model and judge.

    Raises RunError when more than 1 % of a model's marks is missing and that was not allowed: a mark that could not be
    read, or a turn that another model in the file was marked on.
    """
    found = read_marks(Path(file))
    categories = categories_of(found.marks, questions)
    asked = {(mark.question_id, mark.turn) for mark in found.marks}
    models = []
    for summary in summarise_marks(found.marks, categories=categories or None):
        own = [mark for mark in found.marks if (mark.model, mark.judge) == (summary.model, summary.judge)]
        n_missing = len(asked) - summary.n_total
        require_judged(f"{file}, {summary.model}", n=len(asked), n_missing=n_missing, allowed=allow_missing)
        rows = rows_of(own)
        models.append(
            summary.to_json()
            | {
                "n_missing": n_missing,
                "ci95": analysis.mean_mark(rows).to_json()["ci95"],
                "categories": {
                    name: {turn: mean.to_json() for turn, mean in of.items()}
                    for name, of in analysis.by_category(rows, categories).items()
                }
                if categories
                else {},
            }
        )
    return {
        "file": file,
        "kind": "mt_bench",
        "n_repeated": found.n_repeated,
        "n_questions": len({question for question, _ in asked}),
        "models": models,
        "notes": [] if categories else [NO_CATEGORIES],
    }


def categories_of(marks: Sequence[Mark], questions: str | None) -> Mapping[Any, str]:
    """By question: from the file of questions, else MT-Bench's own where the numbers are; empty where neither."""
    if questions is not None:
        return read_categories(Path(questions))
    return analysis.categories_of(sorted({mark.question_id for mark in marks}))


def rows_of(marks: Sequence[Mark]) -> list[analysis.Row]:
    """Marks as `analysis.marks` takes them."""
    return [(mark.question_id, mark.turn, mark.score) for mark in marks]


def lines(told: dict[str, Any]) -> list[str]:
    """One block a model."""
    repeated = f"; {told['n_repeated']} repeated judgments left out" if told["n_repeated"] else ""
    shown = [f"{told['file']}: marks of 1 to 10 on {told['n_questions']} questions{repeated}"]
    for model in told["models"]:
        turns = ", ".join(f"turn {turn} {_figure(mean)}" for turn, mean in model["by_turn"].items())
        low, high = model["ci95"]
        shown.append(
            f"{model['model']}: {_figure(model['mean'])} (95 % CI {_figure(low)} to {_figure(high)}), {turns}; "
            f"{model['n_total']} marks by {model['judge']}, {model['n_missing']} missing"
        )
        width = max((len(name) for name in model["categories"]), default=0)
        shown += [
            f"  {name:<{width}}  {_figure(of['all']['value'])} "
            f"(95 % CI {_figure(of['all']['ci95'][0])} to {_figure(of['all']['ci95'][1])}, "
            f"{of['all']['n_questions']} questions)"
            for name, of in model["categories"].items()
        ]
    return shown + [f"note: {note}" for note in told["notes"]]


def _figure(value: float | None) -> str:
    return "not estimated" if value is None else f"{value:.2f}"
