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
