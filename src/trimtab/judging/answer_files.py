"""Answers in the official forms, so that official tools can judge ours and official files can be judged here.

AlpacaEval: a JSON list of {dataset, instruction, output, generator} (`records.Answer.to_json` writes it, with keys
more). FastChat: JSON lines of {question_id, answer_id, model_id, choices: [{index, turns}], tstamp}.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from trimtab.errors import DataError
from trimtab.judging.benchmarks import Benchmark, Prompt
from trimtab.judging.files import read_objects
from trimtab.judging.rows import Place, Row, kind, text_field, texts_field
from trimtab.records import Answer, digest

ERROR_TEXT = "$ERROR$"  # what FastChat writes where a server gave no answer
N_NAMED = 5  # in one message

Content = TypeVar("Content")


@dataclass(frozen=True, slots=True)
class TurnAnswers:
    """One model's answers to every turn of one prompt. `n_tokens` counts what was sampled over all turns; `finished`
    says whether each of them ended by itself.
    """

    prompt_id: str
    turns: tuple[str, ...]
    generator: str
    n_tokens: int = 0
    finished: bool = True


def fastchat_rows(answers: Iterable[TurnAnswers], *, tstamp: float) -> list[dict[str, Any]]:
    """FastChat's `model_answer` rows, with `n_tokens` and `finished` beside. `tstamp` is in seconds since 1970."""
    return [
        {
            "question_id": question_id(answer.prompt_id),
            "answer_id": digest([answer.generator, answer.prompt_id, list(answer.turns)])[:22],
            "model_id": answer.generator,
            "choices": [{"index": 0, "turns": list(answer.turns)}],
            "tstamp": tstamp,
            "n_tokens": answer.n_tokens,
            "finished": answer.finished,
        }
        for answer in answers
    ]


def question_id(prompt_id: str) -> int | str:
    """FastChat numbers its questions; a prompt of another benchmark keeps its name."""
    return int(prompt_id) if prompt_id.isascii() and prompt_id.isdigit() else prompt_id


def read_model_answers(path: Path, *, benchmark: Benchmark, allow_missing: bool = False) -> list[TurnAnswers]:
    """A FastChat answer file, in the benchmark's order; the first choice of each row counts, as there.

    Answers to other questions are left out. Raises DataError naming the row for another form, several models, a
    question answered twice, another number of turns or an answer that failed; and for unanswered prompts, unless
    `allow_missing`.
    """
    prompts = {prompt.id: prompt for prompt in benchmark.prompts}
    rows = read_objects(path)
    _require_one_model([(place, text_field(row, "model_id", place=place)) for place, row in rows], path=path)
    rows_by_key = _by_prompt(
        (place, str(_identifier(row, place=place)), (row, _first_choice(row, place=place))) for place, row in rows
    )
    for name, (place, (_, turns)) in rows_by_key.items():
        if name in prompts:
            _require_turns(turns, prompts[name], place=place)
    keys = [(prompt, prompt.id) for prompt in benchmark.prompts]
    content_by_prompt = _in_order(rows_by_key, keys, path=path, allow_missing=allow_missing)
    return [
        TurnAnswers(
            prompt.id,
            turns,
            row["model_id"],
            n_tokens=_count(row, "n_tokens"),
            finished=row.get("finished") is not False,
        )
        for prompt, (row, turns) in content_by_prompt
    ]


def read_model_outputs(path: Path, *, benchmark: Benchmark, allow_missing: bool = False) -> list[Answer]:
    """An AlpacaEval `model_outputs` file, in the benchmark's order; joined by the instruction, exactly as written, or
    by `prompt_id` where every row has one, as ours do.

    Answers to other prompts are left out. Raises DataError naming the row for another form, several generators or a
    prompt answered twice; and for unanswered prompts, unless `allow_missing`.
    """
    rows = read_objects(path)
    generators = [(place, _generator(row, place=place)) for place, row in rows]
    _require_one_model(generators, path=path)
    name = "prompt_id" if all("prompt_id" in row for _, row in rows) else "instruction"
    rows_by_key = _by_prompt(
        (place, text_field(row, name, place=place), (row, text_field(row, "output", place=place)))
        for place, row in rows
    )
    keys = [(prompt, prompt.id if name == "prompt_id" else prompt.instruction) for prompt in benchmark.prompts]
    content_by_prompt = _in_order(rows_by_key, keys, path=path, allow_missing=allow_missing)
    return [
        Answer(
            prompt.id,
            prompt.instruction,
            output,
            generators[0][1],
            prompt.dataset,
            n_tokens=_count(row, "n_tokens"),
            finished=row.get("finished") is not False,
        )
        for prompt, (row, output) in content_by_prompt
    ]


