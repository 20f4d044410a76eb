"""The prompts that models are asked, read from any JSON list or JSON lines."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from trimtab.errors import DataError
from trimtab.judging.files import read_values
from trimtab.judging.rows import Place, Row, text_field
from trimtab.records import Answer, digest

_INSTRUCTION_KEYS = ("instruction", "prompt", "question")
_BASELINE_KEYS = ("output", "baseline", "baseline_output")
_FAMILY_KEYS = ("dataset", "family", "category")
_ID_KEYS = ("prompt_id", "id", "question_id", "index")


@dataclass(frozen=True, slots=True)
class Prompt:
    """One instruction. `id` is unique in its benchmark; without one in the file it is the instruction itself.

    `baseline_output` is a published answer to be judged against, `baseline_generator` who gave it.
    """

    id: str
    instruction: str
    dataset: str = ""
    baseline_output: str | None = None
    baseline_generator: str = "baseline"

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
    def digest(self) -> str:
        """sha256 of everything a model is asked and judged against; the name does not count."""
        return digest([[p.id, p.instruction, p.dataset, p.baseline_output, p.baseline_generator] for p in self.prompts])

    def first(self, n: int) -> Benchmark:
        """The first `n` prompts."""
        return Benchmark(self.name, self.prompts[:n])


def read_benchmark(path: Path, *, name: str | None = None) -> Benchmark:
    """Read texts, or objects with `instruction` (or `prompt`, `question`) and, optionally, an id, a family and a
    baseline answer (`output`, `baseline` or `baseline_output`). AlpacaEval's `model_outputs` files are of this form.

    The name defaults to the file's. Raises DataError naming the row for an empty instruction, a repeated id, several
    turns, or baseline answers to only some of the prompts.
    """
    prompts = [_prompt(value, place=place) for place, value in read_values(path)]
    seen: dict[str, int] = {}
    for number, prompt in enumerate(prompts, start=1):
        if prompt.id in seen:
            raise DataError(
                f"{path}: prompts {seen[prompt.id]} and {number} are both {_short(prompt.id)!r}",
                remedy="remove one of them, or give each row an id of its own",
            )
        seen[prompt.id] = number
    n_baselines = sum(prompt.baseline_output is not None for prompt in prompts)
    if 0 < n_baselines < len(prompts):
        bare = next(n for n, prompt in enumerate(prompts, start=1) if prompt.baseline_output is None)
        raise DataError(
            f"{path}: {n_baselines} of {len(prompts)} prompts bring a baseline answer, the first without is {bare}",
            remedy="give a baseline answer to every prompt or to none",
        )
    return Benchmark(name or re.sub(r"(\.jsonl?)?(\.gz)?$", "", path.name), tuple(prompts))


def _prompt(value: object, *, place: Place) -> Prompt:
    if isinstance(value, str):
        return _non_empty(Prompt(value, value), place=place)
    if not isinstance(value, dict):
        raise DataError(f"{place}: expected a text or an object", remedy="give each prompt as a text or an object")
    instruction = _instruction(value, place=place)
    baseline_key = next((key for key in _BASELINE_KEYS if value.get(key) is not None), None)
    prompt = Prompt(
        id=_first_of(value, _ID_KEYS) or instruction,
        instruction=instruction,
        dataset=_first_of(value, _FAMILY_KEYS),
        baseline_output=None if baseline_key is None else text_field(value, baseline_key, place=place),
        baseline_generator=_first_of(value, ("generator",)) or "baseline",
    )
    return _non_empty(prompt, place=place)


def _instruction(row: Row, *, place: Place) -> str:
    key = next((key for key in _INSTRUCTION_KEYS if key in row), None)
    if key is None and isinstance(row.get("turns"), list):
        if len(row["turns"]) != 1:
            raise DataError(
                f"{place} asks {len(row['turns'])} turns",
                remedy="give one turn a prompt, as 'instruction'",
            )
        return text_field({"turn": row["turns"][0]}, "turn", place=place)
    if key is None:
        raise DataError(
            f"{place} has none of {', '.join(_INSTRUCTION_KEYS)}; it has {', '.join(row) or 'nothing'}",
            remedy="name the prompt's text 'instruction'",
        )
    return text_field(row, key, place=place)


def _first_of(row: Row, keys: tuple[str, ...]) -> str:
    """The first of these fields that is there, as text; 0 is a fine id."""
    return next((str(row[key]) for key in keys if row.get(key) is not None), "")


def _non_empty(prompt: Prompt, *, place: Place) -> Prompt:
    if not prompt.instruction.strip():
        raise DataError(f"{place}: the instruction is empty", remedy="remove the row or give it a text")
    return prompt


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:59] + "…"
