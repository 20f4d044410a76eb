"""MT-Bench's single-answer grading: a judge reads one model's answers and gives a mark from 1 to 10.

Each turn is judged apart; at the second turn the judge sees the whole conversation. A prompt that brings reference
answers (math, reasoning and coding do) is judged against them. FastChat demands a file of reference answers made by
each judge; here they are GPT-4's, the published ones, whatever the judge's name, so marks of judges are told apart by
the judge alone. The prompts are read at run time (`official.judge_prompts`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.endpoint import Reply, Request
from trimtab.errors import DataError
from trimtab.judging.answer_files import TurnAnswers, question_id
from trimtab.judging.benchmarks import Benchmark, Prompt
from trimtab.judging.files import read_objects
from trimtab.judging.rows import text_field
from trimtab.judging.verdict_reading import read_mark
from trimtab.records import Message

CATEGORIES_WITH_REFERENCE = frozenset({"math", "reasoning", "coding"})
MAX_TOKENS = 2048  # as FastChat asks its judge
NO_SCORE = -1  # FastChat's score of a judgment without a mark

_TEMPERATURES = {
    "writing": 0.7,
    "roleplay": 0.7,
    "stem": 0.1,
    "humanities": 0.1,
    "extraction": 0.0,
    "math": 0.0,
    "coding": 0.0,
    "reasoning": 0.0,
}
_OTHER_TEMPERATURE = 0.7  # FastChat's default, as are those above
# (turn, with reference answers) → the prompt's official name, and what it must leave room for
_PROMPTS: Mapping[tuple[int, bool], tuple[str, frozenset[str]]] = {
    (1, False): ("single-v1", frozenset({"question", "answer"})),
    (1, True): ("single-math-v1", frozenset({"question", "answer", "ref_answer_1"})),
    (2, False): ("single-v1-multi-turn", frozenset({"question_1", "answer_1", "question_2", "answer_2"})),
    (2, True): (
        "single-math-v1-multi-turn",
        frozenset({"question_1", "answer_1", "ref_answer_1", "question_2", "answer_2", "ref_answer_2"}),
    ),
}
_PLACEHOLDER = re.compile(r"\{(question|answer|(?:question|answer|ref_answer)_[12])\}")


@dataclass(frozen=True, slots=True)
class JudgePrompt:
    """One official prompt: `template` has places for questions and answers."""

    name: str
    system: str
    template: str

    def messages(self, texts: Mapping[str, str]) -> tuple[Message, ...]:
        """Filled in one pass: a text that contains a place's name is shown as it is."""
        user = Message("user", _PLACEHOLDER.sub(lambda match: texts[match[1]], self.template))
        return (Message("system", self.system), user) if self.system else (user,)


@dataclass(frozen=True, slots=True)
class JudgePrompts:
    """The four prompts of single-answer grading."""

    by_name: Mapping[str, JudgePrompt]

    def of(self, *, turn: int, with_reference: bool) -> JudgePrompt:
        return self.by_name[_PROMPTS[turn, with_reference][0]]


@dataclass(frozen=True, slots=True)
class Grading:
    """One question to the judge: one turn of one model's answer. `answers` are that model's turns, all of them."""

    prompt: Prompt
    model: str
    turn: int
    prompt_name: str
    messages: tuple[Message, ...]
    answers: tuple[str, ...]

    @property
    def id(self) -> str:
        """Unique among the gradings of a benchmark, whatever models are graded."""
        return f"{self.model}/{self.prompt.id}/{self.turn}"

    @property
    def user_prompt(self) -> str:
        """What FastChat writes down of the question: byte for byte its own."""
        return self.messages[-1].content

    def request(self) -> Request:
        return Request(id=self.id, messages=self.messages, max_tokens=MAX_TOKENS, temperature=0.0)

    def read(self, reply: Reply) -> float | None:
        """The mark; None where the reply is no verdict, as one that was cut before its end."""
        if reply.ending in {"cut", "refused", "tool call"}:
            return None
        return read_mark(reply.text, judged_text="\n".join(self.answers))


