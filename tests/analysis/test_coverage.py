"""95 % intervals on simulated judgments whose truth is known: they must hold it in 93 to 97 of 100 trials.

Every case is 1,000 trials unless it says otherwise, so its share is known to about 0.7 points (one standard error).
`python tests/analysis/test_coverage.py` prints the whole table.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom, multinomial

from trimtab.analysis.intervals import FloatArray, Interval, difference_test, mean_test, rate_interval
from trimtab.analysis.length_control import _interval as controlled_interval
from trimtab.analysis.length_control import design_of, length_controlled
from trimtab.analysis.length_control_paired import Side, length_controlled_difference
from trimtab.analysis.winrate import win_rate

Draw = Callable[[np.random.Generator, int], FloatArray]
LOW, HIGH = 0.93, 0.97


def share(holds: Callable[[np.random.Generator, int], bool], *, trials: int = 1000, seed: int = 0) -> float:
    rng = np.random.default_rng(seed)
    return sum(holds(rng, trial) for trial in range(trials)) / trials


def within(interval: Interval, truth: float) -> bool:
    return interval[0] <= truth <= interval[1]


def sigmoid(z: FloatArray) -> FloatArray:
    return np.asarray(1 / (1 + np.exp(-z)), dtype=np.float64)


# --- win rates -------------------------------------------------------------------------------------------------------


def binary(p: float) -> tuple[Draw, float]:
    """A judge that says 1 or 2."""
    return lambda rng, n: (rng.random(n) < p).astype(float), p


def ties(p: float, tied: float) -> tuple[Draw, float]:
    """A judge that ties often."""
    return lambda rng, n: np.where(rng.random(n) < tied, 0.5, (rng.random(n) < p).astype(float)), (
        tied / 2 + (1 - tied) * p
    )


def continuous(a: float, b: float) -> tuple[Draw, float]:
    """A judge that gives probabilities."""
    return lambda rng, n: rng.beta(a, b, n), a / (a + b)


def sure(p: float) -> tuple[Draw, float]:
    """A judge read by log-probabilities: nearly always very sure (as AlpacaEval 2's), now and then in doubt."""

    def doubt(rng: np.random.Generator, n: int) -> FloatArray:
        return sigmoid(rng.normal(-6, 3, n))

    def draw(rng: np.random.Generator, n: int) -> FloatArray:
        wins, left = rng.random(n) < p, doubt(rng, n)
        return np.where(wins, 1 - left, left)

    mean_doubt = float(doubt(np.random.default_rng(99), 4_000_000).mean())
    return draw, p * (1 - mean_doubt) + (1 - p) * mean_doubt


RATES: dict[str, tuple[Draw, float]] = {
    "1 or 2, even": binary(0.5),
    "1 or 2, 26 % wins": binary(0.26),
    "1 or 2, 10 % wins": binary(0.1),
    "a third ties": ties(0.6, 0.3),
    "nine in ten tie": ties(0.6, 0.9),
    "probabilities in the middle": continuous(2, 2),
    "probabilities at the ends": continuous(0.3, 0.3),
    "sure, even": sure(0.5),
    "sure, 5 % wins": sure(0.05),
}


@pytest.mark.parametrize("n", [100, 805])
@pytest.mark.parametrize("case", RATES)
def test_win_rates(case: str, n: int) -> None:
    draw, truth = RATES[case]
    held = share(lambda rng, _: within(rate_interval(draw(rng, n)), truth), seed=n)
    assert LOW <= held <= HIGH


@pytest.mark.parametrize("case", RATES)
def test_twenty_prompts_are_enough_for_an_honest_interval(case: str) -> None:
    """Few outcomes are possible on twenty prompts, so the share jumps from one rate to the next: 91.5 or more."""
    draw, truth = RATES[case]
    assert share(lambda rng, _: within(rate_interval(draw(rng, 20)), truth)) >= LOW - 0.015


def test_the_win_rate_of_a_file_has_that_interval() -> None:
    preferences = [1.0, 2.0, 1.5, 1.9] * 30
    low, high = rate_interval(np.array(preferences) - 1)
    assert win_rate(preferences).ci95 == pytest.approx((100 * low, 100 * high))


# --- paired differences ----------------------------------------------------------------------------------------------


def coins(a: float, b: float) -> tuple[Draw, float]:
    """Two models judged 1 or 2, independently."""
    return lambda rng, n: (rng.random(n) < a).astype(float) - (rng.random(n) < b), a - b


def seldom(different: float, ahead: float) -> tuple[Draw, float]:
    """Two models that differ on few prompts, the first ahead on a share `ahead` of those."""

    def draw(rng: np.random.Generator, n: int) -> FloatArray:
        u = rng.random(n)
        return np.where(u < different * ahead, 1.0, np.where(u < different, -1.0, 0.0))

    return draw, different * (2 * ahead - 1)


def alike(lead: float) -> tuple[Draw, float]:
    """Probabilities of one judge for two models on prompts that are hard or easy for both."""

    def draw(rng: np.random.Generator, n: int) -> FloatArray:
        hard = rng.normal(0, 2, n)
        return sigmoid(hard + lead + rng.normal(0, 3, n)) - sigmoid(hard + rng.normal(0, 3, n))

    return draw, float(draw(np.random.default_rng(99), 4_000_000).mean())


PAIRS: dict[str, tuple[Draw, float]] = {
    "1 or 2, 55 against 50 %": coins(0.55, 0.5),
    "1 or 2, 95 against 90 %": coins(0.95, 0.9),
    "one prompt in ten differs": seldom(0.1, 0.75),
    "three in a hundred, all one way": seldom(0.03, 1.0),
    "probabilities, no difference": alike(0.0),
    "probabilities, a difference": alike(0.5),
}


def differs(draw: Draw, truth: float, n: int) -> Callable[[np.random.Generator, int], bool]:
    return lambda rng, _: within(difference_test(draw(rng, n)).ci95, truth)


@pytest.mark.parametrize("case", PAIRS)
def test_paired_differences(case: str) -> None:
    assert LOW <= share(differs(*PAIRS[case], n=100)) <= HIGH + 0.01


@pytest.mark.slow
@pytest.mark.parametrize("case", PAIRS)
def test_paired_differences_on_the_whole_benchmark(case: str) -> None:
    assert LOW <= share(differs(*PAIRS[case], n=805)) <= HIGH


# --- every rate, at few prompts --------------------------------------------------------------------------------------
#
# Issue 18, point 7: from ten prompts on, an interval holds the truth in at least 93 of 100 trials, averaged over each
# tenth of the rates from .005 to .995, and in at most 98 where n·min(p, 1 − p) ≥ 5. What can be counted is counted:
# the binomial's and the trinomial's outcomes are few, so their coverage is exact.

FEW = (10, 13, 20, 30)


def tenths(n_rates: int = 12) -> list[FloatArray]:
    edges = np.linspace(0.005, 0.995, 11)
    return [np.linspace(low, high, 2 * n_rates + 1)[1::2] for low, high in itertools.pairwise(edges)]


@pytest.mark.parametrize("n", FEW)
def test_every_rate_of_whole_verdicts_is_covered(n: int) -> None:
    bounds = [rate_interval(np.array([1.0] * k + [0.0] * (n - k))) for k in range(n + 1)]
    for rates in tenths():
        held = [sum(binom.pmf(k, n, p) for k in range(n + 1) if within(bounds[k], p)) for p in rates]
        assert np.mean(held) >= LOW
        assert all(h <= 0.98 for h, p in zip(held, rates, strict=True) if n * min(p, 1 - p) >= 5)


@pytest.mark.parametrize("n", [10, 13, 20])
def test_every_pair_of_whole_verdicts_is_covered(n: int) -> None:
    """Two models judged apart, of the same rate and against an even one: exact, from the trinomial."""
    tables = [(a, b) for a in range(n + 1) for b in range(n + 1 - a)]
    bounds = [difference_test(np.array([1.0] * a + [-1.0] * b + [0.0] * (n - a - b))).ci95 for a, b in tables]
    counts = np.array([(a, b, n - a - b) for a, b in tables])
    for other in (None, 0.5):
        for rates in tenths(4):
            held = []
            for p in rates:
                q = p if other is None else other
                chances = multinomial.pmf(counts, n, [p * (1 - q), q * (1 - p), p * q + (1 - p) * (1 - q)])
                held.append(chances[[within(ends, p - q) for ends in bounds]].sum())
            assert np.mean(held) >= LOW


def at_rate(kind: str, p: float) -> Draw | None:
    """Scores of mean p of a judge that ties often, gives probabilities, or is nearly always sure."""
    if kind == "ties":
        wins = (p - 0.15) / 0.7
        return ties(wins, 0.3)[0] if 0 <= wins <= 1 else None
    if kind == "probabilities at the ends":
        return continuous(0.6 * p, 0.6 * (1 - p))[0]
    rng = np.random.default_rng(98)
    doubt = sigmoid(rng.normal(-6, 3, 400_000))
    wins = (p - float(doubt.mean())) / (1 - 2 * float(doubt.mean()))
    if not 0 <= wins <= 1:
        return None

    def draw(rng: np.random.Generator, n: int) -> FloatArray:
        left = rng.choice(doubt, n)
        return np.where(rng.random(n) < wins, 1 - left, left)

    return draw


def held_by_tenth(kind: str, n: int, *, trials: int, n_rates: int) -> list[float]:
    shares = []
    for rates in tenths(n_rates):
        draws = [(at_rate(kind, p), p) for p in rates]
        known = [
            share(lambda rng, _, d=d, p=p: within(rate_interval(d(rng, n)), p), trials=trials) for d, p in draws if d
        ]  # type: ignore[misc]  # bound in the loop
        if len(known) == n_rates:
            shares.append(float(np.mean(known)))
    return shares


@pytest.mark.parametrize("kind", ["ties", "probabilities at the ends", "sure"])
def test_scores_between_are_covered_at_ten_prompts(kind: str) -> None:
    """A slice: 1,800 trials a tenth, known to .6 points; the slow test has the rest."""
    assert min(held_by_tenth(kind, 10, trials=600, n_rates=3)) >= LOW - 0.012


@pytest.mark.slow
@pytest.mark.parametrize("n", FEW)
@pytest.mark.parametrize("kind", ["ties", "probabilities at the ends", "sure"])
def test_scores_between_are_covered(kind: str, n: int) -> None:
    assert min(held_by_tenth(kind, n, trials=3000, n_rates=6)) >= LOW


@pytest.mark.parametrize("n", [10, 13, 30])
@pytest.mark.parametrize("case", ["normal", "exponential", "lengths"])
def test_means_of_few(case: str, n: int) -> None:
    """Means of 13 and 30 values were held in 89 and 93 of 100 trials by the percentile bootstrap."""
    draws: dict[str, tuple[Draw, float]] = {
        "normal": (lambda rng, n: rng.normal(size=n), 0.0),
        "exponential": (lambda rng, n: rng.exponential(size=n), 1.0),
        "lengths": (lambda rng, n: rng.lognormal(0, 0.5, n), math.exp(0.125)),
    }
    draw, truth = draws[case]
    held = share(lambda rng, _: within(mean_test(draw(rng, n)).ci95, truth), trials=3000)
    assert LOW <= held <= 0.98


# --- length control --------------------------------------------------------------------------------------------------

LENGTH, DIFFICULTY = -0.9, 0.9


def judged(
    rng: np.random.Generator, n: int, *, strength: float, kind: str, full: bool
) -> tuple[FloatArray, list[int], list[int], list[float] | None]:
    """Verdicts drawn from the length model itself: preferences, lengths of both answers, difficulties."""
    lengths_1 = np.round(rng.lognormal(6.5, 0.8, n)) + 1
    lengths_2 = np.round(lengths_1 * rng.lognormal(0.2, 0.6, n)) + 1
    gap = lengths_1 - lengths_2
    difficulty = rng.normal(0, 1.2, n) if full else np.zeros(n)
    p = sigmoid(LENGTH * np.tanh(gap / gap.std(ddof=1)) + DIFFICULTY * difficulty + strength)
    y = (rng.random(n) < p).astype(float) if kind == "binary" else rng.beta(0.3 * p, 0.3 * (1 - p))
    return y + 1, lengths_1.astype(int).tolist(), lengths_2.astype(int).tolist(), difficulty.tolist() if full else None


def regularising(rng: np.random.Generator, n: int = 805) -> dict[str, list[float]]:
    """The verbose and the concise baseline, with the same length effect and no strength of their own."""
    gap = np.concatenate([rng.normal(side, 0.6, n) for side in (-1.0, 1.0)])
    difficulty = rng.normal(0, 1.2, 2 * n)
    wins = rng.random(2 * n) < sigmoid(LENGTH * np.tanh(gap) + DIFFICULTY * difficulty)
    columns = {"preference": wins.astype(float), "std_delta_len": gap, "instruction_difficulty": difficulty}
    return {name: values.tolist() for name, values in columns.items()}


def true_rate(strength: float, *, full: bool) -> float:
    difficulty = np.random.default_rng(99).normal(0, 1.2, 4_000_000) if full else np.zeros(1)
    return 100 * float(sigmoid(DIFFICULTY * difficulty + strength).mean())


def controls(n: int, *, strength: float, kind: str, full: bool) -> Callable[..., bool]:
    regularisers = regularising(np.random.default_rng(5)) if full else None
    truth = true_rate(strength, full=full)

    def holds(rng: np.random.Generator, _: int) -> bool:
        preferences, lengths_1, lengths_2, difficulty = judged(rng, n, strength=strength, kind=kind, full=full)
        design = design_of(
            preferences, lengths_1=lengths_1, lengths_2=lengths_2, difficulty=difficulty, regularisers=regularisers
        )
        return within(controlled_interval(design, design.training_rows()), truth)

    return holds


def leads(n: int, *, strengths: tuple[float, float]) -> Callable[..., bool]:
    """Two models of different strength, with the same baseline answers, on the same prompts."""
    truth = true_rate(strengths[0], full=False) - true_rate(strengths[1], full=False)

    def holds(rng: np.random.Generator, _: int) -> bool:
        a, b = (judged(rng, n, strength=strength, kind="binary", full=False) for strength in strengths)
        sides = [Side(side[0].tolist(), side[1], side[2]) for side in (a, b)]
        return within(length_controlled_difference(sides[0], sides[1]).ci95, truth)

    return holds


CONTROLLED: dict[str, dict[str, Any]] = {
    "minimal, 1 or 2, ahead": {"strength": 0.7, "kind": "binary", "full": False},
    "minimal, sure, even": {"strength": 0.0, "kind": "sure", "full": False},
    "minimal, 1 or 2, far behind": {"strength": -2.5, "kind": "binary", "full": False},
    "full, 1 or 2, ahead": {"strength": 0.7, "kind": "binary", "full": True},
    "full, sure, far behind": {"strength": -2.5, "kind": "sure", "full": True},
}


@pytest.mark.parametrize("strength", [-3.5, 0.7, 3.5])
def test_length_control_in_short(strength: float) -> None:
    """σ(±3.5) is 3 and 97 %: the bootstrap held them in 45 of 100 trials of forty prompts. 300 trials, known to 1.3
    points; the slow test below has the thousand."""
    held = share(controls(40, strength=strength, kind="binary", full=False), trials=300)
    assert held >= LOW - 0.02


def test_the_interval_that_is_measured_here_is_the_one_that_is_told() -> None:
    preferences, lengths_1, lengths_2, _ = judged(
        np.random.default_rng(0), 300, strength=1.0, kind="binary", full=False
    )
    fit = length_controlled(preferences.tolist(), lengths_1=lengths_1, lengths_2=lengths_2)
    design = design_of(preferences, lengths_1=lengths_1, lengths_2=lengths_2, difficulty=None, regularisers=None)
    assert fit.lc_ci95 == controlled_interval(design, design.training_rows())


@pytest.mark.slow
@pytest.mark.parametrize("n", [12, 40, 100, 805])
@pytest.mark.parametrize("case", CONTROLLED)
def test_length_control(case: str, n: int) -> None:
    """A quarter of a second each with regularising rows: 300 trials there, known to 1.3 points, and 100 of 805 rows."""
    trials = 100 if n == 805 else 300 if CONTROLLED[case]["full"] else 1000
    assert share(controls(n, **CONTROLLED[case]), trials=trials) >= LOW - (0.02 if trials < 1000 else 0)


def always_longer(n: int, *, strength: float) -> tuple[float, float]:
    """Shares of 300 files whose interval holds the rate, and that have none, where no answer is as short as the
    baseline's: what is said of equal lengths is then said of what nobody saw."""
    rng = np.random.default_rng(n)
    held = without = 0
    for _ in range(300):
        lengths_1 = rng.integers(100, 200, n)
        lengths_2 = lengths_1 + rng.integers(50, 300, n)
        gap = (lengths_1 - lengths_2).astype(float)
        wins = rng.random(n) < sigmoid(LENGTH * np.tanh(gap / gap.std(ddof=1)) + strength)
        design = design_of(
            1.0 + wins, lengths_1=lengths_1.tolist(), lengths_2=lengths_2.tolist(), difficulty=None, regularisers=None
        )
        ends = controlled_interval(design, design.training_rows())
        without += math.isnan(ends[0])
        held += math.isnan(ends[0]) or within(ends, true_rate(strength, full=False))
    return held / 300, without / 300


@pytest.mark.parametrize("strength", [-1.0, 2.0])
def test_answers_that_are_always_longer(strength: float) -> None:
    """The bootstrap held the rate in 27 of 60 trials here."""
    held, _ = always_longer(40, strength=strength)
    assert held >= LOW - 0.02


@pytest.mark.slow
@pytest.mark.parametrize("n", [12, 40, 100])
@pytest.mark.parametrize("strengths", [(0.2, -0.3), (3.5, 3.5), (3.5, -1.0)])
def test_differences_with_length_controlled(n: int, strengths: tuple[float, float]) -> None:
    """Cross-validation shrinks each estimate, and the interval is widened to hold what that gives."""
    assert share(leads(n, strengths=strengths), trials=300) >= LOW - 0.01


def _table() -> None:
    """Print the share of every case."""
    for n in (20, 100, 805):
        for case, (draw, truth) in RATES.items():
            held = share(lambda rng, _, d=draw, t=truth, n=n: within(rate_interval(d(rng, n)), t), seed=n)  # type: ignore[misc]  # bound in the loop
            print(f"win rate            n {n:4d}  {case:34} {100 * held:.1f}", flush=True)
    for n in (100, 805):
        for case, pair in PAIRS.items():
            print(f"paired difference   n {n:4d}  {case:34} {100 * share(differs(*pair, n=n)):.1f}", flush=True)
    for n in (12, 40, 100):
        for case, world in CONTROLLED.items():
            print(f"length-controlled   n {n:4d}  {case:34} {100 * share(controls(n, **world)):.1f}", flush=True)


if __name__ == "__main__":
    _table()
