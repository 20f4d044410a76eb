"""The length-controlled win rate on samples whose truth is known, and at its edges."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from trimtab.analysis.intervals import wilson_interval
from trimtab.analysis.length_control import (
    INVERSE_PENALTIES,
    LengthControlled,
    length_controlled,
)
from trimtab.errors import DataError


def world(n: int, *, strength: float, length_weight: float, seed: int) -> tuple[list[float], list[int], list[int]]:
    """Preferences, baseline lengths, model lengths: the model's own logit is `strength`, and its answers are longer."""
    rng = np.random.default_rng(seed)
    lengths_1 = rng.integers(40, 120, n)
    lengths_2 = lengths_1 + rng.integers(-40, 80, n)
    gap = (lengths_1 - lengths_2).astype(float)
    logits = strength + length_weight * np.tanh(gap / gap.std(ddof=1))
    preferences = 1.0 + (rng.random(n) < 1 / (1 + np.exp(-logits)))
    return preferences.tolist(), lengths_1.tolist(), lengths_2.tolist()


def controlled(n: int, *, strength: float, length_weight: float, seed: int) -> LengthControlled:
    preferences, lengths_1, lengths_2 = world(n, strength=strength, length_weight=length_weight, seed=seed)
    return length_controlled(preferences, lengths_1=lengths_1, lengths_2=lengths_2)


def test_a_judge_that_likes_length_is_seen_through() -> None:
    """Equal quality, longer answers, length weight −1.5 on baseline − model: raw is far above 50, controlled is not."""
    preferences, lengths_1, lengths_2 = world(1500, strength=0.0, length_weight=-1.5, seed=0)
    raw = 100 * (np.mean(preferences) - 1)
    told = length_controlled(preferences, lengths_1=lengths_1, lengths_2=lengths_2)
    assert raw > 58
    assert told.length_controlled_winrate == pytest.approx(50, abs=4)
    assert told.lc_ci95[0] < 50 < told.lc_ci95[1]
    assert told.weights["length"] == pytest.approx(-1.5, abs=0.3)


def test_true_strength_survives() -> None:
    told = controlled(1500, strength=0.6, length_weight=-1.0, seed=1)
    assert told.length_controlled_winrate == pytest.approx(100 / (1 + math.exp(-0.6)), abs=4)
    assert told.variant == "length_controlled_minimal"
    assert told.n_regularising == 0


def test_its_interval_covers_the_truth() -> None:
    """40 worlds of 150 rows: about 95 % of the intervals hold σ(.3) = 57.4 %."""
    truth = 100 / (1 + math.exp(-0.3))
    held = 0
    for seed in range(40):
        low, high = controlled(150, strength=0.3, length_weight=-1.0, seed=seed).lc_ci95
        held += low <= truth <= high
    assert 33 <= held <= 40


def test_a_rate_shrunk_to_fifty_keeps_an_honest_interval() -> None:
    """With no difference cross-validation often picks a penalty that leaves nothing; the interval must stay wide."""
    told = next(
        told
        for seed in range(50)
        if (told := controlled(200, strength=0, length_weight=0, seed=seed)).length_controlled_winrate == 50
    )
    low, high = told.lc_ci95
    assert high - low > 5
    assert low <= 50 <= high
    assert any("shrunk to exactly 50" in note for note in told.notes)


def test_neighbours_stand_beside_the_choice() -> None:
    told = controlled(300, strength=1.0, length_weight=-1.0, seed=2)
    at = INVERSE_PENALTIES.index(told.lc_c)  # type: ignore[arg-type]  # a choice was made
    assert [c for c, _ in told.lc_neighbours] == list(INVERSE_PENALTIES[max(0, at - 1) : at + 2])
    assert dict(told.lc_neighbours)[told.lc_c] == told.length_controlled_winrate  # type: ignore[index]  # as above


def test_the_grid_is_the_published_one() -> None:
    assert pytest.approx([1e-4, 7.742637e-4, 5.994843e-3], rel=1e-6) == INVERSE_PENALTIES[:3]
    assert len(INVERSE_PENALTIES) == 10
    assert INVERSE_PENALTIES[-1] == 1e4


def test_the_baseline_itself_is_fifty() -> None:
    told = length_controlled([2.0] * 30, lengths_1=[5] * 30, lengths_2=[9] * 30, is_baseline=True)
    assert (told.length_controlled_winrate, told.lc_c) == (50.0, None)
    assert told.to_json()["lc_ci95"] == [None, None]  # no estimate


def test_equal_lengths_leave_the_raw_rate_up_to_the_penalty() -> None:
    """No length to control for: the rate is σ(k) with k shrunk by 1/C: 1 + C·(Nσ(k) − wins) = 0."""
    told = length_controlled([2.0] * 80 + [1.0] * 20, lengths_1=[7] * 100, lengths_2=[7] * 100)
    by_hand = (80 - 1 / told.lc_c) / 100  # type: ignore[operator]  # a choice was made
    assert told.length_controlled_winrate == pytest.approx(100 * by_hand, abs=1e-3)
    assert told.weights["length"] == 0
    assert any("no length effect" in note for note in told.notes)
    assert told.lc_ci95[0] < 80 < told.lc_ci95[1]


@pytest.mark.parametrize(("preference", "side"), [(2.0, 95.0), (1.0, 5.0)])
def test_one_outcome_only_keeps_its_side(preference: float, side: float) -> None:
    lengths = list(range(10, 70))
    told = length_controlled([preference] * 60, lengths_1=lengths, lengths_2=lengths[::-1])
    assert told.length_controlled_winrate > side if preference == 2 else told.length_controlled_winrate < side


