"""Every claim of the page is picked by its number: up, down, not distinguishable, or none at all."""

from __future__ import annotations

import pytest
from experiments.figures_of import Figure
from experiments.words import claim, counted, direction, grouped, listed, method, number, shown


def figure(value: float | None, low: float | None, high: float | None, detectable: float | None = None) -> Figure:
    bounds = None if low is None or high is None else (low, high)
    return Figure(value, bounds, 100, 5, "by hand", "tokens", detectable=detectable)


def said(one: Figure, even: float = 0.0) -> str:
    return claim(one, about="length", up="answers are longer", down="answers are shorter", even=even)


def test_a_claim_follows_the_interval() -> None:
    assert said(figure(3.0, 1.0, 5.0)) == "answers are longer: +3.0 [+1.0, +5.0] tokens"
    assert said(figure(-3.0, -5.0, -1.0)) == "answers are shorter: −3.0 [−5.0, −1.0] tokens"
    assert said(figure(3.0, -0.5, 6.5, 4.7)) == (
        "length: not distinguishable, +3.0 [−0.5, +6.5] tokens (80 % power for 4.7 tokens)"
    )
    assert said(figure(3.0, None, None)) == "length: no interval, so no claim: +3.0 tokens"


def test_a_rate_is_held_against_even_and_has_no_sign() -> None:
    assert said(figure(55.0, 51.0, 59.0), even=50.0) == "answers are longer: 55.0 [51.0, 59.0] tokens"
    assert said(figure(55.0, 49.0, 61.0), even=50.0).startswith("length: not distinguishable, 55.0")


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (figure(1.0, 0.0, 2.0), "not distinguishable"),  # an interval that touches even does not leave it out
        (figure(1.0, 1e-9, 2.0), "above"),
        (figure(-1.0, -2.0, -1e-9), "below"),
        (figure(None, None, None), "unknown"),
    ],
)
def test_direction(one: Figure, expected: str) -> None:
    assert direction(one) == expected


def test_numbers_are_written_with_a_minus_and_without_a_negative_zero() -> None:
    assert number(-1.25, 2) == "−1.25"
    assert number(-0.04, 1, signed=True) == "0.0"
    assert number(None) == "–"
    assert shown(figure(1.0, 0.5, 1.5), signed=True) == "+1.0 [+0.5, +1.5]"
    assert (listed([]), listed(["a"]), listed(["a", "b", "c"])) == ("", "a", "a, b and c")


def test_verdicts_are_grouped() -> None:
    found = {"a": "last", "b, 1": "first", "c": "last"}
    order = ("first", "never", "last")
    assert grouped(found, order) == ["first: b, 1.", "last: a; c."]
    assert counted(found, order) == "first in 1, last in 2 of 3 settings"


def test_methods_are_named_with_what_sets_their_dead_zone() -> None:
    assert method({"name": "apo_hinge_zero", "beta": 0.3, "margin": 1.0}) == "apo_hinge_zero m = 1"
    assert method({"name": "margin_sigmoid", "delta": 0.4}) == "margin_sigmoid δ = 0.4"
    assert method({"name": "dpo", "margin": None}) == "dpo"
