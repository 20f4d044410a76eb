"""Prompts to be answered, from whatever holds some: prompts alone, pairs (their prompts), a benchmark's file, the
embedded world's tasks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab import windtunnel
from trimtab.config import DataSection
from trimtab.data.formats import Format, detect_format
from trimtab.data.messages import roles_fault
from trimtab.data.problems import Reason, RowFaultError, RowProblem
from trimtab.data.readers import read_prompt
from trimtab.data.sources import Rows, draw
from trimtab.errors import DataError
from trimtab.judging.benchmarks import read_benchmark
from trimtab.judging.judges import Submission
from trimtab.records import Message
from trimtab.runtime.pair_source import mixture


@dataclass(frozen=True, slots=True)
class SourcePrompt:
    """One prompt. `row`: all of its row as a JSON object, for verifiers. `task`: of the embedded world."""

    id: str
    messages: tuple[Message, ...]
    row: str = ""
    task: windtunnel.Task | None = None

    def submission(self, answer: str) -> Submission:
        """An answer to it."""
        return Submission(self.messages, answer, self.row)


@dataclass(frozen=True, slots=True)
class Prompts:
    """The sound prompts in their order, and the rows that are none or repeat an earlier one."""

    sound: tuple[SourcePrompt, ...]
    dropped_rows: tuple[RowProblem, ...]


def read_prompts(data: DataSection, *, world_seed: int, n_tasks: int, offline: bool) -> Prompts:
    """The prompts of the configured sources. world_seed, n_tasks: of the embedded world's tasks, where it is named.

    Raises DataError where a source cannot be read or holds no prompt.
    """
    sound: dict[tuple[Message, ...], SourcePrompt] = {}
    problems: list[RowProblem] = []
    for outcome in _outcomes(data, world_seed=world_seed, n_tasks=n_tasks, offline=offline):
        if isinstance(outcome, RowProblem):
            problems.append(outcome)
        elif (problem := _problem(outcome)) is not None:
            problems.append(problem)
        elif (earlier := sound.setdefault(outcome.messages, outcome)) is not outcome:
            problems.append(RowProblem(outcome.id, Reason.DUPLICATE, f"the prompt of {earlier.id}"))
    if not sound:
        first = f" (first: {problems[0].id}: {problems[0].detail})" if problems else ""
        raise DataError(
            f"{data.label}: none of the {len(problems)} rows is a prompt that can be answered{first}",
            remedy="name a file with a column prompt, instruction, question or messages, or pairs",
        )
    return Prompts(tuple(sound.values()), tuple(problems))


def _outcomes(
    data: DataSection, *, world_seed: int, n_tasks: int, offline: bool
) -> Iterator[SourcePrompt | RowProblem]:
    if data.source == windtunnel.NAME:
        tasks = windtunnel.tasks(min(n_tasks, data.limit or n_tasks), seed=1000 * world_seed, split="pairs")
        yield from (SourcePrompt(task.id, (Message("user", task.prompt),), task=task) for task in tasks)
        return
    if (texts := _text_file(data)) is not None:
        yield from texts
        return
    for rows in mixture(data, offline=offline):
        yield from _of_rows(rows, data.columns)


def _of_rows(rows: Rows, columns: Mapping[str, str] | None) -> Iterator[SourcePrompt | RowProblem]:
    """By the shape of pairs where the first rows are some, else by the columns of a prompt."""
    has_pairs = columns is not None or any(row.get("chosen") is not None for row in rows.head)
    shape = detect_format(rows.head, source=rows.source, columns=columns) if has_pairs else None
    for row_id, row in rows:
        outcome = _prompt_of(row_id, row, shape)
        yield outcome if isinstance(outcome, RowProblem) else SourcePrompt(row_id, outcome, _row_json(row))


def _prompt_of(row_id: str, row: Mapping[str, Any], shape: Format | None) -> tuple[Message, ...] | RowProblem:
    if shape is None:
        try:
            return read_prompt(row)
        except RowFaultError as fault:
            return fault.at(row_id)
    outcome = shape.to_record(row_id, row)
    if isinstance(outcome, RowProblem):
        return outcome
    if outcome.template_arguments:
        return RowProblem(row_id, Reason.NOT_READ, "answers that may call tools are not sampled")
    return outcome.prompt


def _problem(prompt: SourcePrompt) -> RowProblem | None:
    if fault := roles_fault(prompt.messages):
        return RowProblem(prompt.id, Reason.WRONG_ROLES, fault)
    if any(message.extras or message.role == "tool" for message in prompt.messages):
        return RowProblem(prompt.id, Reason.NOT_READ, "answers that may call tools are not sampled")
    if not prompt.messages[-1].content.strip():
        return RowProblem(prompt.id, Reason.EMPTY_PROMPT)
    return None


def _row_json(row: Mapping[str, Any]) -> str:
    """The row where it is plain JSON; columns of other types (dates, bytes) are left out."""
    plain = {}
    for name, value in row.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):
            continue
        plain[name] = value
    return json.dumps(plain, ensure_ascii=False, sort_keys=True)


def _text_file(data: DataSection) -> list[SourcePrompt] | None:
    """A text's lines, or a JSON list of texts, which no reader of rows takes; None for anything else."""
    if not isinstance(data.source, str) or not (path := Path(data.source)).is_file():
        return None
    with path.open("rb") as file:
        is_list = re.match(rb'\s*\[\s*"', file.read(1000)) is not None
    if not is_list and Path(path.name.removesuffix(".gz")).suffix != ".txt":
        return None
    prompts = read_benchmark(path).prompts
    n = min(len(prompts), data.limit or len(prompts))
    places = range(n) if data.draw_seed is None else draw(len(prompts), n, seed=data.draw_seed)
    return [SourcePrompt(f"{path.name}:{k + 1}", (Message("user", prompts[k].instruction),)) for k in places]
