"""What a batch's families take, counted by hand."""

from __future__ import annotations

from trimtab.engine import grouping
from trimtab.engine.order import Order
from trimtab.records import TokenPair

PROMPT, OTHER = (1, 2, 3), (4,)
A, B, C = (5, 6), (7, 8, 9), (10, 11, 12, 13)


def pair(number: int, prompt: tuple[int, ...], chosen: tuple[int, ...], rejected: tuple[int, ...]) -> TokenPair:
    return TokenPair(id=str(number), prompt_ids=prompt, chosen_ids=chosen, rejected_ids=rejected)


PAIRS = [pair(0, PROMPT, A, B), pair(1, PROMPT, B, C), pair(2, PROMPT, A, C), pair(3, OTHER, A, B)]


def test_the_largest_family_has_the_prompt_and_each_response_once() -> None:
    assert grouping.largest_family(Order(4, 4, 1.0, seed=0), PAIRS) == 3 + 2 + 3 + 4


def test_a_family_is_what_of_a_prompt_meets_in_one_batch() -> None:
    """Batches of one pair: the second, of the longest responses, is the largest."""
    assert grouping.largest_family(Order(4, 1, 1.0, seed=0), PAIRS) == 3 + 3 + 4


def test_a_family_beyond_the_budget_is_counted_in_each_pack() -> None:
    """Prompt and three responses are 12 tokens; in packs of 11 a pair goes apart, with the prompt and its responses."""
    order = Order(3, 3, 1.0, seed=0)
    assert grouping.computed_tokens(order, PAIRS[:3], pack_tokens=12, layout="packed") == 12
    assert grouping.computed_tokens(order, PAIRS[:3], pack_tokens=11, layout="packed") > 12
    assert grouping.computed_tokens(order, PAIRS[:3], pack_tokens=1, layout="packed") == 3 * 3 + 2 * (2 + 3 + 4)


def test_rectangles_are_counted_with_their_padding() -> None:
    """Of each pair alone: two responses behind the prompt, as long as the longer."""
    order = Order(3, 3, 1.0, seed=0)
    rectangles = 2 * (3 + 3) + 2 * (3 + 4) + 2 * (3 + 4)
    assert grouping.computed_tokens(order, PAIRS[:3], pack_tokens=1, layout="padded") == rectangles
