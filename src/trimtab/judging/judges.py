"""The one-method seam that a judge is, judges that need no network, and a tiny fake.

A preference is a float in [1, 2]: 1 = the baseline's answer wins, 2 = the model's wins, 1.5 = a tie, in between a
probability; None = no verdict.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

Score = Callable[[str, str], float]
"""Quality of a text as the answer to the prompt of that id: (prompt id, text) → score, higher is better."""


class Judge(Protocol):
    """Compares two answers to one prompt. `name` is printed on every number it leads to."""

    @property
    def name(self) -> str: ...

    def preference(self, prompt_id: str, *, instruction: str, baseline: str, model: str) -> float | None: ...


@dataclass(frozen=True, slots=True)
class ScoredJudge:
    """The higher score wins and equal scores tie: an oracle without doubt."""

    name: str
    score: Score

    def preference(self, prompt_id: str, *, instruction: str, baseline: str, model: str) -> float:  # noqa: ARG002  the seam's signature
        lead = self.score(prompt_id, model) - self.score(prompt_id, baseline)
        return 1.5 + 0.5 * ((lead > 0) - (lead < 0))


@dataclass(frozen=True, slots=True)
class LengthBiasedJudge:
    """A judge of the usual kind: 1 + σ(scale · (score of model − score of baseline) + length_bias · longer).

    Bradley and Terry's probability plus a liking for length; `longer` is how many units the model's answer is longer
    by, `length` counts them (characters unless told otherwise), `scale` is in nats a unit of score, `length_bias` in
    nats a unit of length. With `length_bias` 0 it is an unbiased judge that knows doubt.
    """

    name: str
    score: Score
    length_bias: float
    scale: float = 1.0
    length: Callable[[str], int] = len

    def preference(self, prompt_id: str, *, instruction: str, baseline: str, model: str) -> float:  # noqa: ARG002  the seam's signature
        lead = self.scale * (self.score(prompt_id, model) - self.score(prompt_id, baseline))
        return 1.0 + _sigmoid(lead + self.length_bias * (self.length(model) - self.length(baseline)))


@dataclass(frozen=True, slots=True)
class FunctionJudge:
    """Any function (prompt id, baseline's answer, model's answer) → preference as a judge."""

    name: str
    function: Callable[[str, str, str], float | None]

    def preference(self, prompt_id: str, *, instruction: str, baseline: str, model: str) -> float | None:  # noqa: ARG002  the seam's signature
        return self.function(prompt_id, baseline, model)


@dataclass(frozen=True, slots=True)
class ScriptedJudge:
    """The fake: says what it was told for each prompt id, and nothing (None) about others."""

    preferences: Mapping[str, float | None]
    name: str = "scripted"

    def preference(self, prompt_id: str, *, instruction: str, baseline: str, model: str) -> float | None:  # noqa: ARG002  the seam's signature
        return self.preferences.get(prompt_id)


def _sigmoid(x: float) -> float:
    """σ(x) without overflow."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
