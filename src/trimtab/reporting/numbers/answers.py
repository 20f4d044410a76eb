"""What was answered: lengths, true scores where the world knows them, and both family by family.

Shapes: K seeds, N prompts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from trimtab.analysis import estimates
from trimtab.analysis.estimates import Change
from trimtab.records import Answer, Estimate
from trimtab.reporting.json_form import fields_form
from trimtab.reporting.numbers.common_prompts import CommonPrompts, Measure
from trimtab.reporting.numbers.paired_change import PairedChange, win_rate_change
from trimtab.reporting.read import Run

MOST_BINS = 18  # bars that a drawing of that width can hold
Unit = Literal["tokens", "characters"]


@dataclass(frozen=True, slots=True)
class Sides:
    """Shares of answers before and after training."""

    before: Estimate
    after: Estimate


@dataclass(frozen=True, slots=True)
class Histogram:
    """Shares of answers by length on the same bins; the last bin holds all that is longer."""

    edges: tuple[int, ...]
    before: tuple[float, ...]
    after: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class LengthNumbers:
    """`unit` is the one to speak of: tokens where every answer was counted, else characters (and `tokens` is None).

    `n_identical` of `n_compared` answers are the same before and after; `cut_off` at the limit, `empty`: shares.
    """

    unit: Unit
    tokens: Change | None
    characters: Change
    histogram: Histogram
    cut_off: Sides
    empty: Sides
    n_identical: int
    n_compared: int

    @property
    def by_unit(self) -> dict[Unit, Change]:
        tokens: dict[Unit, Change] = {} if self.tokens is None else {"tokens": self.tokens}
        return tokens | {"characters": self.characters}

    @property
    def change(self) -> Change:
        return self.by_unit[self.unit]

    def to_json(self) -> dict[str, object]:
        return fields_form(self, *(() if self.tokens else ("tokens",)))


@dataclass(frozen=True, slots=True)
class ScoreNumbers:
    """True mean score before and after, in [0, 1], and that of every family."""

    change: Change
    families: Mapping[str, Change]

    def to_json(self) -> dict[str, object]:
        families = [{"family": name} | change.to_json() for name, change in self.families.items()]
        return self.change.to_json() | {"families": families}


@dataclass(frozen=True, slots=True)
class FamilyNumbers:
    """Win rate in percent by every judge, change in characters, and, against a published baseline, what alignment
    changed by every judge, in points."""

    family: str
    n_prompts: int
    judges: Mapping[str, Estimate]
    changes: Mapping[str, PairedChange]
    characters: Change


def length_numbers(common: CommonPrompts) -> LengthNumbers:
    answers = [a for run in common.runs for a in (*run.before.values(), *run.after.values())]
    in_tokens = all(answer.n_tokens > 0 for answer in answers if answer.output)
    outputs = [(run.before[p].output, run.after[p].output) for run in common.runs for p in common.prompts]
    return LengthNumbers(
        unit="tokens" if in_tokens else "characters",
        tokens=common.change(n_tokens) if in_tokens else None,
        characters=common.change(n_characters),
        histogram=_histogram(common, n_tokens if in_tokens else n_characters),
        cut_off=_shares(common, lambda answer: not answer.finished),
        empty=_shares(common, lambda answer: not answer.output.strip()),
        n_identical=sum(before == after for before, after in outputs),
        n_compared=len(outputs),
    )


def n_tokens(answer: Answer) -> int:
    return answer.n_tokens


def n_characters(answer: Answer) -> int:
    return len(answer.output)


def _shares(common: CommonPrompts, holds: Callable[[Answer], bool]) -> Sides:
    before_KN, after_KN = (common.table_KN(holds, phase) for phase in ("before", "after"))
    return Sides(estimates.rate(before_KN), estimates.rate(after_KN))


def _histogram(common: CommonPrompts, measure: Measure) -> Histogram:
    before, after = (common.table_KN(measure, phase).ravel() for phase in ("before", "after"))
    top = float(np.percentile(np.concatenate([before, after]), 99))
    width = max(1, math.ceil((top + 1) / MOST_BINS))
    edges = [width * i for i in range(max(1, math.ceil((top + 1) / width)) + 1)]
    shares = (
        tuple(float(n) / len(lengths) for n in np.histogram(np.minimum(lengths, edges[-1] - 1), bins=edges)[0])
        for lengths in (before, after)
    )
    return Histogram(tuple(edges), *shares)


def score_numbers(runs: Sequence[Run]) -> ScoreNumbers | None:
    """None unless every seed knows the true scores of the same tasks."""
    scores = [run.scores for run in runs if run.scores is not None]
    if len(scores) < len(runs) or len({of_seed.families for of_seed in scores}) != 1 or not scores[0].model:
        return None
    before_KN = np.array([of_seed.baseline for of_seed in scores], dtype=np.float64)
    after_KN = np.array([of_seed.model for of_seed in scores], dtype=np.float64)
    families = np.array(scores[0].families)

    def change(name: str | None) -> Change:
        of = slice(None) if name is None else np.flatnonzero(families == name)
        return estimates.change(before_KN[:, of], after_KN[:, of], in_unit_interval=True)

    names = [name for name in dict.fromkeys(scores[0].families) if name]
    return ScoreNumbers(change(None), {name: change(name) for name in names})


def family_numbers(common: CommonPrompts, judges: Sequence[str]) -> list[FamilyNumbers]:
    """Families in the order of their first prompt; none below two."""
    members: dict[str, list[str]] = {}
    for prompt in common.prompts:
        members.setdefault(common.family_of(prompt), []).append(prompt)
    members.pop("", None)
    if len(members) < 2:
        return []
    return [_family(name, common.among(prompts), judges) for name, prompts in members.items()]


def _family(name: str, family: CommonPrompts, judges: Sequence[str]) -> FamilyNumbers:
    scores = {judge: family.scores_KN(judge) for judge in judges}
    unaligned_KN = family.unaligned_scores_KN()
    return FamilyNumbers(
        family=name,
        n_prompts=len(family.prompts),
        judges={judge: estimates.percent(scores_KN) for judge, scores_KN in scores.items()},
        changes={}
        if unaligned_KN is None
        else {judge: win_rate_change(scores_KN, unaligned_KN) for judge, scores_KN in scores.items()},
        characters=family.change(n_characters),
    )
