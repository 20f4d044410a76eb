"""Is A better than B? Paired on the prompts both answered, and what a number of prompts could have shown at all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from trimtab.analysis.intervals import FloatArray, Interval, bootstrap_interval, finite, sign_test
from trimtab.analysis.winrate import scores_from
from trimtab.errors import DataError
from trimtab.records import Verdict

NOT_DISTINGUISHABLE = "not distinguishable"
MIN_COMMON = 10
PAIRED_SD_POINTS = 42.3
"""Spread of paired differences, in points of win rate, when none was measured.

From a published comparison of two aligned models of one size: +1.93 [−0.99, +4.86] on 805 AlpacaEval prompts, so
(4.86 + 0.99) / (2 · 1.96) · √805.
"""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A minus B in points. `delta`, `ci95` over the `n_common` prompts on which both have a score.

    `ci95` is a percentile bootstrap of the paired mean difference; `p_value` an exact two-sided sign test over the
    prompts where they differ. `n_missing` counts prompts that lack a score on either side or are absent from one.
    """

    delta: float
    ci95: Interval
    p_value: float
    n_common: int
    wins_a: int
    wins_b: int
    ties: int
    verdict: str
    n_missing: int = 0

    def to_json(self) -> dict[str, Any]:
        return {
            "delta": finite(self.delta),
            "ci95": [finite(bound) for bound in self.ci95],
            "p_value": self.p_value,
            "n_common": self.n_common,
            "wins_a": self.wins_a,
            "wins_b": self.wins_b,
            "ties": self.ties,
            "verdict": self.verdict,
            "n_missing": self.n_missing,
        }


@dataclass(frozen=True, slots=True)
class Power:
    """What `n` prompts can show, for a true difference of `delta` points and a paired spread of `sd` points.

    `power`: chance that a two-sided 5 % test sees it. `detectable`: the difference seen with 80 % chance at this n.
    `n_needed`: prompts for 80 % chance at this delta.
    """

    n: int
    delta: float
    sd: float
    power: float
    detectable: float
    n_needed: int

    def to_json(self) -> dict[str, Any]:
        return {
            "n": self.n,
            "delta": self.delta,
            "sd": self.sd,
            "power": self.power,
            "detectable": self.detectable,
            "n_needed": self.n_needed,
        }


def compare(
    a: Mapping[str, float | None],
    b: Mapping[str, float | None],
    *,
    seed: int = 0,
    n_boot: int = 10_000,
    scale: float = 100.0,
    names: tuple[str, str] = ("A", "B"),
) -> Comparison:
    """Compare scores by prompt id, paired; `scale` turns a score into points (100 for scores in [0, 1], 1 for marks).

    The verdict names the better one only if the interval leaves zero out and at least ten prompts are common.
    Raises DataError when no prompt is common.
    """
    common = [prompt for prompt in a if prompt in b]
    pairs = np.array([[_number(a[p]), _number(b[p])] for p in common], dtype=np.float64).reshape(-1, 2)
    pairs = pairs[~np.isnan(pairs).any(axis=1)]
    if not len(pairs):
        raise DataError(
            f"{names[0]} and {names[1]} have no judged prompt in common",
            remedy="compare two models on the same benchmark, judged by the same judge",
        )
    differences: FloatArray = pairs[:, 0] - pairs[:, 1]
    low, high = bootstrap_interval(differences, seed=seed, n_boot=n_boot)
    wins_a, wins_b = int((differences > 0).sum()), int((differences < 0).sum())
    n = len(differences)
    return Comparison(
        delta=scale * float(differences.mean()),
        ci95=(scale * low, scale * high),
        p_value=sign_test(wins_a, wins_b),
        n_common=n,
        wins_a=wins_a,
        wins_b=wins_b,
        ties=n - wins_a - wins_b,
        verdict=_verdict(low, high, n=n, names=names),
        n_missing=len(a.keys() | b.keys()) - n,
    )


def compare_verdicts(
    a: Sequence[Verdict], b: Sequence[Verdict], *, seed: int = 0, names: tuple[str, str] = ("A", "B")
) -> Comparison:
    """`compare` on two judged sets. Raises DataError unless judge and baseline answers are the same on both sides."""
    _require_same(a, b, names=names)
    return compare(_scores_by_prompt(a), _scores_by_prompt(b), seed=seed, names=names)


def power(n: int, *, delta: float, sd: float = PAIRED_SD_POINTS) -> Power:
    """Normal approximation for a paired mean: with se = sd/√n and z = 1.96,

        power = Φ(|δ|/se − z) + Φ(−|δ|/se − z),   detectable = (z + Φ⁻¹(.8))·se,   n_needed = ((z + Φ⁻¹(.8))·sd/δ)²

    the latter two leave out the far tail. Raises DataError for n < 1, sd ≤ 0 or delta = 0.
    """
    if n < 1 or sd <= 0 or delta == 0 or not math.isfinite(delta * sd):
        raise DataError(
            f"power needs at least one prompt, a spread and a difference; got n = {n}, sd = {sd}, delta = {delta}",
            remedy="for example n = 805 and delta = 2.0 (points of win rate)",
        )
    normal = NormalDist()
    z = normal.inv_cdf(0.975)
    reach = z + normal.inv_cdf(0.8)
    shift = abs(delta) * math.sqrt(n) / sd
    return Power(
        n=n,
        delta=delta,
        sd=sd,
        power=normal.cdf(shift - z) + normal.cdf(-shift - z),
        detectable=reach * sd / math.sqrt(n),
        n_needed=math.ceil((reach * sd / delta) ** 2),
    )


def _verdict(low: float, high: float, *, n: int, names: tuple[str, str]) -> str:
    if n < MIN_COMMON:
        return f"{NOT_DISTINGUISHABLE} (only {n} common prompts)"
    if low > 0:
        return f"{names[0]} is better"
    if high < 0:
        return f"{names[1]} is better"
    return NOT_DISTINGUISHABLE


def _require_same(a: Sequence[Verdict], b: Sequence[Verdict], *, names: tuple[str, str]) -> None:
    for what, kinds_a, kinds_b in (
        ("judged by", {v.annotator for v in a}, {v.annotator for v in b}),
        ("judged against", {v.generator_1 for v in a}, {v.generator_1 for v in b}),
    ):
        if kinds_a != kinds_b:
            raise DataError(
                f"{names[0]} was {what} {_listed(kinds_a)}, {names[1]} by another: {_listed(kinds_b)}"
                if what == "judged by"
                else f"{names[0]} was {what} {_listed(kinds_a)}, {names[1]} against {_listed(kinds_b)}",
                remedy="judge both with the same judge against the same baseline answers",
            )
    baseline = {v.prompt_id: v.output_1 for v in a}
    differing = [v.prompt_id for v in b if baseline.get(v.prompt_id, v.output_1) != v.output_1]
    if differing:
        raise DataError(
            f"the baseline answered {len(differing)} common prompts differently in {names[0]} and {names[1]}, "
            f"first {differing[0]!r}",
            remedy="judge both against the same baseline answers",
        )


def _scores_by_prompt(verdicts: Sequence[Verdict]) -> dict[str, float | None]:
    scores = scores_from(v.preference for v in verdicts)
    return {v.prompt_id: float(score) for v, score in zip(verdicts, scores, strict=True)}


def _number(score: float | None) -> float:
    return math.nan if score is None else float(score)


def _listed(kinds: set[str]) -> str:
    return ", ".join(sorted(kind or "(unnamed)" for kind in kinds)) or "nobody"
