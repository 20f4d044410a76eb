"""Two answers of a model to each prompt, for a person to judge on the arena's page."""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab import store
from trimtab.commands.pairs import model_folder, prompts_of
from trimtab.config import Config
from trimtab.errors import ConfigError, DataError
from trimtab.progress import Reporter
from trimtab.records import Answer
from trimtab.runtime import set_up
from trimtab.runtime.sampled_pairs import distinct_answers, heat_of, sampled_answers

SIDES = ("first sample", "second sample")


@dataclass(frozen=True, slots=True)
class ArenaAnswers:
    """The two files, in AlpacaEval's form, and why other prompts are not in them."""

    files: tuple[Path, Path]
    n_prompts: int
    left_out: Counter[str]

    def to_json(self) -> dict[str, Any]:
        files = [str(file) for file in self.files]
        return {"files": files, "prompts": self.n_prompts, "left_out": dict(self.left_out.most_common())}

    def lines(self) -> list[str]:
        """For a terminal, with what to do next."""
        first, second = (shlex.quote(str(file)) for file in self.files)
        return [
            f"{self.n_prompts:,} prompts with two answers",
            *(f"  {n:,} prompts left out: {reason}" for reason, n in self.left_out.most_common()),
            f"judge them: trimtab arena {first} {second} --out verdicts.json",
            "then: trimtab pairs verdicts.json --out pairs.jsonl",
        ]


def main(config: Config, *, reporter: Reporter) -> ArenaAnswers:
    """Write `OUT.first.json` and `OUT.second.json`. Stopped, the same command goes on."""
    if heat_of(config) == 0:
        raise ConfigError("generate.temperature = 0 gives the same answer twice", remedy="sample at 1, say")
    files = Path(f"{config.out}.first.json"), Path(f"{config.out}.second.json")
    setup, prompts, reasons = set_up(config), prompts_of(config).sound, Counter[str]()
    answers = sampled_answers(
        setup, model_folder(setup), prompts, samples=len(SIDES), reporter=reporter, description="sampling answers"
    )
    sides: tuple[list[Any], list[Any]] = ([], [])
    for prompt, of_prompt in zip(prompts, answers, strict=True):
        texts = distinct_answers(of_prompt, Counter())
        if len(prompt.messages) > 1:
            reasons["conversations, of which the page shows the last turn alone"] += 1
        elif len(texts) < len(SIDES):
            reasons["not two different whole answers"] += 1
        else:
            instruction = prompt.messages[0].content
            for rows, text, name in zip(sides, texts, SIDES, strict=True):
                rows.append(Answer(prompt.id, instruction, text, name).to_json())
    if not sides[0]:
        raise DataError("no prompt has two answers that differ", remedy="bring more prompts, or a higher temperature")
    for file, rows in zip(files, sides, strict=True):
        store.write_json(file, rows)
    return ArenaAnswers(files, len(sides[0]), reasons)
