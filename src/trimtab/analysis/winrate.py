"""Raw win rates: exactly AlpacaEval 0.6.6 for the rate and its standard error, and an interval beside them.

A preference is a float in [1, 2]: 1 = the baseline wins, 2 = the model wins, 1.5 (or the legacy 0) = a tie.
Its score is preference − 1. Everything else (None, NaN, a number outside [1, 2]) is missing: counted, never scored.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from trimtab.analysis.intervals import FloatArray, Interval, finite, rate_interval

MOST_MISSING = 0.01  # of the prompts: more could hide a difference of the size that is looked for
Family = TypeVar("Family", bound=Hashable)


@dataclass(frozen=True, slots=True)
class WinRate:
    """Percent. `n_total` counts judged rows; `n_missing` those without a verdict, which no number here includes.

    `standard_error` is the sample deviation (ddof 1) over √n, NaN below two rows; `ci95` is Wilson's
    interval at the effective number of rows (`intervals.rate_interval`). `n_ties` counts preferences of exactly 1.5.
    """

    win_rate: float
    standard_error: float
    n_total: int
    n_missing: int
    n_wins: int
    n_losses: int
    n_ties: int
    ci95: Interval

    def to_json(self) -> dict[str, Any]:
        return {
            "win_rate": finite(self.win_rate),
            "standard_error": finite(self.standard_error),
            "n_total": self.n_total,
            "n_missing": self.n_missing,
            "n_wins": self.n_wins,
            "n_losses": self.n_losses,
            "n_ties": self.n_ties,
            "ci95": [finite(end) for end in self.ci95],
        }


def too_many_missing(n_missing: int, *, of: int) -> bool:
    """Whether so many of `of` verdicts are missing that no headline number is given: more than 1 %."""
    return n_missing > MOST_MISSING * of


def scores_from(preferences: Iterable[float | None]) -> FloatArray:
    """Preferences as scores in [0, 1], NaN where missing. Shape [N], row order kept."""
    raw = np.array([math.nan if p is None else float(p) for p in preferences], dtype=np.float64)
    raw = np.where(raw == 0, 1.5, raw)
    return np.where((raw >= 1) & (raw <= 2), raw - 1, math.nan)


def win_rate(preferences: Iterable[float | None]) -> WinRate:
    """Win rate of the model (output_2) over the baseline (output_1) from preferences in any order."""
    all_scores = scores_from(preferences)
    scores = all_scores[~np.isnan(all_scores)]
    n = len(scores)
    low, high = rate_interval(scores)
    return WinRate(
        win_rate=100 * float(scores.mean()) if n else math.nan,
        standard_error=100 * float(scores.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan,
        n_total=n,
        n_missing=len(all_scores) - n,
        n_wins=int((scores > 0.5).sum()),
        n_losses=int((scores < 0.5).sum()),
        n_ties=int((scores == 0.5).sum()),
        ci95=(100 * low, 100 * high),
    )


def by_family(preferences: Sequence[float | None], families: Sequence[Family]) -> dict[Family, WinRate]:
    """One win rate a family (data set, category, length bin), families in order of first appearance."""
    groups: dict[Family, list[float | None]] = {}
    for preference, family in zip(preferences, families, strict=True):
        groups.setdefault(family, []).append(preference)
    return {family: win_rate(members) for family, members in groups.items()}
