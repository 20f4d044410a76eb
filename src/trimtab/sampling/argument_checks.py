"""What a caller of the decoder may hand in: settings, one for all prompts or one for each, and prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from trimtab.errors import ConfigError, DataError

Number = TypeVar("Number", int, float)


def per_prompt(
    value: Number | Sequence[Number], prompts: Sequence[object], name: str, *, minimum: float, words: str
) -> Sequence[Number]:
    """One setting a prompt, checked."""
    values = [value] * len(prompts) if isinstance(value, int | float) else same_length(value, prompts, name)
    for setting in [value] if isinstance(value, int | float) else values:
        if not minimum <= setting < float("inf"):
            raise ConfigError(f"{name} = {setting} cannot be used", remedy=f"{name} is {words}")
    return values


def same_length(values: Sequence[Number], prompts: Sequence[object], name: str) -> Sequence[Number]:
    if len(values) != len(prompts):
        raise ConfigError(f"{name}: {len(values)} for {len(prompts)} prompts", remedy="give one a prompt")
    return values


def check_prompts(prompts: Sequence[Sequence[int]], *, window: int, vocabulary: int) -> None:
    for index, prompt in enumerate(prompts):
        if not prompt:
            raise DataError(
                f"prompt {index} has no tokens", remedy="remove it, or start it with the model's first token"
            )
        if len(prompt) >= window:
            raise DataError(
                f"prompt {index} has {len(prompt)} tokens and leaves no room in the model's window of {window}",
                remedy="shorten the prompt, or leave it out",
            )
        if not 0 <= min(prompt) <= max(prompt) < vocabulary:
            raise DataError(
                f"prompt {index} holds a token id outside the model's vocabulary of {vocabulary}",
                remedy="use the tokenizer that belongs to this model",
            )
