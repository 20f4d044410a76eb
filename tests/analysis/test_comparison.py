"""Paired comparison and power, by hand."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.analysis.comparison import compare, compare_groups, power, require_same_judging, scores_by_prompt
from trimtab.errors import DataError
from trimtab.records import Verdict

SCORES = st.dictionaries(
    st.integers(0, 30).map(str), st.sampled_from([0.0, 0.5, 1.0]) | st.none(), min_size=12, max_size=31
)


def by_prompt(scores: list[float | None]) -> dict[str, float | None]:
    return {f"p{i}": score for i, score in enumerate(scores)}


def verdict(prompt: str, preference: float | None, **changes: str) -> Verdict:
    fields = {"output_1": "old", "output_2": "new", "generator_1": "base", "generator_2": "model", "annotator": "judge"}
    return Verdict(prompt_id=prompt, instruction=prompt, preference=preference, **(fields | changes))


def test_by_hand() -> None:
    # Differences 1, 1, 0, −1, .5 and seven 0: mean 1.5/12 = 12.5 points, ahead 2.5/12, behind 1/12; their variance is
    # 3.25/12 − 1/64 = .25521, of −1, 0, 1 it would be 3.5/12 − 1/64 = .27604, so 12 prompts are worth
    # 12·(3.3125 + 1/3)/(3.0625 + 1/3) = 12.883; z = .125·√(12.883/(3.5/12)) = .8308, both tails .4061.
    a = by_prompt([1, 1, 0.5, 0, 1] + [0.5] * 7)
    b = by_prompt([0, 0, 0.5, 1, 0.5] + [0.5] * 7)
    told = compare(a, b)
    assert told.delta == pytest.approx(12.5)
    assert (told.wins_a, told.wins_b, told.ties, told.n_common) == (3, 1, 8, 12)
    assert told.p_value == pytest.approx(0.4061, abs=1e-4)
    assert told.verdict == "not distinguishable"


def test_missing_answers_are_counted_and_left_out() -> None:
    a = by_prompt([1.0] * 12 + [None, math.nan]) | {"only a": 1.0}
    b = by_prompt([0.0] * 12 + [1.0, 1.0]) | {"only b": 0.0, "also b": 1.0}
    told = compare(a, b)
    assert told.n_common == 12
    assert told.n_missing == 5  # two without a score, one only in a, two only in b
    assert told.delta == 100


def test_the_better_one_is_named() -> None:
    rng = np.random.default_rng(0)
    strong = by_prompt((rng.random(300) < 0.7).astype(float).tolist())
    weak = by_prompt((rng.random(300) < 0.5).astype(float).tolist())
    assert compare(strong, weak, names=("hinge", "dpo")).verdict == "hinge is better"
    assert compare(weak, strong, names=("dpo", "hinge")).verdict == "hinge is better"


def test_nine_prompts_name_nobody() -> None:
    told = compare(by_prompt([1.0] * 9), by_prompt([0.0] * 9))
    assert told.delta == 100
    assert told.verdict == "not distinguishable (only 9 common prompts)"
    assert math.isnan(told.p_value)
    assert math.isnan(told.ci95[0])


def test_marks_are_compared_on_their_own_scale() -> None:
    told = compare(by_prompt([7.0] * 10), by_prompt([6.5] * 10), scale=1, top=10)
    assert told.delta == pytest.approx(0.5)
    assert told.ci95[0] < 0.5 < told.ci95[1]


@given(SCORES, SCORES)
@settings(max_examples=40, deadline=None)
def test_turning_the_sides_round_turns_the_signs(a: dict[str, float | None], b: dict[str, float | None]) -> None:
    if not any(a[p] is not None and b.get(p) is not None for p in a):
        with pytest.raises(DataError, match="no judged prompt in common"):
            compare(a, b)
        return
    there, back = compare(a, b), compare(b, a)
    assert there.delta == pytest.approx(-back.delta)
    assert (there.wins_a, there.wins_b, there.ties) == (back.wins_b, back.wins_a, back.ties)
    assert there.p_value == pytest.approx(back.p_value, nan_ok=True)
    assert there.verdict.endswith("is better") == (there.p_value < 0.05)
    assert there.wins_a + there.wins_b + there.ties == there.n_common
    assert there.n_common + there.n_missing == len(a.keys() | b.keys())


def test_equal_models_are_seldom_told_apart() -> None:
    """200 comparisons of two equal models: the interval leaves zero out in about 5 %."""
    rng = np.random.default_rng(3)
    named = 0
    for _ in range(200):
        a, b = (by_prompt(rng.choice([0.0, 0.5, 1.0], size=100).tolist()) for _ in "ab")
        named += compare(a, b).verdict != "not distinguishable"
    assert named <= 22


def test_verdicts_are_paired_by_prompt() -> None:
    a = [verdict(f"p{i}", 2.0) for i in range(12)]
    b = [verdict(f"p{i}", 1.0, output_2="other", generator_2="other") for i in reversed(range(12))]
    assert compare(scores_by_prompt(a), scores_by_prompt(b)).delta == 100


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"annotator": "another"}, "A was judged by judge, B by another"),
        ({"generator_1": "another"}, "A was judged against base, B against another"),
        ({"output_1": "another"}, "the baseline answered 12 common prompts differently"),
    ],
)
def test_what_is_not_comparable_is_refused(change: dict[str, str], complaint: str) -> None:
    a = [verdict(f"p{i}", 2.0) for i in range(12)]
    b = [verdict(f"p{i}", 1.0, **change) for i in range(12)]
    with pytest.raises(DataError, match=complaint):
        require_same_judging(a, b, names=("A", "B"))


def test_power_by_hand() -> None:
    # se = 40/√400 = 2 points, δ = 2 se: Φ(2 − 1.96) + Φ(−2 − 1.96) = .51600 + .00004
    told = power(400, delta=4.0, sd=40.0)
    assert told.power == pytest.approx(0.51600, abs=1e-4)
    # 80 % chance needs (1.95996 + .84162) = 2.80158 se: 5.603 points here; for 4 points (2.80158·10)² = 784.9
    assert told.detectable == pytest.approx(5.60317, abs=1e-4)
    assert told.n_needed == 785


def test_power_without_a_difference_is_the_level() -> None:
    assert power(805, delta=1e-9).power == pytest.approx(0.05, abs=1e-6)
    assert power(805, delta=-3.0).power == power(805, delta=3.0).power


def test_the_usual_benchmark_sees_four_points() -> None:
    told = power(805, delta=2.0)
    assert told.detectable == pytest.approx(4.18, abs=0.01)
    assert told.power == pytest.approx(0.268, abs=0.005)


def test_power_is_what_simulation_finds() -> None:
    rng = np.random.default_rng(0)
    samples = rng.normal(5.0, 40.0, size=(4000, 300))
    z = samples.mean(axis=1) / (samples.std(axis=1, ddof=1) / math.sqrt(300))
    found = float((np.abs(z) > NormalDist().inv_cdf(0.975)).mean())
    assert power(300, delta=5.0, sd=40.0).power == pytest.approx(found, abs=0.03)


@pytest.mark.parametrize("words", [{"n": 0}, {"sd": 0.0}, {"delta": 0.0}, {"delta": math.inf}])
def test_power_needs_numbers_that_mean_something(words: dict[str, float]) -> None:
    given = {"n": 805, "delta": 2.0, "sd": 40.0} | words
    with pytest.raises(DataError, match="power needs"):
        power(int(given["n"]), delta=given["delta"], sd=given["sd"])


def test_seeds_are_pooled_and_paired() -> None:
    """Two seeds, differences by prompt (1, 0) and (1, 0) on each of six prompts: 50 points, and no seed differs.

    Then the error is that of the prompts' differences alone, so it is the score test of 6 against 0 of 12 pairs, with
    Student's quantile at 11 degrees of freedom: z = √6 = 2.449, both tails of t .0323.
    """
    a = by_prompt([1.0, 1.0] * 6)
    b = by_prompt([0.0, 1.0] * 6)
    told = compare([a, a], [b, b])
    assert (told.delta, told.n_seeds, told.n_common) == (50, 2, 12)
    assert told.p_value == pytest.approx(0.0323, abs=1e-4)
    assert told.ci95[0] > 0
    assert told.test == "t test over prompts and seeds"
    assert (told.wins_a, told.ties) == (6, 6)


def test_unanimous_verdicts_leave_doubt() -> None:
    """T1 of the shared cases: both lose all 20 (was +0 [0, 0]); A wins all 40 and B none (was 100 [100, 100])."""
    nothing = compare(by_prompt([0.0] * 20), by_prompt([0.0] * 20))
    assert nothing.ci95 == pytest.approx((-16.1125, 16.1125), abs=1e-3)
    assert (nothing.p_value, nothing.verdict) == (1, "not distinguishable")
    all_of_it = compare(by_prompt([1.0] * 40), by_prompt([0.0] * 40))
    assert all_of_it.ci95 == pytest.approx((100 * (40 - 3.8415) / (40 + 3.8415), 100), abs=1e-3)  # (n − z²)/(n + z²)
    three = [by_prompt([1.0] * 20)] * 3
    low, high = compare(three, [by_prompt([0.5] * 20)] * 3).ci95
    assert 20 < low < 50 < high < 80


def test_one_hypothesis_one_test_one_verdict() -> None:
    """600 random tables, of one run a side and of several seeds: 52 were "better" with p ≥ .05 before."""
    rng = np.random.default_rng(0)
    n_better = 0
    for k in range(600):
        n, n_seeds = int(rng.integers(10, 60)), 1 + k % 3
        rates = rng.random(2)
        a, b = (
            [by_prompt(rng.choice([0.0, 0.5, 1.0], n, p=[1 - rate, 0.0, rate]).tolist()) for _ in range(n_seeds)]
            for rate in rates
        )
        told = compare(a, b)
        low, high = told.ci95
        assert told.verdict.endswith("is better") == (told.p_value < 0.05) == (low > 0 or high < 0)
        n_better += told.p_value < 0.05
    assert 200 < n_better < 500


def test_a_single_run_stands_beside_every_seed() -> None:
    a = [by_prompt([1.0] * 12), by_prompt([0.5] * 12)]
    told = compare(a, by_prompt([0.0] * 12))
    assert (told.n_seeds, told.delta) == (2, 75)
    with pytest.raises(DataError, match="3 seeds and B 2"):
        compare([a[0]] * 3, [a[0]] * 2)


def test_seeds_that_disagree_leave_doubt() -> None:
    """Three seeds that lead by 30, 0 and −20 points on the same prompts say little about a fourth."""
    rng = np.random.default_rng(0)
    base = rng.random(200)
    a = [by_prompt((base + lead).tolist()) for lead in (0.3, 0.0, -0.2)]
    b = by_prompt(base.tolist())
    assert compare(a[0], b).verdict == "A is better"
    assert compare(a, b).verdict == "not distinguishable"


def test_groups_are_compared_alone() -> None:
    a, b = by_prompt([1.0] * 10 + [0.0] * 10 + [1.0]), by_prompt([0.0] * 10 + [1.0] * 10 + [None])
    groups = {f"p{i}": "first" if i < 10 else "second" for i in range(20)} | {"p20": "third"}
    found = compare_groups([a], [b], groups)
    assert {name: one.delta for name, one in found.items()} == {"first": 100, "second": -100}
