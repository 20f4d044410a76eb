"""Which side, which order, what a choice means, and that what is stored means the same the other way round."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arena_sessions import matches
from trimtab.studies.arena import PICKS, Choice, Match, in_order


def turned(match: Match) -> Match:
    """The same answers with B named first."""
    return Match(match.prompt_id, match.prompt, match.second, match.first, match.dataset)


@pytest.mark.parametrize(
    ("said", "low_on_left", "value"),
    [
        ("left", True, 1.0),
        ("left", False, 2.0),
        ("right", True, 2.0),
        ("right", False, 1.0),
        ("tie", True, 1.5),
        ("both bad", False, 1.5),
    ],
)
def test_what_a_choice_means(said: str, low_on_left: bool, value: float) -> None:
    choice = Choice(said, low_on_left, 1.0)  # type: ignore[arg-type]  # parametrised literals
    low_first = Match("p", ("asked",), ("a",), ("b",))
    assert choice.value == value
    assert choice.preference(low_first) == value
    assert choice.preference(turned(low_first)) == 3 - value, "who is preferred does not depend on who is named first"
    assert choice.first_on_left(low_first) is low_on_left
    assert choice.first_on_left(turned(low_first)) is not low_on_left


@settings(max_examples=100)
@given(st.sampled_from(PICKS), st.booleans(), st.floats(0, 1e6))
def test_a_stored_choice_is_read_back(said: str, low_on_left: bool, seconds: float) -> None:
    choice = Choice(said, low_on_left, seconds)  # type: ignore[arg-type]  # sampled from the literals
    again = Choice.from_note(json.loads(json.dumps(choice.note())))
    assert (again.pick, again.low_on_left, again.value) == (said, low_on_left, choice.value)
    assert again.seconds == pytest.approx(seconds, abs=1e-3)


def test_the_coin_is_fair_and_another_seed_is_another_coin() -> None:
    asked = matches(2000)
    left = [match.low_on_left(seed=0) for match in asked]
    other = [match.low_on_left(seed=1) for match in asked]
    assert 900 < sum(left) < 1100  # 4.5 standard deviations of a fair coin
    assert 900 < sum(x == y for x, y in zip(left, other, strict=True)) < 1100


def test_the_same_texts_lie_on_the_same_sides_whichever_run_is_named_first() -> None:
    for match in matches(50):
        assert match.content == turned(match).content
        assert match.low_on_left(seed=3) is turned(match).low_on_left(seed=3)
        assert match.first_is_low is not turned(match).first_is_low


def test_content_tells_prompts_turns_and_answers_apart() -> None:
    base = Match("p", ("q",), ("a",), ("b",))
    others = [
        Match("p", ("q2",), ("a",), ("b",)),
        Match("p", ("q",), ("a2",), ("b",)),
        Match("p", ("q", ""), ("a", ""), ("b", "")),
        Match("p", ("q",), ("a",), ("a",)),
    ]
    assert len({base.content, *(other.content for other in others)}) == 5
    assert Match("another id", ("q",), ("a",), ("b",)).content == base.content


def test_the_order_is_a_shuffle_and_a_larger_limit_adds_to_a_smaller_one() -> None:
    asked = matches(40)
    everything = in_order(asked, seed=0)
    assert sorted(m.prompt_id for m in everything) == sorted(m.prompt_id for m in asked)
    assert everything != asked
    assert in_order(reversed(asked), seed=0) == everything
    assert in_order(asked, seed=0, limit=7) == everything[:7]
    assert in_order(asked, seed=1) != everything
    assert [m.prompt_id for m in in_order(map(turned, asked), seed=0)] == [m.prompt_id for m in everything]
