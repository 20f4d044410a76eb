"""What is looked at first: a forecast that learns from visits, by side and by how a response was last found."""

from __future__ import annotations

import json
import random

import torch
from torch import Tensor

from trimtab.engine.screening import MEMORY, Forecast

NONE = torch.zeros(4, dtype=torch.bool)


def _visit(
    forecast: Forecast, active: list[bool], indices: tuple[int, ...] = (0, 1), held_R: Tensor = NONE
) -> Tensor | None:
    """One visit as a training step makes it: asked first, told after."""
    screen_R = forecast.screen_R(indices)
    screened_R = torch.zeros(len(active), dtype=torch.bool) if screen_R is None else screen_R
    forecast.saw(indices, torch.tensor(active), screened_R=screened_R, held_R=held_R[: len(active)])
    return screen_R


def test_nothing_is_looked_at_first_before_anything_was_inactive() -> None:
    forecast = Forecast(2)
    for _ in range(50):
        assert _visit(forecast, [True] * 4) is None


def test_a_response_that_was_inactive_is_looked_at_first_and_its_pairs_other_one_is_not() -> None:
    forecast = Forecast(2)
    _visit(forecast, [True, False, True, True])
    found = forecast.screen_R((0, 1))
    assert found is not None
    assert found.tolist() == [False, True, False, False]
    assert forecast.screen_R((1,)) is None


def test_new_responses_are_looked_at_first_once_most_of_their_side_come_in_inactive() -> None:
    forecast = Forecast(200)
    for pair in range(100):
        _visit(forecast, [True, pair < 10], indices=(pair,))
    found = forecast.screen_R((150,))
    assert found is not None
    assert found.tolist() == [False, True]


def test_a_forecast_that_is_mostly_wrong_stops_itself() -> None:
    """Whatever was inactive is active at its next visit: looking first would make every step dearer."""
    forecast = Forecast(2)
    looked = 0
    for visit in range(20 * MEMORY):
        found = _visit(forecast, [visit % 2 == 0] * 4)
        late = visit > 10 * MEMORY
        looked += 0 if found is None or not late or visit % 2 else int(found.sum())
    assert looked == 0


def test_random_activity_near_one_stays_dense() -> None:
    generator = random.Random(0)  # noqa: S311  # a simulation
    forecast = Forecast(64)
    looked = 0
    for visit in range(60):
        for pair in range(64):
            found = _visit(forecast, [generator.random() < 0.9 for _ in range(2)], indices=(pair,))
            looked += 0 if found is None or visit < 20 else int(found.sum())
    assert looked / (40 * 128) < 0.02


def test_held_responses_teach_nothing() -> None:
    forecast = Forecast(2)
    before = forecast.state()
    _visit(forecast, [False] * 4, held_R=torch.ones(4, dtype=torch.bool))
    assert forecast.state() == before


def test_what_was_screened_and_promoted_is_counted() -> None:
    forecast = Forecast(2)
    _visit(forecast, [False, False, True, True])
    _visit(forecast, [True, False, True, True])
    assert (forecast.screened, forecast.promoted) == (2, 1)


def test_a_forecast_travels_through_a_checkpoint() -> None:
    generator = random.Random(1)  # noqa: S311  # a simulation
    forecast = Forecast(8)
    for _ in range(100):
        _visit(forecast, [generator.random() < 0.4 for _ in range(2)], indices=(generator.randrange(8),))
    again = Forecast(8, state=json.loads(json.dumps(forecast.state())))
    assert again.state() == forecast.state()
    for pair in range(8):
        one, other = forecast.screen_R((pair,)), again.screen_R((pair,))
        assert (one is None and other is None) or torch.equal(one, other)  # type: ignore[arg-type]  # both or neither
