"""The oracle: the true quality of any answer, computed from the task alone and blind to length.

The response is read in four steps.

1. Filler sentences (`demonstrations.FILLER`) are taken out, wherever they stand. They neither help nor hurt; only the
   second telling of the same one is a defect. From here on nothing knows how much filler there was: this is what
   makes the oracle blind to padding by construction rather than by tuning.
2. What is left is split into sentences. Each is the task's answer sentence (with any values), a bare value, or a
   defect: off the point, broken off, or said before.
3. **correctness** is the share of the task's slots for which the response names the right value and no other value of
   that kind. Naming two values is naming none: listing candidates or contradicting oneself cannot pay.
4. **format** is 1 when the answer sentence is there in the asked form, else 0. **coherence** is ½ to the power of the
   number of defects (0 for an empty response); a contradiction counts as one.

    total = coherence · (0.85 · correctness + 0.15 · format)

Right and well said is 1, right but bare .85, said twice .5, well-formed and wrong .15, off the point 0.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from trimtab.windtunnel.demonstrations import FILLER
from trimtab.windtunnel.values import VALUES
from trimtab.windtunnel.world import Task

CORRECTNESS_WEIGHT: Final = 0.85  # of the true score: a wrong answer in perfect form must lose
FORMAT_WEIGHT: Final = 0.15  # enough to tell two right answers apart

_SENTENCE = re.compile(r"[^.!?\n]+[.!?]*|[.!?]+")
_WORD = re.compile(r"[A-Za-z]+|\d+")
_LIST = re.compile(r"\[([^\[\]]*)\]")
_FIELD = re.compile(r"\{(\w+)\}")
# Longest first, so that no filler hides inside another; not inside a word.
_FILLER = re.compile(r"(?<!\w)(?:" + "|".join(re.escape(f) for f in sorted(FILLER, key=len, reverse=True)) + r")(?!\w)")


@dataclass(frozen=True, slots=True)
class Score:
    """True quality, every part in [0, 1]."""

    correctness: float
    format: float
    coherence: float
    total: float


def score(task: Task, response: str) -> Score:
    """True quality of `response` to `task`. Pure; the number of words plays no part."""
    fillers: list[str] = _FILLER.findall(response)
    defects = len(fillers) - len(set(fillers))
    text = _FILLER.sub("\n", response)
    sentences = [" ".join(s.split()) for s in _SENTENCE.findall(text) if s.strip()]
    if not sentences:
        coherence = 0.5**defects if fillers else 0.0
        return Score(0.0, 0.0, coherence, 0.0)
    form = _form(task.template)
    sentences_before: set[str] = set()
    for sentence in sentences:
        if sentence in sentences_before or not (form.fullmatch(sentence) or _is_bare(task, sentence)):
            defects += 1
        sentences_before.add(sentence)
    values = [_values_of(kind, text, echo=task.echo) for kind, _ in task.slots]
    correctness = sum(n == {value} for n, (_, value) in zip(values, task.slots, strict=True)) / len(task.slots)
    defects += any(len(n) > 1 for n in values)
    in_form = float(any(form.fullmatch(sentence) for sentence in sentences))
    coherence = 0.5**defects
    total = coherence * (CORRECTNESS_WEIGHT * correctness + FORMAT_WEIGHT * in_form)
    return Score(correctness, in_form, coherence, total)


@lru_cache(maxsize=8192)
def _form(template: str) -> re.Pattern[str]:
    """The answer sentence with any values of the right kinds: 'It returns [{list}].' and the like as a pattern."""
    parts = _FIELD.split(template)  # literal, kind, literal, kind, ..., literal
    return re.compile("".join(_any_value(p) if i % 2 else re.escape(p) for i, p in enumerate(parts)))


def _any_value(kind: str) -> str:
    if kind in {"number", "count"}:
        return r"\d+"
    if kind == "list":
        animal = "(?:" + "|".join(VALUES["animal"]) + ")"
        return rf"{animal}(?:, {animal})*"
    return "(?:" + "|".join(VALUES[kind]) + ")"


def _values_of(kind: str, text: str, *, echo: str) -> set[str]:
    """The distinct values of one kind that a text names, outside what it repeats of the question."""
    if echo:
        text = text.replace(echo, " ")
    if kind == "list":
        return {", ".join(_WORD.findall(inner)) for inner in _LIST.findall(text)}
    words = _WORD.findall(text)
    if kind in {"number", "count"}:
        return {word for word in words if word.isdigit()}
    values = VALUES[kind]
    return {word for word in words if word in values}


def _is_bare(task: Task, sentence: str) -> bool:
    """A sentence of nothing but values that the task asks for ('12.', '[dog, cat]'): short, yet coherent."""
    words = _WORD.findall(sentence)
    kinds = [kind for kind, _ in task.slots]
    return bool(words) and all(any(_is_value(kind, word) for kind in kinds) for word in words)


def _is_value(kind: str, word: str) -> bool:
    if kind in {"number", "count"}:
        return word.isdigit()
    return word in VALUES["animal" if kind == "list" else kind]