def read_references(path: Path) -> dict[str, tuple[str, ...]]:
    """Prompt id → answers by turn, from a file in FastChat's form. Raises DataError naming the row."""
    references = _by_prompt(
        (place, str(_identifier(row, place=place)), _first_choice(row, place=place))
        for place, row in read_objects(path)
    )
    return {name: turns for name, (_, turns) in references.items()}


def _generator(row: Row, *, place: Place) -> str:
    """Who answered; a file that does not say is called by its name."""
    return text_field(row, "generator", place=place) if "generator" in row else place.path.name.partition(".")[0]


def _identifier(row: Row, *, place: Place) -> int | str:
    value = row.get("question_id")
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise DataError(f"{place}: 'question_id' is {kind(value)}", remedy="give FastChat's model answers")
    return value


def _first_choice(row: Row, *, place: Place) -> tuple[str, ...]:
    choices = row.get("choices")
    if not (isinstance(choices, list) and choices and isinstance(choices[0], dict)):
        raise DataError(f"{place}: 'choices' is not [{{index, turns}}]", remedy="give FastChat's model answers")
    turns = texts_field(choices[0], "turns", place=place)
    if ERROR_TEXT in turns:
        raise DataError(f"{place}: an answer is {ERROR_TEXT!r}: its server had failed", remedy="answer it again")
    return turns


def _require_turns(turns: tuple[str, ...], prompt: Prompt, *, place: Place) -> None:
    if len(turns) != len(prompt.turns):
        raise DataError(
            f"{place} answers {len(turns)} turns of question {prompt.id}, which has {len(prompt.turns)}",
            remedy="answer every turn once",
        )


def _require_one_model(models: Sequence[tuple[Place, str]], *, path: Path) -> None:
    first = models[0][1]
    second_model = next(((place, name) for place, name in models if name != first), None)
    if second_model is not None:
        raise DataError(
            f"{path} holds answers of several models: {first!r} in row {models[0][0].number}, "
            f"{second_model[1]!r} in row {second_model[0].number}",
            remedy="give one file a model",
        )


def _by_prompt(rows: Iterable[tuple[Place, str, Content]]) -> dict[str, tuple[Place, Content]]:
    by_prompt: dict[str, tuple[Place, Content]] = {}
    for place, name, content in rows:
        if name in by_prompt:
            raise DataError(
                f"{place.path}: rows {by_prompt[name][0].number} and {place.number} both answer {_short(name)!r}",
                remedy="keep one answer to each prompt",
            )
        by_prompt[name] = (place, content)
    return by_prompt


def _in_order(
    content_by_key: dict[str, tuple[Place, Content]],
    keys: Sequence[tuple[Prompt, str]],
    *,
    path: Path,
    allow_missing: bool,
) -> list[tuple[Prompt, Content]]:
    """What was given to each prompt under its name."""
    missing = [key for _, key in keys if key not in content_by_key]
    if missing and (not allow_missing or len(missing) == len(keys)):
        examples = ", ".join(repr(_short(key)) for key in missing[:N_NAMED]) + (", …" if len(missing) > N_NAMED else "")
        raise DataError(
            f"{path} has no answer to {len(missing)} of {len(keys)} prompts: {examples}",
            remedy="answer all of them, ask fewer with --benchmark.limit, or leave some out knowingly: --allow-missing",
        )
    return [(prompt, content_by_key[key][1]) for prompt, key in keys if key in content_by_key]


def _count(row: Row, name: str) -> int:
    value = row.get(name, 0)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:59] + "…"
