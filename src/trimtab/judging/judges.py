"""The one-method seam that a judge is, a judge made of any function, and a tiny fake.

A preference is a float in [1, 2]: 1 = the baseline's answer wins, 2 = the model's wins, 1.5 = a tie, in between a
probability; None = no verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Comparison:
    """One comparison: what was instructed, and the two answers to it."""

    prompt_id: str
    instruction: str
    baseline: str
    model: str


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
