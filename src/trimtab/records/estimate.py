"""A number with its interval and what it was made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

Direction = Literal["above", "below", "not distinguishable", "unknown"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with what belongs to it: its 95 % interval, what it was made from, and how.

    `value` and `ci95` are in `unit`, and None where they could not be computed. `n` counts the rows behind the number
    (prompts, pairs, questions), `n_missing` those that had no value, `n_seeds` the seeds that were pooled;
    `seed_deviation` is the standard deviation of the seeds' own values, None where there is one seed.
    """

    value: float | None
    ci95: tuple[float, float] | None
    n: int
    method: str
    n_missing: int = 0
    n_seeds: int = 1
    unit: str = ""
    seed_deviation: float | None = None

    def scaled(self, factor: float, *, unit: str = "") -> Estimate:
        """The same estimate in another unit; `factor` must not be negative."""
        bounds = self.ci95
        return replace(
            self,
            value=None if self.value is None else factor * self.value,
            ci95=None if bounds is None else (factor * bounds[0], factor * bounds[1]),
            seed_deviation=None if self.seed_deviation is None else factor * self.seed_deviation,
            unit=unit,
        )

    def within(self, low: float, high: float) -> Estimate:
        """The same estimate where the number can only lie between `low` and `high`, and so can its interval."""
        if self.ci95 is None:
            return self
        return replace(self, ci95=(min(max(self.ci95[0], low), high), max(min(self.ci95[1], high), low)))

    def direction(self, even: float) -> Direction:
        """On which side of `even` the whole interval lies."""
        if self.value is None or self.ci95 is None:
            return "unknown"
        low, high = self.ci95
        return "above" if low > even else "below" if high < even else "not distinguishable"

    def to_json(self) -> dict[str, Any]:
        """Without the unit, which the key says; `seed_deviation` stands only where seeds were pooled."""
        tree: dict[str, Any] = {
            "value": self.value,
            "ci95": None if self.ci95 is None else list(self.ci95),
            "n": self.n,
            "n_missing": self.n_missing,
            "n_seeds": self.n_seeds,
            "method": self.method,
        }
        return tree if self.n_seeds == 1 else tree | {"seed_deviation": self.seed_deviation}

    @classmethod
    def from_json(cls, tree: Mapping[str, Any], *, unit: str = "") -> Estimate:
        bounds = tree["ci95"]
        return cls(
            value=tree["value"],
            ci95=None if bounds is None else (bounds[0], bounds[1]),
            n=tree["n"],
            method=tree["method"],
            n_missing=tree.get("n_missing", 0),
            n_seeds=tree.get("n_seeds", 1),
            unit=unit,
            seed_deviation=tree.get("seed_deviation"),
        )
