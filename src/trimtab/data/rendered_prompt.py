"""A prompt and its responses, rendered and tokenised: what `chat` works with."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.data.problems import Reason, RowFaultError
from trimtab.data.rendering import Arguments
from trimtab.records import Message, Ranges

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ResponseIds:
    """`foreign`: half-open ranges of the ids that the assistant did not write."""

    ids: Ids
    foreign: Ranges = ()


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    """`messages` are what is left of a prompt, `arguments` what the template is given."""

    messages: tuple[Message, ...]
    multi_turn: bool
    text: str
    ids: Ids
    arguments: Arguments


def text_behind(prompt: str, whole: str) -> str:
    """What the whole text has behind the prompt. The header may differ in its last white space, nowhere else."""
    if whole.startswith(prompt):
        return whole[len(prompt) :]
    bare = prompt.rstrip()
    if whole.startswith(bare):
        return whole[len(bare) :].lstrip()
    raise RowFaultError(
        Reason.TEMPLATE_REFUSED, "with this response the template renders another prompt (reasoning marks in the text?)"
    )
