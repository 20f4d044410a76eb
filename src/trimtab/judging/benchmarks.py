"""The prompts that models are asked, read from any JSON list or JSON lines, from CSV, or from a text's lines."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trimtab.errors import DataError
from trimtab.judging.files import read_csv, read_lines, read_values
from trimtab.judging.rows import Place, Row, text_field, texts_field
from trimtab.records import Answer, compact_json, digest

_INSTRUCTION_KEYS = ("instruction", "prompt", "question")
_BASELINE_KEYS = ("output", "baseline", "baseline_output")
_FAMILY_KEYS = ("dataset", "family", "category")
_ID_KEYS = ("prompt_id", "id", "question_id", "index")


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is asked: one instruction, and in a conversation the user's `later_turns`.

    `id` is unique in its benchmark; without one in the file it is the instruction itself. `baseline_output` is a
    published answer to be judged against, `baseline_generator` who gave it. `reference` are right answers, one a turn,
    which a judge is shown. `temperature` is set where this prompt demands one of its own. `row` is all of the file's
    row as a JSON object, which verifiers are given: models are not asked it.
    """

    id: str
    instruction: str
    dataset: str = ""
    baseline_output: str | None = None
    baseline_generator: str = "baseline"
    later_turns: tuple[str, ...] = ()
    reference: tuple[str, ...] = ()
    temperature: float | None = None
    row: str = field(default="", compare=False, repr=False)

    @property
    def turns(self) -> tuple[str, ...]:
        """Everything the user says, in order."""
        return (self.instruction, *self.later_turns)

    def baseline_answer(self) -> Answer:
        """The published answer; call it only where `Benchmark.has_baseline`."""
        assert self.baseline_output is not None
        return Answer(self.id, self.instruction, self.baseline_output, self.baseline_generator, self.dataset)


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Prompts in their official order. Either all of them bring a baseline answer or none does."""

    name: str
    prompts: tuple[Prompt, ...]

    @property
    def has_baseline(self) -> bool:
        return all(prompt.baseline_output is not None for prompt in self.prompts)

    @property
    def multi_turn(self) -> bool:
        """Whether any prompt goes on after the first answer."""
        return any(prompt.later_turns for prompt in self.prompts)

    @property
    def digest(self) -> str:
        """sha256 of everything a model is asked and judged against; the name does not count."""
        return digest([_identity(prompt) for prompt in self.prompts])

    @property
    def rows(self) -> dict[str, str]:
        """Each prompt's row by its id."""
        return {prompt.id: prompt.row for prompt in self.prompts}

    def first(self, n: int) -> Benchmark:
        """The first `n` prompts."""
        return Benchmark(self.name, self.prompts[:n])


def read_benchmark(path: Path, *, name: str | None = None) -> Benchmark:
    """Read texts (of a .txt file, one a line), or objects (or rows of CSV) with `instruction` (or `prompt`, `question`)
    and, optionally, an id, a family and a baseline answer (`output`, `baseline` or `baseline_output`). AlpacaEval's
    `model_outputs` files are of this form.

    MT-Bench's question files are too: `turns` in place of the instruction, with `reference` answers by turn and a
    `required_temperature` where given. The name defaults to the file's. Raises DataError naming the row for an empty
    turn, a repeated id, or baseline answers to only some of the prompts or to conversations.
    """
    prompts = [_prompt(value, place=place) for place, value in _values(path)]
    row_numbers: dict[str, int] = {}
    for number, prompt in enumerate(prompts, start=1):
        if prompt.id in row_numbers:
            raise DataError(
                f"{path}: prompts {row_numbers[prompt.id]} and {number} are both {_short(prompt.id)!r}",
                remedy="remove one of them, or give each row an id of its own",
            )
        row_numbers[prompt.id] = number
    n_baselines = sum(prompt.baseline_output is not None for prompt in prompts)
    if 0 < n_baselines < len(prompts):
        bare = next(n for n, prompt in enumerate(prompts, start=1) if prompt.baseline_output is None)
        raise DataError(
            f"{path}: {n_baselines} of {len(prompts)} prompts bring a baseline answer, the first without is {bare}",
            remedy="give a baseline answer to every prompt or to none",
        )
    return Benchmark(name or re.sub(r"(\.(jsonl?|csv|txt))?(\.gz)?$", "", path.name), tuple(prompts))


