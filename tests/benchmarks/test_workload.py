"""What the benchmarks train on: counted by hand, and against the models themselves."""

from __future__ import annotations

import pytest
from workload import LENGTHS, SHAPES, Shape, choose_fate, distinct_texts, make_pairs, response_sizes


def test_parameters_are_those_of_the_model() -> None:
    shape = SHAPES["tiny"]
    assert shape.parameters == sum(p.numel() for p in shape.build().parameters())


@pytest.mark.parametrize(
    ("name", "published"),
    [("smollm2-135m", 134_515_008), ("qwen2.5-0.5b", 494_032_768), ("qwen2.5-1.5b", 1_543_714_304)],
)
def test_the_real_shapes_have_the_published_number_of_parameters(name: str, published: int) -> None:
    assert SHAPES[name].parameters == published


def test_operations_by_hand() -> None:
    """One layer, width 2, one head: 2·2·(2 + 2) + 3·2·3 = 34 multiplications a token. Prompt 2, responses 1 and 1: 4
    tokens; 3 + 3 + 3 = 9 visible rows at 2·2 multiplications; 2 response tokens against 10 words of width 2.
    Weights 4·34 + 2·2·10 = 176, attention 2·9·2 = 36; two operations each, three passes, or two over frozen weights."""
    shape = Shape(vocabulary=10, hidden=2, intermediate=3, layers=1, heads=1, key_heads=1)
    pairs = [((3, 4), (1,), (2,))]
    assert shape.training_operations(pairs) == 2 * 3 * (176 + 36)
    assert shape.training_operations(pairs, frozen=True) == 2 * (2 * 176 + 3 * 36)


def test_a_response_that_stands_in_several_pairs_counts_once() -> None:
    """The prompt of 2 tokens and responses of 1 and 2 tokens: 5 tokens at 34 multiplications, 3 response tokens at 20,
    3 + 3 + 7 = 13 visible rows at 4."""
    shape = Shape(vocabulary=10, hidden=2, intermediate=3, layers=1, heads=1, key_heads=1)
    pairs = [((3, 4), (1,), (5, 1)), ((3, 4), (5, 1), (1,))]
    assert shape.training_operations(pairs) == 2 * 3 * (5 * 34 + 3 * 20 + 13 * 4)


def test_four_completions_are_six_pairs_of_one_prompt() -> None:
    pairs = make_pairs(12, lengths="ultrafeedback", vocabulary=100, completions=4)
    assert len(pairs) == len(set(pairs)) == 12
    assert sorted(map(len, distinct_texts(pairs).values())) == [4, 4]
    assert [c == pairs[0][1] for _, c, _ in pairs[:6]] == [True, True, True, False, False, False]


def test_nothing_is_forecast_inactive_when_everything_is_active() -> None:
    pairs = make_pairs(8, lengths="ultrafeedback", vocabulary=100)
    fate = choose_fate(pairs, rate=1.0)
    assert all(fate.active_R)
    assert not any(fate.screen_R)
    assert not any(fate.held_R)


@pytest.mark.parametrize("rate", [0.7, 0.5, 0.3, 0.1])
@pytest.mark.parametrize("lengths", ["ultrafeedback", "hh", "long-prompt"])
def test_the_forecast_of_a_forced_rate_is_what_the_last_visit_told(rate: float, lengths: str) -> None:
    pairs = make_pairs(8, lengths=lengths, vocabulary=100)
    fate = choose_fate(pairs, rate=rate)
    assert fate.share(pairs, fate.active_R) == pytest.approx(rate, abs=0.03)
    assert fate.screen_R == tuple(not on for on in fate.active_R)


@pytest.mark.parametrize("rate", [0.5, 0.3, 0.1])
def test_wrong_forecasts_make_a_response_pay_its_promotion(rate: float) -> None:
    pairs = make_pairs(8, lengths="ultrafeedback", vocabulary=100)
    right, fate = choose_fate(pairs, rate=rate), choose_fate(pairs, rate=rate, wrong=0.1)
    assert fate.active_R == right.active_R
    mistaken = tuple(a != b for a, b in zip(fate.screen_R, right.screen_R, strict=True))
    assert fate.share(pairs, mistaken) == pytest.approx(0.1, abs=0.04)
    assert any(on and screened for on, screened in zip(fate.active_R, fate.screen_R, strict=True))


def test_saturation_on_one_side_leaves_the_chosen_responses() -> None:
    fate = choose_fate(make_pairs(4, lengths="hh", vocabulary=100), rate=1.0, side="chosen")
    assert fate.active_R == (True, False) * 4
    assert fate.screen_R == (False, True) * 4


def test_only_inactive_responses_are_shrunk_and_those_are_not_screened() -> None:
    pairs = make_pairs(8, lengths="ultrafeedback", vocabulary=100)
    fate = choose_fate(pairs, rate=0.3, held=0.9)
    assert fate.share(pairs, fate.held_R) == pytest.approx(0.9 * 0.7, abs=0.05)
    for active, screened, held in zip(fate.active_R, fate.screen_R, fate.held_R, strict=True):
        assert active + screened + held == 1


def test_lengths_are_what_they_are_called() -> None:
    pairs = make_pairs(64, lengths="ultrafeedback", vocabulary=100)
    assert sum(len(p) for p, _, _ in pairs) / 64 == pytest.approx(175, rel=0.05)
    assert sum(response_sizes(pairs)) / 128 == pytest.approx(275, rel=0.05)
    assert set(LENGTHS) >= {"hh", "long-prompt"}
