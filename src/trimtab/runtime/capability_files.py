"""What lm-eval wrote by itself: `lm-eval run --log_samples --output_path FOLDER`, read without lm-eval.

A folder holds, at any depth, `results_DATE.json` and beside it `samples_TASK_DATE.jsonl`, a row a document and filter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab import store
from trimtab.errors import DataError
from trimtab.runtime.capability import TaskScores, scores_of

REMEDY = "name the folder that `lm-eval run --log_samples --output_path FOLDER` wrote"


@dataclass(frozen=True, slots=True)
class CapabilityFiles:
    """One model's tasks, by name. `lm_eval`: its version. `chat`: whether it asked in a chat template."""

    tasks: Mapping[str, TaskScores]
    lm_eval: str
    chat: bool


def read(folder: Path) -> CapabilityFiles:
    """Every task of a folder, from the newest results that have it. Raises DataError where there is none, or more than
    one model."""
    results = sorted(folder.rglob("results_*.json"), key=lambda path: path.name)
    if not results:
        raise DataError(f"{folder} holds no results_*.json of lm-eval", remedy=REMEDY)
    if len(parents := sorted({str(path.parent) for path in results})) > 1:
        raise DataError(f"{folder} holds several models: {', '.join(parents)}", remedy="name one of these folders")
    tasks: dict[str, TaskScores] = {}
    for path in results:
        tree = _results(path)
        for task, direction in tree["higher_is_better"].items():
            samples = path.with_name(path.name.replace("results_", f"samples_{task}_", 1)).with_suffix(".jsonl")
            if samples.is_file():
                tasks[task] = _scores(task, samples, direction)
    if not tasks:
        raise DataError(f"{results[-1]}: no samples lie beside it", remedy="run lm-eval again with --log_samples")
    return CapabilityFiles(tasks, str(tree.get("lm_eval_version", "unknown")), bool(tree.get("chat_template")))


def _results(path: Path) -> Mapping[str, Any]:
    """A file of results. Raises DataError where it does not say which measures are better higher."""
    tree = store.read_json(path)
    if not isinstance(tree, dict) or not isinstance(tree.get("higher_is_better"), dict):
        raise DataError(f"{path}: the key higher_is_better is not there", remedy="take lm-eval 0.4.9 or later")
    return tree


def common_tasks(before: CapabilityFiles, after: CapabilityFiles) -> tuple[list[TaskScores], list[TaskScores]]:
    """The tasks of both, in one order; `unshared_tasks` names the others. Raises DataError where there are none, or
    where a task's documents, its measures or the template differ: what was not asked alike cannot be paired."""
    if before.chat != after.chat:
        raise DataError(
            "one model was asked in a chat template and the other was not",
            remedy="run both with --apply_chat_template, or both without",
        )
    names = [name for name in before.tasks if name in after.tasks]
    if not names:
        raise DataError("the two folders have no task in common", remedy="ask both models the same tasks")
    for name in names:
        first, second = before.tasks[name], after.tasks[name]
        if first.samples != second.samples or set(first.metrics) != set(second.metrics):
            raise DataError(
                f"{name}: the two models were not asked the same documents, or scored by the same measures",
                remedy="run both with the same version of the task and the same --limit",
            )
    return [before.tasks[name] for name in names], [after.tasks[name] for name in names]


def unshared_tasks(before: CapabilityFiles, after: CapabilityFiles) -> list[str]:
    """The tasks of one of the two alone, each with the side that has it."""
    sides = ((before, after, "before"), (after, before, "after"))
    return [
        f"{name} ({side} alone)" for first, second, side in sides for name in first.tasks if name not in second.tasks
    ]


def _scores(task: str, path: Path, direction: Mapping[str, Any]) -> TaskScores:
    rows = store.read_jsonl(path)
    try:
        return scores_of(task, rows, {name: bool(up) for name, up in direction.items()})
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{path}: no samples of lm-eval ({type(error).__name__}: {error})", remedy="take lm-eval 0.4.9 or later"
        ) from error
