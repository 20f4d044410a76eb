"""The one-method seam that a judge is, a judge made of any function, and a tiny fake.

A preference is a float in [1, 2]: 1 = the baseline's answer wins, 2 = the model's wins, 1.5 = a tie, in between a
probability; None = no verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from trimtab.records import Message


@dataclass(frozen=True, slots=True)
class Comparison:
    """One comparison: what was instructed, and the two answers to it."""

    prompt_id: str
    instruction: str
    baseline: str
    model: str


@dataclass(frozen=True, slots=True)
class Submission:
    """One answer to be scored by itself. `row`: a JSON object of what else came with the prompt, or empty."""

    prompt: tuple[Message, ...]
    answer: str
    row: str = ""

    @property
    def text(self) -> str:
        """The prompt for those who read one text: the question alone, or a conversation with its speakers."""
        if len(self.prompt) == 1:
            return self.prompt[0].content
        return "\n\n".join(f"{message.role.capitalize()}: {message.content}" for message in self.prompt)


class AnswerScorer(Protocol):
    """Scores answers one by one; what has no score is None. `preference` makes a verdict of two scores to one prompt,
    the baseline's and the model's."""

    @property
    def name(self) -> str: ...

    def scores(self, submissions: Sequence[Submission], /) -> list[float | None]:
        """One score for every submission, in their order."""

    def preference(self, baseline: float, model: float, /) -> float:
        """In [1, 2]."""


def preferences_of(
    scorer: AnswerScorer, comparisons: Sequence[Comparison], *, rows: Mapping[str, str] = MappingProxyType({})
) -> list[float | None]:
    """Verdicts of a judge that scores answers one by one; None where one of the two has no score.

    rows: of the benchmark, as JSON objects by prompt id."""
    sides = [
        [(pair.instruction, answer, rows.get(pair.prompt_id, "")) for answer in (pair.baseline, pair.model)]
        for pair in comparisons
    ]
    texts = sorted({text for pair in sides for text in pair})
    submissions = [Submission((Message("user", prompt),), answer, row) for prompt, answer, row in texts]
    scores = dict(zip(texts, scorer.scores(submissions), strict=True))
    preferences: list[float | None] = []
    for baseline, model in ((scores[old], scores[new]) for old, new in sides):
        preferences.append(None if baseline is None or model is None else scorer.preference(baseline, model))
    return preferences


def by_sign(baseline: float, model: float) -> float:
    """The preference of scores that are right or wrong by themselves: the higher one wins."""
    return 1.5 + 0.5 * ((model > baseline) - (model < baseline))


class Judge(Protocol):
    """Compares two answers to each of many prompts. `name` is printed on every number it leads to.

    All comparisons come at once, so that a judge far away can be asked many things at the same time.
    """

    @property
    def name(self) -> str: ...

    def preferences(self, comparisons: Sequence[Comparison], /) -> list[float | None]:
        """One preference for every comparison, in their order."""


@dataclass(frozen=True, slots=True)
class FunctionJudge:
    """Any function (prompt id, baseline's answer, model's answer) → preference as a judge."""

    name: str
    function: Callable[[str, str, str], float | None]

    def preferences(self, comparisons: Sequence[Comparison], /) -> list[float | None]:
        return [self.function(pair.prompt_id, pair.baseline, pair.model) for pair in comparisons]


@dataclass(frozen=True, slots=True)
class ScriptedJudge:
    """The fake: gives the preference it has for each prompt id, and None for others."""

    preferences_by_prompt: Mapping[str, float | None]
    name: str = "scripted"

    def preferences(self, comparisons: Sequence[Comparison], /) -> list[float | None]:
        return [self.preferences_by_prompt.get(pair.prompt_id) for pair in comparisons]
