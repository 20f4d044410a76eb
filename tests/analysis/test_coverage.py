"""95 % intervals on simulated judgments whose truth is known: they must hold it in 93 to 97 of 100 trials.

Every case is 1,000 trials unless it says otherwise, so its share is known to about 0.7 points (one standard error).
`python tests/analysis/test_coverage.py` prints the whole table.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from trimtab.analysis.comparison import compare
from trimtab.analysis.intervals import FloatArray, Interval, rate_interval
from trimtab.analysis.length_control import _interval as controlled_interval
from trimtab.analysis.length_control import bootstrap_rates, design_of, length_controlled
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


def differs(draw: Draw, truth: float, n: int, *, n_boot: int = 400) -> Callable[[np.random.Generator, int], bool]:
    def holds(rng: np.random.Generator, trial: int) -> bool:
        a = {str(i): float(score) for i, score in enumerate(draw(rng, n))}
        found = compare(a, dict.fromkeys(a, 0.0), seed=trial, n_boot=n_boot)
        return within(found.ci95, 100 * truth)

    return holds


@pytest.mark.parametrize("case", PAIRS)
def test_paired_differences(case: str) -> None:
    assert LOW <= share(differs(*PAIRS[case], n=100)) <= HIGH


@pytest.mark.slow
@pytest.mark.parametrize("case", PAIRS)
def test_paired_differences_on_the_whole_benchmark(case: str) -> None:
    assert LOW <= share(differs(*PAIRS[case], n=805)) <= HIGH


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


def controls(n: int, *, strength: float, kind: str, full: bool, n_boot: int) -> Callable[..., bool]:
    gamed = regularising(np.random.default_rng(5)) if full else None
    truth = true_rate(strength, full=full)

    def holds(rng: np.random.Generator, trial: int) -> bool:
        preferences, lengths_1, lengths_2, difficulty = judged(rng, n, strength=strength, kind=kind, full=full)
        design = design_of(preferences, lengths_1=lengths_1, lengths_2=lengths_2, difficulty=difficulty, gamed=gamed)
        return within(controlled_interval(design, bootstrap_rates(design, seed=trial, n_boot=n_boot)), truth)

    return holds


def leads(n: int, *, kind: str, n_boot: int) -> Callable[..., bool]:
    """Two models of different strength, with the same baseline answers, on the same prompts."""
    truth = true_rate(0.2, full=False) - true_rate(-0.3, full=False)

    def holds(rng: np.random.Generator, trial: int) -> bool:
        a, b = (judged(rng, n, strength=strength, kind=kind, full=False) for strength in (0.2, -0.3))
        sides = [Side(side[0].tolist(), side[1], side[2]) for side in (a, b)]
        return within(length_controlled_difference(sides[0], sides[1], seed=trial, n_boot=n_boot).ci95, truth)

    return holds


CONTROLLED: dict[str, dict[str, Any]] = {
    "minimal, 1 or 2, ahead": {"strength": 0.7, "kind": "binary", "full": False},
    "minimal, sure, even": {"strength": 0.0, "kind": "sure", "full": False},
    "minimal, 1 or 2, far behind": {"strength": -2.5, "kind": "binary", "full": False},
    "full, 1 or 2, ahead": {"strength": 0.7, "kind": "binary", "full": True},
    "full, sure, far behind": {"strength": -2.5, "kind": "sure", "full": True},
}


def test_length_control_in_short() -> None:
    """200 trials, so known to 1.5 points; the slow test below has the thousand."""
    held = share(controls(100, n_boot=100, **CONTROLLED["minimal, 1 or 2, ahead"]), trials=200)
    assert 0.91 <= held <= 0.99


def test_the_interval_that_is_measured_here_is_the_one_that_is_told() -> None:
    preferences, lengths_1, lengths_2, _ = judged(
        np.random.default_rng(0), 300, strength=1.0, kind="binary", full=False
    )
    told = length_controlled(preferences.tolist(), lengths_1=lengths_1, lengths_2=lengths_2, seed=3, n_boot=60)
    design = design_of(preferences, lengths_1=lengths_1, lengths_2=lengths_2, difficulty=None, gamed=None)
    assert told.lc_ci95 == controlled_interval(design, bootstrap_rates(design, seed=3, n_boot=60))


@pytest.mark.slow
@pytest.mark.parametrize("n", [100, 805])
@pytest.mark.parametrize("case", CONTROLLED)
def test_length_control(case: str, n: int) -> None:
    assert LOW <= share(controls(n, n_boot=100, **CONTROLLED[case])) <= HIGH + 0.005  # a touch wide near the ends


@pytest.mark.slow
@pytest.mark.parametrize("n", [100, 805])
def test_differences_with_length_controlled(n: int) -> None:
    """Cross-validation shrinks each estimate, and the interval is widened to hold what that gives."""
    held = share(leads(n, kind="binary", n_boot=100), trials=400 if n == 100 else 150)
    assert held >= LOW - 0.01


def _table() -> None:
    """Print the share of every case."""
    for n in (20, 100, 805):
        for case, (draw, truth) in RATES.items():
            held = share(lambda rng, _, d=draw, t=truth, n=n: within(rate_interval(d(rng, n)), t), seed=n)  # type: ignore[misc]  # bound in the loop
            print(f"win rate            n {n:4d}  {case:34} {100 * held:.1f}", flush=True)
    for n in (100, 805):
        for case, pair in PAIRS.items():
            print(f"paired difference   n {n:4d}  {case:34} {100 * share(differs(*pair, n=n)):.1f}", flush=True)
    for n in (100, 805):
        for case, world in CONTROLLED.items():
            held = share(controls(n, n_boot=100, **world))
            print(f"length-controlled   n {n:4d}  {case:34} {100 * held:.1f}", flush=True)
    for n, trials in ((100, 400), (805, 150)):
        held = share(leads(n, kind="binary", n_boot=100), trials=trials)
        print(f"LC difference       n {n:4d}  {f'two models, {trials} trials':34} {100 * held:.1f}", flush=True)


if __name__ == "__main__":
    _table()
