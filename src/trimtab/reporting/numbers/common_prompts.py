"""The prompts that every seed answered before and after training: what all numbers of a benchmark are made on.

Shapes: K seeds, N prompts (in the benchmark's order; NaN where a prompt has no value).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from trimtab.analysis import estimates, winrate
from trimtab.analysis.estimates import Change
from trimtab.analysis.intervals import FloatArray
from trimtab.records import Answer, Verdict
from trimtab.reporting.read import Run

Phase = Literal["before", "after"]
Measure = Callable[[Answer], float]


@dataclass(frozen=True, slots=True)
class CommonPrompts:
    """Runs that differ in their seed, and prompts in order."""

    runs: Sequence[Run]
    prompts: Sequence[str]

    @classmethod
    def of(cls, runs: Sequence[Run]) -> CommonPrompts:
        prompts = [p for p in runs[0].before if all(p in run.before and p in run.after for run in runs)]
        return cls(runs, prompts)

    @property
    def first(self) -> Run:
        return self.runs[0]

    @property
    def judges(self) -> list[str]:
        """Those that judged every seed, the truth first."""
        return [name for name in self.first.verdicts if all(name in run.verdicts for run in self.runs)]

    def family_of(self, prompt: str) -> str:
        return self.first.after[prompt].dataset or self.first.before[prompt].dataset

    def among(self, prompts: Sequence[str]) -> CommonPrompts:
        return CommonPrompts(self.runs, prompts)

    def scores_KN(self, judge: str) -> FloatArray:
        """One judge's scores of the aligned model, in [0, 1]."""
        return np.stack([self._scores_N(run.verdicts[judge]) for run in self.runs])

    def unaligned_scores_KN(self) -> FloatArray | None:
        """The chosen judge's scores of the unaligned model against a published baseline; None where it gave none."""
        if not self.first.published or not all(run.unaligned_verdicts for run in self.runs):
            return None
        return np.stack([self._scores_N(run.unaligned_verdicts) for run in self.runs])

    def table_KN(self, measure: Measure, phase: Phase) -> FloatArray:
        """`measure` of every answer before or after training."""
        sides = [run.before if phase == "before" else run.after for run in self.runs]
        return np.array([[measure(answers[p]) for p in self.prompts] for answers in sides], dtype=np.float64)

    def change(self, measure: Measure) -> Change:
        """Of a length, which is never negative, however far apart two seeds are."""
        change = estimates.change(self.table_KN(measure, "before"), self.table_KN(measure, "after"))
        return replace(change, before=change.before.within(0.0, math.inf), after=change.after.within(0.0, math.inf))

    def _scores_N(self, verdicts: Sequence[Verdict]) -> FloatArray:
        by_prompt = {verdict.prompt_id: verdict.preference for verdict in verdicts}
        return winrate.scores_from(by_prompt.get(prompt) for prompt in self.prompts)
