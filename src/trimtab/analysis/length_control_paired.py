"""The difference of two models' length-controlled win rates against one baseline, paired by prompt."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trimtab.analysis.intervals import NO_INTERVAL, Z_95, Interval, finite
from trimtab.analysis.length_control import Design, LengthControlled, design_of, length_controlled, rate_influence
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

    `ci95` is made from both rates' own intervals and the correlation of their errors over the prompts (MOVER: Zou and
    Donner 2008, Statistics in Medicine 27:1693; Newcombe 1998, 17:2635), so that it is never narrower than they allow:

        low = delta − √(l_a² − 2ρ·l_a·u_b + u_b²),   l_a = rate_a − low_a,  u_b = high_b − rate_b,   high likewise

    NaN where a side has none. `standard_error` is the interval's half width over 1.96.
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
            "ci95": [finite(end) for end in self.ci95],
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
    regularisers: Mapping[str, Sequence[float]] | None = None,
) -> ControlledDifference:
    """A minus B. Raises DataError when the two sides differ in rows."""
    n = len(a.preferences)
    if n != len(b.preferences):
        raise DataError(
            f"{n} and {len(b.preferences)} verdicts cannot be paired",
            remedy="give both models' verdicts on the same prompts, in the same order",
        )
    fits = [_fit(side, difficulty, regularisers) for side in (a, b)]
    correlation = 0.0
    if not any(math.isnan(fit.lc_ci95[0]) for fit in fits):
        correlation = _correlation(*(_design(side, difficulty, regularisers) for side in (a, b)))
    rate_a, rate_b = (fit.length_controlled_winrate for fit in fits)
    ci95 = _difference_interval(fits[0], fits[1], correlation)
    return ControlledDifference(
        delta=rate_a - rate_b,
        ci95=ci95,
        standard_error=(ci95[1] - ci95[0]) / (2 * Z_95),
        rate_a=rate_a,
        rate_b=rate_b,
        variant=fits[0].variant,
        n_rows=n,
        notes=tuple(dict.fromkeys(note for fit in fits for note in fit.notes)),
    )


def _difference_interval(a: LengthControlled, b: LengthControlled, correlation: float) -> Interval:
    """Points, within ±100; NaN where a side has no interval."""
    rate_a, rate_b = a.length_controlled_winrate, b.length_controlled_winrate
    if math.isnan(a.lc_ci95[0]) or math.isnan(b.lc_ci95[0]):
        return NO_INTERVAL
    (below_a, above_a), (below_b, above_b) = (
        (rate - low, high - rate) for rate, (low, high) in ((rate_a, a.lc_ci95), (rate_b, b.lc_ci95))
    )
    delta = rate_a - rate_b
    low = delta - _mover_reach(below_a, above_b, correlation)
    high = delta + _mover_reach(above_a, below_b, correlation)
    return max(-100.0, low), min(100.0, high)


def _mover_reach(x: float, y: float, correlation: float) -> float:
    return math.sqrt(max(0.0, x * x - 2 * correlation * x * y + y * y))


def _correlation(a: Design, b: Design) -> float:
    """Of both rates' errors, by how much each row moves them; as if z² rows more had nothing in common, so that the
    same verdicts twice still leave room for a prompt on which they would have differed."""
    influence_a, influence_b = rate_influence(a), rate_influence(b)
    size = math.sqrt(float(influence_a @ influence_a) * float(influence_b @ influence_b))
    n = len(influence_a)
    return 0.0 if size == 0 else float(influence_a @ influence_b) / size * n / (n + Z_95**2)


def _design(
    side: Side, difficulty: Sequence[float] | None, regularisers: Mapping[str, Sequence[float]] | None
) -> Design:
    return design_of(
        side.preferences,
        lengths_1=side.lengths_1,
        lengths_2=side.lengths_2,
        difficulty=difficulty,
        regularisers=regularisers,
    )


def _fit(
    side: Side, difficulty: Sequence[float] | None, regularisers: Mapping[str, Sequence[float]] | None
) -> LengthControlled:
    return length_controlled(
        side.preferences,
        lengths_1=side.lengths_1,
        lengths_2=side.lengths_2,
        difficulty=difficulty,
        regularisers=regularisers,
    )