def read_judge_prompts(path: Path) -> JudgePrompts:
    """The four prompts out of FastChat's `judge_prompts.jsonl`. Raises DataError for one that is not there or other."""
    rows = {text_field(row, "name", place=place): (place, row) for place, row in read_objects(path)}
    by_name = {}
    for name, places in _PROMPTS.values():
        if name not in rows:
            raise DataError(f"{path} has no prompt {name!r}; it has {', '.join(rows)}", remedy="give FastChat's file")
        place, row = rows[name]
        prompt = JudgePrompt(
            name, text_field(row, "system_prompt", place=place), text_field(row, "prompt_template", place=place)
        )
        places_there = set(_PLACEHOLDER.findall(prompt.template))
        if places_there != places:
            raise DataError(
                f"{place}: {name!r} has places for {', '.join(sorted(places_there)) or 'nothing'}, "
                f"not for {', '.join(sorted(places))}",
                remedy="give FastChat's file",
            )
        by_name[name] = prompt
    return JudgePrompts(by_name)


def gradings(benchmark: Benchmark, answers: Sequence[TurnAnswers], prompts: JudgePrompts) -> list[Grading]:
    """Every turn of every answer, first all first turns and then all second ones, in the benchmark's order.

    Answers of several models may come together. Raises DataError for a prompt of more than two turns, which has no
    official judge prompt, or without a number; for an answer to no prompt of the benchmark, or to other turns.
    """
    prompt_by_id = {prompt.id: (number, prompt) for number, prompt in enumerate(benchmark.prompts)}
    for answer in answers:
        if answer.prompt_id not in prompt_by_id:
            raise DataError(
                f"{answer.generator} answered {answer.prompt_id!r}, which {benchmark.name} does not ask",
                remedy="give answers to this benchmark",
            )
        _require_gradable(prompt_by_id[answer.prompt_id][1], answer)
    in_order = sorted(answers, key=lambda answer: prompt_by_id[answer.prompt_id][0])
    return [
        _grading(prompt_by_id[answer.prompt_id][1], answer, turn=turn, prompts=prompts)
        for turn in (1, 2)
        for answer in in_order
        if turn <= len(answer.turns)
    ]


def judgment_row(grading: Grading, *, judge: str, judgment: str, score: float | None, tstamp: float) -> dict[str, Any]:
    """One row of FastChat's `single` judgments, which `mt_bench.read_marks` and FastChat read."""
    return {
        "question_id": question_id(grading.prompt.id),
        "model": grading.model,
        "judge": [judge, grading.prompt_name],
        "user_prompt": grading.user_prompt,
        "judgment": judgment,
        "score": NO_SCORE if score is None else int(score) if score.is_integer() else score,
        "turn": grading.turn,
        "tstamp": tstamp,
    }


def temperature(prompt: Prompt) -> float:
    """At which MT-Bench samples an answer: the prompt's own, else its category's."""
    return (
        prompt.temperature if prompt.temperature is not None else _TEMPERATURES.get(prompt.dataset, _OTHER_TEMPERATURE)
    )


def _grading(prompt: Prompt, answer: TurnAnswers, *, turn: int, prompts: JudgePrompts) -> Grading:
    judge_prompt = prompts.of(turn=turn, with_reference=bool(prompt.reference))
    texts = {"question": prompt.instruction, "answer": answer.turns[0]}
    for number, (question, answer_text) in enumerate(zip(prompt.turns, answer.turns, strict=True), start=1):
        texts |= {f"question_{number}": question, f"answer_{number}": answer_text}
    texts |= {f"ref_answer_{number}": text for number, text in enumerate(prompt.reference, start=1)}
    return Grading(prompt, answer.generator, turn, judge_prompt.name, judge_prompt.messages(texts), answer.turns)


def _require_gradable(prompt: Prompt, answer: TurnAnswers) -> None:
    if not isinstance(question_id(prompt.id), int):
        raise DataError(
            f"question {prompt.id!r} has no number, and MT-Bench's judgments are filed by numbers",
            remedy="give each question a whole number as 'question_id'",
        )
    if len(prompt.turns) > 2:
        raise DataError(
            f"question {prompt.id} has {len(prompt.turns)} turns; MT-Bench's judge prompts are for one and two",
            remedy="ask at most two turns",
        )
    if len(answer.turns) != len(prompt.turns):
        raise DataError(
            f"{answer.generator} answered {len(answer.turns)} turns of question {prompt.id}, "
            f"which has {len(prompt.turns)}",
            remedy="answer every turn once",
        )
