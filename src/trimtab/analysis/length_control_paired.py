"""The difference of two models' length-controlled win rates against one baseline, paired by prompt."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trimtab.analysis.intervals import NO_INTERVAL, Interval, finite, student_t
from trimtab.analysis.length_control import LengthControlled, bootstrap_rates, design_of, length_controlled, unshrunk
from trimtab.errors import DataError


@dataclass(frozen=True, slots=True)
class Side:
    """One model's verdicts on the common prompts: preferences and lengths (characters) of both answers, a row each."""

    preferences: Sequence[float | None]
    lengths_1: Sequence[int]
    lengths_2: Sequence[int]


@dataclass(frozen=True, slots=True)
class ControlledDifference:
    """Points. `delta` = `rate_a` − `rate_b`, each cross-validated as published; NaN where one could not be had.

    `ci95` resamples the prompts for both models together and refits both without shrinking: t interval from the
    bootstrap's deviation, widened to `delta` where that was shrunk out of it.
    """

    delta: float
    ci95: Interval
    standard_error: float
    rate_a: float
    rate_b: float
    variant: str
    n_rows: int
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "delta": finite(self.delta),
            "ci95": [finite(bound) for bound in self.ci95],
            "a": finite(self.rate_a),
            "b": finite(self.rate_b),
            "variant": self.variant,
            "n_rows": self.n_rows,
            "notes": list(self.notes),
        }


def length_controlled_difference(
    a: Side,
    b: Side,
    *,
    difficulty: Sequence[float] | None = None,
    gamed: Mapping[str, Sequence[float]] | None = None,
    seed: int = 0,
    n_boot: int = 400,
) -> ControlledDifference:
    """A minus B. Raises DataError when the two sides differ in rows."""
    if len(a.preferences) != len(b.preferences):
        raise DataError(
            f"{len(a.preferences)} and {len(b.preferences)} verdicts cannot be paired",
            remedy="give both models' verdicts on the same prompts, in the same order",
        )
    fits = [_fit(side, difficulty, gamed) for side in (a, b)]
    rate_a, rate_b = (fit.length_controlled_winrate for fit in fits)
    notes = tuple(dict.fromkeys(note for fit in fits for note in fit.notes))
    delta = rate_a - rate_b
    if math.isnan(delta):
        return ControlledDifference(
            delta, NO_INTERVAL, math.nan, rate_a, rate_b, fits[0].variant, len(a.preferences), notes
        )
    designs = [
        design_of(
            side.preferences, lengths_1=side.lengths_1, lengths_2=side.lengths_2, difficulty=difficulty, gamed=gamed
        )
        for side in (a, b)
    ]
    rates_a, rates_b = (bootstrap_rates(design, seed=seed, n_boot=n_boot) for design in designs)
    error = float(np.std(rates_a - rates_b, ddof=1))
    centre = unshrunk(designs[0]) - unshrunk(designs[1])
    reach = student_t(len(a.preferences) - (2 if difficulty is None else 3)) * error
    ci95 = (min(centre - reach, delta), max(centre + reach, delta))
    return ControlledDifference(delta, ci95, error, rate_a, rate_b, fits[0].variant, len(a.preferences), notes)


def _fit(
    side: Side, difficulty: Sequence[float] | None, gamed: Mapping[str, Sequence[float]] | None
) -> LengthControlled:
    return length_controlled(
        side.preferences,
        lengths_1=side.lengths_1,
        lengths_2=side.lengths_2,
        difficulty=difficulty,
        gamed=gamed,
        n_boot=0,
    )
