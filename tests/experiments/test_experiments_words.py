"""Every claim of the page is picked by its number: up, down, not distinguishable, or none at all."""

from __future__ import annotations

import pytest
from experiments.measurement import Measurement
from experiments.words import claim, count, direction, group, join_words, method, number, text_of

from trimtab.records import Estimate


def figure(value: float | None, low: float | None, high: float | None, detectable: float | None = None) -> Measurement:
    bounds = None if low is None or high is None else (low, high)
    return Measurement(Estimate(value, bounds, 100, "by hand", n_seeds=5, unit="tokens"), detectable=detectable)


def length_claim(measurement: Measurement, even: float = 0.0) -> str:
    return claim(measurement, about="length", up="answers are longer", down="answers are shorter", even=even)


def test_a_claim_follows_the_interval() -> None:
    assert length_claim(figure(3.0, 1.0, 5.0)) == "answers are longer: +3.0 [+1.0, +5.0] tokens"
    assert length_claim(figure(-3.0, -5.0, -1.0)) == "answers are shorter: −3.0 [−5.0, −1.0] tokens"
    assert length_claim(figure(3.0, -0.5, 6.5, 4.7)) == (
        "length: not distinguishable, +3.0 [−0.5, +6.5] tokens (80 % power for 4.7 tokens)"
    )
    assert length_claim(figure(3.0, None, None)) == "length: no interval, so no claim: +3.0 tokens"


def test_a_rate_is_held_against_even_and_has_no_sign() -> None:
    assert length_claim(figure(55.0, 51.0, 59.0), even=50.0) == "answers are longer: 55.0 [51.0, 59.0] tokens"
    assert length_claim(figure(55.0, 49.0, 61.0), even=50.0).startswith("length: not distinguishable, 55.0")


@pytest.mark.parametrize(
    ("measurement", "expected"),
    [
        (figure(1.0, 0.0, 2.0), "not distinguishable"),  # an interval that touches even does not leave it out
        (figure(1.0, 1e-9, 2.0), "above"),
        (figure(-1.0, -2.0, -1e-9), "below"),
        (figure(None, None, None), "unknown"),
    ],
)
def test_direction(measurement: Measurement, expected: str) -> None:
    assert direction(measurement) == expected


def test_numbers_are_written_with_a_minus_and_without_a_negative_zero() -> None:
    assert number(-1.25, 2) == "−1.25"
    assert number(-0.04, 1, with_sign=True) == "0.0"
    assert number(None) == "–"
    assert text_of(figure(1.0, 0.5, 1.5), with_sign=True) == "+1.0 [+0.5, +1.5]"
    assert (join_words([]), join_words(["a"]), join_words(["a", "b", "c"])) == ("", "a", "a, b and c")


def test_verdicts_are_group() -> None:
    verdicts = {"a": "last", "b, 1": "first", "c": "last"}
    order = ("first", "never", "last")
    assert group(verdicts, order) == ["first: b, 1.", "last: a; c."]
    assert count(verdicts, order) == "first in 1, last in 2 of 3 settings"


def test_methods_are_named_with_what_sets_their_dead_zone() -> None:
    assert method({"name": "apo_hinge_zero", "beta": 0.3, "margin": 1.0}) == "apo_hinge_zero m = 1"
    assert method({"name": "margin_sigmoid", "delta": 0.4}) == "margin_sigmoid δ = 0.4"
    assert method({"name": "dpo", "margin": None}) == "dpo"
