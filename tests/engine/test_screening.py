"""What is looked at first: a forecast that learns from visits, by side and by how a response was last found."""

from __future__ import annotations

import json
import random

import torch
from torch import Tensor

from trimtab.engine.screening import MEMORY, Costs, Forecast, Prompts, Way
from trimtab.records import TokenPair

NONE = torch.zeros(4, dtype=torch.bool)
COSTS = Costs()


def _pairs(indices: tuple[int, ...], *, prompt: int = 10, chosen: int = 20, rejected: int = 20) -> list[TokenPair]:
    return [TokenPair(str(i), (i,) * prompt, (1,) * chosen, (2,) * rejected) for i in indices]


def _screen(forecast: Forecast, indices: tuple[int, ...] = (0, 1)) -> Tensor | None:
    return forecast.screen_R(indices, _pairs(indices))


def _visit(
    forecast: Forecast, active: list[bool], indices: tuple[int, ...] = (0, 1), held_R: Tensor = NONE
) -> Tensor | None:
    """One visit as a training step makes it: asked first, told after."""
    screen_R = _screen(forecast, indices)
    screened_R = torch.zeros(len(active), dtype=torch.bool) if screen_R is None else screen_R
    forecast.record(indices, torch.tensor(active), screened_R=screened_R, stale_R=held_R[: len(active)])
    return screen_R


def test_nothing_is_looked_at_first_before_anything_was_inactive() -> None:
    forecast = Forecast(2, costs=COSTS)
    for _ in range(50):
        assert _visit(forecast, [True] * 4) is None


def test_a_response_that_was_inactive_is_looked_at_first_and_its_pairs_other_one_is_not() -> None:
    forecast = Forecast(2, costs=COSTS)
    _visit(forecast, [True, False, True, True])
    found = _screen(forecast)
    assert found is not None
    assert found.tolist() == [False, True, False, False]
    assert _screen(forecast, (1,)) is None


def test_new_responses_are_looked_at_first_once_most_of_their_side_come_in_inactive() -> None:
    forecast = Forecast(200, costs=COSTS)
    for pair in range(100):
        _visit(forecast, [True, pair < 10], indices=(pair,))
    found = _screen(forecast, (150,))
    assert found is not None
    assert found.tolist() == [False, True]


def test_a_forecast_that_is_mostly_wrong_stops_itself() -> None:
    """Whatever was inactive is active at its next visit: looking first would make every step dearer."""
    forecast = Forecast(2, costs=COSTS)
    looked = 0
    for visit in range(20 * MEMORY):
        found = _visit(forecast, [visit % 2 == 0] * 4)
        late = visit > 10 * MEMORY
        looked += 0 if found is None or not late or visit % 2 else int(found.sum())
    assert looked == 0


def test_random_activity_near_one_stays_dense() -> None:
    generator = random.Random(0)  # noqa: S311  # a simulation
    forecast = Forecast(64, costs=COSTS)
    looked = 0
    for visit in range(60):
        for pair in range(64):
            found = _visit(forecast, [generator.random() < 0.9 for _ in range(2)], indices=(pair,))
            looked += 0 if found is None or visit < 20 else int(found.sum())
    assert looked / (40 * 128) < 0.02


def test_expected_costs_worked_by_hand() -> None:
    """A prompt of 10, a chosen response of 20, a rejected one of 40, active at rates .5 and .25."""

    def cost(prompts: Prompts, way: Way, step: float = 3.0) -> float:
        return Costs(prompts, step).expected_cost(way, 10, (20, 40), (0.5, 0.25))

    for prompts in ("shared", "shared until promoted"):
        assert cost(prompts, (False, False)) == 3 * 70
        # both: forwards of all, then 3 × their expected tokens, and the prompt once more unless both are inactive
        assert cost(prompts, (True, True)) == 70 + 3 * (0.5 * 20 + 0.25 * 40) + 3 * 10 * (1 - 0.5 * 0.75)
    assert cost("shared", (False, True)) == 3 * 30 + 40 + 3 * 0.25 * 40
    assert cost("shared until promoted", (False, True)) == 3 * 30 + 40 + 3 * 0.25 * (40 + 10)
    assert cost("never shared", (False, True)) == 3 * 30 + 50 + 3 * 0.25 * 50
    assert cost("shared", (False, True), step=2.0) == 2 * 30 + 40 + 2 * 0.25 * 40


def test_a_saving_smaller_than_the_passes_it_needs_is_left() -> None:
    """One inactive response of 20 tokens saves 40; one pass more costs `a_pass`."""
    for a_pass, looked in ((39.0, True), (41.0, False)):
        forecast = Forecast(2, costs=Costs(a_pass=a_pass))
        _visit(forecast, [True, False, True, True])
        assert (_screen(forecast) is not None) is looked


def test_under_an_adapter_looking_first_pays_less_often() -> None:
    """At an active rate of .55: 1 + 3 · .55 < 3, but 1 + 2 · .55 > 2."""
    for step, looked in ((3.0, True), (2.0, False)):
        forecast = Forecast(400, costs=Costs(step=step))
        for pair in range(300):
            _visit(forecast, [True, pair * 11 % 20 < 11], indices=(pair,))
        assert (_screen(forecast, (399,)) is not None) is looked


def test_a_response_of_several_pairs_is_looked_at_first_only_if_it_is_so_for_all_of_them() -> None:
    prompt, a, b, c = (1,) * 10, (2,) * 20, (3,) * 20, (4,) * 20
    pairs = [TokenPair("0", prompt, a, b), TokenPair("1", prompt, a, c)]

    def screened(active: list[bool]) -> list[bool]:
        forecast = Forecast(2, costs=COSTS)
        forecast.record((0, 1), torch.tensor(active), screened_R=NONE, stale_R=NONE)
        found = forecast.screen_R((0, 1), pairs)
        return [False] * 4 if found is None else found.tolist()

    assert screened([False, True, True, True]) == [False] * 4
    assert screened([False, True, False, True]) == [True, False, True, False]
    assert screened([False, False, True, False]) == [False, True, False, True]
    assert screened([False] * 4) == [True] * 4


def test_held_responses_teach_nothing() -> None:
    forecast = Forecast(2, costs=COSTS)
    before = forecast.state()
    _visit(forecast, [False] * 4, held_R=torch.ones(4, dtype=torch.bool))
    assert forecast.state() == before


def test_what_was_screened_and_promoted_is_counted() -> None:
    forecast = Forecast(2, costs=COSTS)
    _visit(forecast, [False, False, True, True])
    _visit(forecast, [True, False, True, True])
    assert (forecast.screened, forecast.promoted) == (2, 1)


def test_a_forecast_travels_through_a_checkpoint() -> None:
    generator = random.Random(1)  # noqa: S311  # a simulation
    forecast = Forecast(8, costs=COSTS)
    for _ in range(100):
        _visit(forecast, [generator.random() < 0.4 for _ in range(2)], indices=(generator.randrange(8),))
    again = Forecast(8, costs=COSTS, state=json.loads(json.dumps(forecast.state())))
    assert again.state() == forecast.state()
    for pair in range(8):
        one, other = _screen(forecast, (pair,)), _screen(again, (pair,))
        assert (one is None and other is None) or torch.equal(one, other)  # type: ignore[arg-type]  # both or neither
