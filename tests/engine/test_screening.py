"""When screening switches itself on."""

from __future__ import annotations

import pytest

from trimtab.engine.screening import WINDOW, Screening


def after(rate: float, steps: int = WINDOW, **options: object) -> bool:
    screening = Screening(options.get("mode", "auto"), possible=bool(options.get("possible", True)))  # type: ignore[arg-type]  # drawn from the literals
    for _ in range(steps):
        screening.saw(rate)
    return screening.on


@pytest.mark.parametrize(
    ("rate", "steps", "expected"),
    [(1.0, 20, False), (0.65, 20, False), (0.55, 20, True), (0.55, 19, False), (0.0, 40, True)],
)
def test_auto_waits_for_a_rate_at_which_it_pays(rate: float, steps: int, expected: bool) -> None:
    assert after(rate, steps) is expected


def test_auto_switches_back_off() -> None:
    screening = Screening("auto", possible=True, rates=[0.1] * WINDOW)
    assert screening.on
    for _ in range(WINDOW):
        screening.saw(0.9)
    assert not screening.on


def test_on_and_off_are_obeyed_unless_it_is_impossible() -> None:
    assert after(1.0, mode="on")
    assert not after(0.0, mode="off")
    assert not after(0.0, mode="on", possible=False)
    assert not after(0.0, possible=False)


def test_rates_travel_through_a_checkpoint() -> None:
    screening = Screening("auto", possible=True)
    for step in range(30):
        screening.saw(step / 100)
    assert screening.rates == [step / 100 for step in range(10, 30)]
    assert Screening("auto", possible=True, rates=screening.rates).on == screening.on