def test_too_few_rows_give_no_number_but_a_reason() -> None:
    told = length_controlled([2.0] * 9 + [None] * 20, lengths_1=[3] * 29, lengths_2=[4] * 29)
    assert math.isnan(told.length_controlled_winrate)
    assert "9 judged rows are too few" in told.notes[0]
    assert json.loads(json.dumps(told.to_json(), allow_nan=False))["length_controlled_winrate"] is None


def test_rows_without_a_verdict_are_not_fitted() -> None:
    preferences, lengths_1, lengths_2 = world(200, strength=0.8, length_weight=-1, seed=3)
    with_gaps = length_controlled(
        [*preferences, None, math.nan], lengths_1=[*lengths_1, 60, 60], lengths_2=[*lengths_2, 60, 60]
    )
    assert with_gaps.n_rows == 200
    assert any("2 rows without a verdict" in note for note in with_gaps.notes)


def test_regularising_rows_hold_the_length_weight() -> None:
    """Ten rows whose lengths explain everything, and a thousand that say length has no effect."""
    preferences = [2.0] * 6 + [1.0] * 6
    lengths_1, lengths_2 = [10] * 6 + [90] * 6, [90] * 6 + [10] * 6
    rng = np.random.default_rng(0)
    regularisers = {
        "preference": [0.5] * 4000,
        "std_delta_len": rng.normal(size=4000).tolist(),
        "instruction_difficulty": [0.0] * 4000,
    }
    free = length_controlled(preferences, lengths_1=lengths_1, lengths_2=lengths_2)
    held = length_controlled(preferences, lengths_1=lengths_1, lengths_2=lengths_2, regularisers=regularisers)
    assert held.n_regularising == 4000
    assert abs(held.weights["length"]) < 0.2 < abs(free.weights["length"])


def test_variants_say_what_they_lack() -> None:
    preferences, lengths_1, lengths_2 = world(60, strength=0.5, length_weight=-1, seed=4)
    difficulty = np.random.default_rng(0).normal(size=60).tolist()
    regularisers = {"preference": [0.6, 0.2], "std_delta_len": [-1.0, 1.0], "instruction_difficulty": [0.0, 0.5]}
    told = length_controlled(
        preferences, lengths_1=lengths_1, lengths_2=lengths_2, difficulty=difficulty, regularisers=regularisers
    )
    assert told.variant == "length_controlled_v1"
    assert set(told.weights) == {"length", "difficulty", "own"}
    told = length_controlled(preferences, lengths_1=lengths_1, lengths_2=lengths_2, difficulty=difficulty)
    assert told.variant == "length_controlled_noreg"
    told = length_controlled(preferences, lengths_1=lengths_1, lengths_2=lengths_2, regularisers=regularisers)
    assert told.variant == "length_controlled_minimal"


@pytest.mark.parametrize("preference", [1.0, 1.5, 1.9, 2.0])
def test_equal_scores_have_wilsons_interval(preference: float) -> None:
    """T1 of the shared cases: as the raw rate's, never of zero width (40 wins of 40 were [98.75, 100], now 91.24)."""
    told = length_controlled([preference] * 40, lengths_1=list(range(40)), lengths_2=list(range(40, 0, -1)))
    low, high = wilson_interval(40 * (preference - 1), n=40)
    assert told.lc_ci95 == pytest.approx((100 * low, 100 * high), abs=0.1)


@pytest.mark.parametrize("extra", [40, 400])
def test_lengths_that_differ_alike_identify_nothing(extra: int) -> None:
    """Always longer by much: tanh(gap/sd) is −1 for all rows (or the gap is one number), and no fit tells the length's
    effect from the model's strength. No interval, and the note says so."""
    rng = np.random.default_rng(0)
    lengths_1 = rng.integers(100, 110, 60)
    lengths_2 = lengths_1 + extra + (rng.integers(0, 10, 60) if extra > 100 else 0)
    told = length_controlled(
        (1.0 + (rng.random(60) < 0.7)).tolist(), lengths_1=lengths_1.tolist(), lengths_2=lengths_2.tolist()
    )
    assert told.to_json()["lc_ci95"] == [None, None]
    assert "not identified" in told.notes[0]


def test_a_published_length_effect_identifies_the_rate() -> None:
    """The regularising rows hold the length's effect, so that the same answers have an interval."""
    rng = np.random.default_rng(0)
    lengths_1 = rng.integers(100, 110, 60)
    gap = rng.normal(size=2000)
    regularisers = {
        "preference": (1 / (1 + np.exp(np.tanh(gap)))).tolist(),
        "std_delta_len": gap.tolist(),
        "instruction_difficulty": [0.0] * 2000,
    }
    told = length_controlled(
        (1.0 + (rng.random(60) < 0.7)).tolist(),
        lengths_1=lengths_1.tolist(),
        lengths_2=(lengths_1 + 400 + rng.integers(0, 10, 60)).tolist(),
        regularisers=regularisers,
    )
    low, high = told.lc_ci95
    assert 0 < low < told.length_controlled_winrate < high < 100


@pytest.mark.parametrize(
    "columns", [{"lengths_2": [1]}, {"difficulty": [0.1]}, {"lengths_1": [1], "lengths_2": [1]}], ids=str
)
def test_columns_of_different_length_are_refused(columns: dict[str, list[int]]) -> None:
    given = {"lengths_1": [1, 2], "lengths_2": [1, 2]} | columns
    with pytest.raises(DataError, match="length control got"):
        length_controlled([2.0, 1.0], **given)
