"""Thoughts are no part of an answer, whatever tags they stand in."""

from __future__ import annotations

import pytest

from trimtab.endpoint.thoughts import without_thoughts


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>Like \"Rating: [[5]]\".</think>\nA clear one.\n\nRating: [[9]]", "A clear one.\n\nRating: [[9]]"),
        ("<think>so it is \"[[3]]\"</think>[[9]]", "[[9]]"),
        ("<think>\n\n</think>\n\nm", "m"),
        ("I read both. <think>[[3]]</think> Rating: [[9]]", "I read both.  Rating: [[9]]"),
        ("<think>one</think>[[1]]<think>two [[2]]</think> [[7]]", "[[1]] [[7]]"),
        ("thoughts whose opening the template wrote [[3]]\n</think>\n\n[[9]]", "[[9]]"),
        ("<think>cut before it came to an end: [[4]]", ""),
        ("<think>outer <think>inner</think> [[2]]</think> m", "m"),
        ("<THINKING>M</THINKING>m", "m"),
        ("<reasoning>M</reasoning>m", "m"),
        ("[THINK]M[/THINK]m", "m"),
        ("◁think▷M◁/think▷m", "m"),
        ("<|channel|>analysis<|message|>M<|end|><|start|>assistant<|channel|>final<|message|>m", "m"),
        ("Put the reasoning into `<think>` and close it with `</think>`.",
         "Put the reasoning into `<think>` and close it with `</think>`."),
        ("no thoughts < here", "no thoughts < here"),
        ("", ""),
    ],
)  # fmt: skip
def test_without_thoughts(text: str, answer: str) -> None:
    """The first is case J1b_think, whose right mark is 9."""
    assert without_thoughts(text) == answer
