"""What may be left of a prompt that is too long: the newest whole turns, behind the system message if it fits."""

from __future__ import annotations

from collections.abc import Sequence

from trimtab.records import Message


def shorter_prompts(messages: Sequence[Message]) -> list[tuple[Message, ...]]:
    """What may be left of a prompt, longest first: (the system message and) the turns from a later user message on."""
    system, turns = _system_and_turns(messages)
    starts = [number for number, message in enumerate(turns) if message.role == "user"]
    return [(*system, *turns[start:]) for start in starts[1:]]


def last_turn(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The last user message (and what, against the rules, may follow it) without the system message."""
    _, turns = _system_and_turns(messages)
    starts = [number for number, message in enumerate(turns) if message.role == "user"]
    return tuple(turns[starts[-1] :]) if starts else tuple(messages)


def _system_and_turns(messages: Sequence[Message]) -> tuple[Sequence[Message], Sequence[Message]]:
    return (messages[:1], messages[1:]) if messages[0].role == "system" else ((), messages)
