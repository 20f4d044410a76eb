"""Is A better than B? Paired on the prompts both answered, and what a number of prompts could have shown at all."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from trimtab.analysis import seeds
from trimtab.analysis.intervals import (
    NO_INTERVAL,
    FloatArray,
    Interval,
    MeanTest,
    difference_test,
    finite,
    paired_mean_test,
)
from trimtab.analysis.winrate import scores_from
from trimtab.errors import DataError
from trimtab.records import Verdict

NOT_DISTINGUISHABLE = "not distinguishable"
MIN_COMMON = 10  # below, a handful of prompts decides nothing
PAIRED_SD_POINTS = 42.3
"""Spread of paired differences, in points of win rate, when none was measured.

From a published comparison of two aligned models of one size: +1.93 [−0.99, +4.86] on 805 AlpacaEval prompts, so
(4.86 + 0.99) / (2 · 1.96) · √805.
"""


SCORE_TEST = "score test over prompts (McNemar's where verdicts are whole)"
STUDENT_TEST = "t test over prompts, corrected for skewness"
T_TEST = "t test over prompts and seeds"
SCORE_INTERVAL = "score interval of paired prompts (Tango), at their effective number"
STUDENT_INTERVAL = "Student's t over paired prompts, corrected for skewness"

Scores = Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A minus B in points. `delta`, `ci95` over the `n_common` prompts on which both have a score.

    One hypothesis (the mean difference is zero), one test: `p_value` is below .05 exactly where `ci95` leaves zero out,
    and then, and only then, the verdict names the better side. With one run a side it is `intervals.difference_test`
    (`mean_test` for values without bounds), with several seeds the two-way model of `analysis.seeds`, which speaks of
    new seeds on new prompts. Neither is given below `MIN_COMMON` prompts. `wins_*` and `ties` count prompts, by the
    mean over the seeds. `n_missing` counts prompts that lack a score on either side or are absent from one.
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
    mean_a: float = math.nan
    mean_b: float = math.nan
    n_seeds: int = 1
    is_bounded: bool = True

    @property
    def method(self) -> str:
        """How the interval was made."""
        if self.n_seeds > 1:
            return seeds.METHOD
        return SCORE_INTERVAL if self.is_bounded else STUDENT_INTERVAL

    @property
    def test(self) -> str:
        """What the p-value is of."""
        if self.n_seeds > 1:
            return T_TEST
        return SCORE_TEST if self.is_bounded else STUDENT_TEST

    def to_json(self) -> dict[str, Any]:
        return {
            "delta": finite(self.delta),
            "ci95": [finite(end) for end in self.ci95],
            "p_value": finite(self.p_value),
            "n_common": self.n_common,
            "wins_a": self.wins_a,
            "wins_b": self.wins_b,
            "ties": self.ties,
            "verdict": self.verdict,
            "n_missing": self.n_missing,
            "mean_a": finite(self.mean_a),
            "mean_b": finite(self.mean_b),
            "n_seeds": self.n_seeds,
            "method": self.method,
            "test": self.test,
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
    a: Scores | Sequence[Scores],
    b: Scores | Sequence[Scores],
    *,
    scale: float = 100.0,
    top: float | None = 1.0,
    names: tuple[str, str] = ("A", "B"),
) -> Comparison:
    """Compare scores by prompt id, paired; `scale` turns a score into points (100 for scores in [0, 1], 1 for marks).
    Scores lie in [0, `top`]; None for values without bounds, such as lengths.

    A side is one run's scores or a list of them, one a training seed: the k-th of A is set beside the k-th of B, and a
    side of one run beside every seed of the other. The verdict names the better one only if the interval leaves zero
    out and at least ten prompts are common. Raises DataError when no prompt is common, or the seeds cannot be paired.
    """
    runs_a, runs_b = (_runs(side) for side in (a, b))
    n_seeds = max(len(runs_a), len(runs_b))
    if min(len(runs_a), len(runs_b)) not in (1, n_seeds):
        raise DataError(
            f"{names[0]} has {len(runs_a)} seeds and {names[1]} {len(runs_b)}",
            remedy="compare as many seeds of one as of the other, or a single run",
        )
    runs_a, runs_b = (runs * n_seeds if len(runs) == 1 else runs for runs in (runs_a, runs_b))
    prompts = list(dict.fromkeys(prompt for run in (*runs_a, *runs_b) for prompt in run))
    a_KN, b_KN = (
        np.array([[_number(run.get(prompt)) for prompt in prompts] for run in runs], dtype=np.float64)
        for runs in (runs_a, runs_b)
    )
    has_scores_N = ~np.isnan(a_KN - b_KN).any(axis=0)
    if not has_scores_N.any():
        raise DataError(
            f"{names[0]} and {names[1]} have no judged prompt in common",
            remedy="compare two models on the same benchmark, judged by the same judge",
        )
    a_KN, b_KN = a_KN[:, has_scores_N], b_KN[:, has_scores_N]
    differences_KN = a_KN - b_KN
    per_prompt_N: FloatArray = differences_KN.mean(axis=0)
    wins_a, wins_b = int((per_prompt_N > 0).sum()), int((per_prompt_N < 0).sum())
    n = len(per_prompt_N)
    test = _test(differences_KN, top=top) if n >= MIN_COMMON else MeanTest(NO_INTERVAL, math.nan)
    low, high = test.ci95
    return Comparison(
        delta=scale * float(per_prompt_N.mean()),
        ci95=(scale * low, scale * high),
        p_value=test.p_value,
        n_common=n,
        wins_a=wins_a,
        wins_b=wins_b,
        ties=n - wins_a - wins_b,
        verdict=_verdict(low, high, n=n, names=names),
        n_missing=len(prompts) - n,
        mean_a=scale * float(a_KN.mean()),
        mean_b=scale * float(b_KN.mean()),
        n_seeds=n_seeds,
        is_bounded=top is not None,
    )


def _test(differences_KN: FloatArray, *, top: float | None) -> MeanTest:
    """Of a mean difference of zero, with the interval in the unit of the differences."""
    if top is None:
        if len(differences_KN) == 1:
            return paired_mean_test(differences_KN[0])
        pool = seeds.pooled_mean(differences_KN)
        return MeanTest(pool.ci95, pool.p_value)
    shares_KN = differences_KN / top
    test: MeanTest | seeds.Pooled
    test = difference_test(shares_KN[0]) if len(shares_KN) == 1 else seeds.pooled_difference(shares_KN)
    low, high = test.ci95
    return MeanTest((top * low, top * high), test.p_value)


def compare_groups(
    a: Sequence[Scores],
    b: Sequence[Scores],
    groups: Mapping[str, str],
    *,
    scale: float = 100.0,
    top: float | None = 1.0,
) -> dict[str, Comparison]:
    """`compare` within every group (data set, category), by prompt id; groups without a common prompt are left out."""
    by_group = {}
    for group in dict.fromkeys(groups.values()):
        inside = [
            [{prompt: score for prompt, score in run.items() if groups.get(prompt) == group} for run in side]
            for side in (a, b)
        ]
        with contextlib.suppress(DataError):
            by_group[group] = compare(*inside, scale=scale, top=top)
    return by_group


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
        return f"{NOT_DISTINGUISHABLE} (only {n} common prompt{'' if n == 1 else 's'})"
    if low > 0:
        return f"{names[0]} is better"
    if high < 0:
        return f"{names[1]} is better"
    return NOT_DISTINGUISHABLE


def require_same_judging(a: Sequence[Verdict], b: Sequence[Verdict], *, names: tuple[str, str]) -> None:
    """Raises DataError unless both were judged by the same judge against the same answers of the same baseline."""
    for relation, kinds_a, kinds_b in (
        ("judged by", {v.annotator for v in a}, {v.annotator for v in b}),
        ("judged against", {v.generator_1 for v in a}, {v.generator_1 for v in b}),
    ):
        if kinds_a != kinds_b:
            raise DataError(
                f"{names[0]} was {relation} {_name_list(kinds_a)}, {names[1]} by another: {_name_list(kinds_b)}"
                if relation == "judged by"
                else f"{names[0]} was {relation} {_name_list(kinds_a)}, {names[1]} against {_name_list(kinds_b)}",
                remedy="judge both with the same judge against the same baseline answers",
            )
    baseline = {v.prompt_id: v.output_1 for v in a}
    differences = [v.prompt_id for v in b if baseline.get(v.prompt_id, v.output_1) != v.output_1]
    if differences:
        raise DataError(
            f"the baseline answered {len(differences)} common prompts differently in {names[0]} and {names[1]}, "
            f"first {differences[0]!r}",
            remedy="judge both against the same baseline answers",
        )


def scores_by_prompt(verdicts: Sequence[Verdict]) -> dict[str, float | None]:
    """Scores in [0, 1] by prompt id, NaN where there is no verdict."""
    scores = scores_from(v.preference for v in verdicts)
    return {v.prompt_id: float(score) for v, score in zip(verdicts, scores, strict=True)}


def is_judged(verdict: Verdict) -> bool:
    """Whether a verdict counts: a preference in [1, 2], or the legacy 0 for a tie."""
    return not math.isnan(float(scores_from([verdict.preference])[0]))


def _runs(side: Scores | Sequence[Scores]) -> list[Scores]:
    return [side] if isinstance(side, Mapping) else list(side)


def _number(score: float | None) -> float:
    return math.nan if score is None else float(score)


def _name_list(kinds: set[str]) -> str:
    return ", ".join(sorted(kind or "(unnamed)" for kind in kinds)) or "nobody"