def _values(path: Path) -> list[tuple[Place, Any]]:
    match Path(path.name.lower().removesuffix(".gz")).suffix:
        case ".csv":  # an empty cell is a field that is not there
            return [(place, {key: cell for key, cell in row.items() if cell}) for place, row in read_csv(path)]
        case ".txt":
            return read_lines(path)
        case _:
            return read_values(path)


def _prompt(value: object, *, place: Place) -> Prompt:
    if isinstance(value, str):
        return _non_empty(Prompt(value, value), place=place)
    if not isinstance(value, dict):
        raise DataError(f"{place}: expected a text or an object", remedy="give each prompt as a text or an object")
    turns, reference = _turns(value, place=place)
    baseline_key = next((key for key in _BASELINE_KEYS if value.get(key) is not None), None)
    if baseline_key and len(turns) > 1:
        raise DataError(
            f"{place} asks {len(turns)} turns and brings a baseline answer, {baseline_key!r}",
            remedy="leave the baseline out: conversations are judged by themselves",
        )
    prompt = Prompt(
        id=_first_of(value, _ID_KEYS) or turns[0],
        instruction=turns[0],
        dataset=_first_of(value, _FAMILY_KEYS),
        baseline_output=None if baseline_key is None else text_field(value, baseline_key, place=place),
        baseline_generator=_first_of(value, ("generator",)) or "baseline",
        later_turns=turns[1:],
        reference=reference,
        temperature=_temperature(value, place=place),
        row=compact_json(value),
    )
    return _non_empty(prompt, place=place)


def _turns(row: Row, *, place: Place) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The user's turns and the reference answers to them, which only rows in MT-Bench's form have."""
    key = next((key for key in _INSTRUCTION_KEYS if key in row), None)
    if key is None and "turns" in row:
        turns = texts_field(row, "turns", place=place)
        if not turns:
            raise DataError(f"{place}: 'turns' is empty", remedy="remove the row or give it a text")
        return turns, _reference(row, turns, place=place)
    if key is None:
        raise DataError(
            f"{place} has none of {', '.join(_INSTRUCTION_KEYS)}; it has {', '.join(row) or 'nothing'}",
            remedy="name the prompt's text 'instruction'",
        )
    if "turns" in row:
        raise DataError(f"{place} has both {key!r} and 'turns'", remedy="keep one of them")
    return (text_field(row, key, place=place),), ()


def _reference(row: Row, turns: tuple[str, ...], *, place: Place) -> tuple[str, ...]:
    if row.get("reference") is None:
        return ()
    reference = texts_field(row, "reference", place=place)
    if len(reference) != len(turns):
        raise DataError(
            f"{place}: {len(reference)} reference answers to {len(turns)} turns",
            remedy="give one reference answer a turn, or none",
        )
    return reference


def _temperature(row: Row, *, place: Place) -> float | None:
    value = row.get("required_temperature")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 2:
        raise DataError(f"{place}: 'required_temperature' is {value!r}", remedy="give a number from 0 to 2")
    return float(value)


def _identity(prompt: Prompt) -> list[object]:
    """What a digest covers; a single question's is what it was before there were conversations."""
    parts: list[object] = [
        prompt.id, prompt.instruction, prompt.dataset, prompt.baseline_output, prompt.baseline_generator,
    ]  # fmt: skip
    if prompt.later_turns or prompt.reference or prompt.temperature is not None:
        parts += [list(prompt.later_turns), list(prompt.reference), prompt.temperature]
    return parts


def _first_of(row: Row, keys: tuple[str, ...]) -> str:
    """The first of these fields that is there, as text; 0 is a fine id."""
    return next((str(row[key]) for key in keys if row.get(key) is not None), "")


def _non_empty(prompt: Prompt, *, place: Place) -> Prompt:
    for number, turn in enumerate(prompt.turns, start=1):
        if not turn.strip():
            place_name = "the instruction" if number == 1 else f"turn {number}"
            raise DataError(f"{place}: {place_name} is empty", remedy="remove the row or give it a text")
    return prompt


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:59] + "…"
