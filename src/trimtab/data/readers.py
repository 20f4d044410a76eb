"""How the columns of one row become a prompt and its responses: a reader for each published shape.

Readers find columns by their canonical names. What is wrong with a row is a `RowFaultError`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from trimtab.data.messages import (
    is_filled,
    is_transcript_prompt,
    parse_prompt,
    parse_transcript,
    steps_fault,
    to_conversation,
    to_text,
)
from trimtab.data.problems import Reason, RowFaultError
from trimtab.records import Message, compact_json

Row = Mapping[str, object]

TURN_COLUMNS = ("conversations", "messages")


class Parts(NamedTuple):
    """What a row holds: chosen and rejected; one response with its label; or responses with their scores (NaN for
    none)."""

    prompt: tuple[Message, ...]
    responses: tuple[Message, ...]
    label: bool | None = None
    scores: tuple[float, ...] = ()


Reader = Callable[[Row], Parts]


def prompt_of(row: Row) -> tuple[Message, ...]:
    """The column `prompt`, text or messages."""
    prompt = row.get("prompt")
    if isinstance(prompt, str):
        return parse_prompt(prompt, column="prompt")
    return to_conversation(prompt, column="prompt")


def read_explicit(row: Row) -> Parts:
    return Parts(prompt_of(row), _both(row))


def read_conversations(row: Row) -> Parts:
    chosen, rejected = (to_conversation(row.get(side), column=side) for side in ("chosen", "rejected"))
    first_roles = {chosen[0].role, rejected[0].role}
    begin_at_answer = first_roles <= {"assistant", "tool"} and is_filled(row.get("prompt"))
    if begin_at_answer or len(chosen) == len(rejected) == 1:
        return read_explicit(row)
    if chosen[:-1] == rejected[:-1]:
        return Parts(chosen[:-1], (answer_of(chosen[-1], "chosen"), answer_of(rejected[-1], "rejected")))
    if (n := _shared_prompt(chosen, rejected)) is None:
        raise RowFaultError(Reason.PROMPT_MISMATCH, _first_difference(chosen[:-1], rejected[:-1]))
    return Parts(chosen[:n], (whole_response(chosen[n:], "chosen"), whole_response(rejected[n:], "rejected")))


def _shared_prompt(chosen: Sequence[Message], rejected: Sequence[Message]) -> int | None:
    """How many messages two conversations share before the assistant goes on in each by itself, with tools in one of
    them at least; None where that is not how they differ."""
    pairs = list(zip(chosen, rejected, strict=False))
    n_equal = next((n for n, (a, b) in enumerate(pairs) if a != b), len(pairs))
    later = [*chosen[n_equal:], *rejected[n_equal:]]
    if not any(message.role == "tool" for message in later) or any(message.role == "user" for message in later):
        return None
    places = range(min(n_equal, len(chosen) - 1, len(rejected) - 1), 0, -1)
    return next((n for n in places if chosen[n - 1].role in ("user", "tool")), None)


def read_transcripts(row: Row) -> Parts:
    chosen, rejected = (
        parse_transcript(to_text(row.get(side), column=side), column=side) for side in ("chosen", "rejected")
    )
    for side, turns in (("chosen", chosen), ("rejected", rejected)):
        if turns[-1].role != "assistant":
            raise RowFaultError(Reason.WRONG_ROLES, f"the transcript in '{side}' ends with the human")
    if chosen[:-1] != rejected[:-1]:
        raise RowFaultError(Reason.PROMPT_MISMATCH, _first_difference(chosen[:-1], rejected[:-1]))
    return Parts(chosen[:-1], (chosen[-1], rejected[-1]))


def read_transcript_prompt(row: Row) -> Parts:
    turns = parse_transcript(to_text(row.get("prompt"), column="prompt"), column="prompt")
    if turns[-1] != Message("assistant", ""):
        raise RowFaultError(Reason.WRONG_ROLES, "the transcript in 'prompt' does not stop where the assistant speaks")
    return Parts(turns[:-1], tuple(Message("assistant", response.content.strip()) for response in _both(row)))


def read_sharegpt(row: Row) -> Parts:
    return Parts(turns_before(row), _both(row))


def read_instruction(row: Row) -> Parts:
    """LLaMA-Factory's and Alpaca's instruction files: earlier turns, then the instruction and its input."""
    return Parts(instruction_of(row), _both(row))


def instruction_of(row: Row) -> tuple[Message, ...]:
    """Earlier turns, the instruction and its input."""
    parts = [to_text(row[name], column=name) for name in ("instruction", "input") if is_filled(row.get(name))]
    return (*_history(row.get("history")), Message("user", "\n".join(parts)))


def turns_before(row: Row) -> tuple[Message, ...]:
    """The conversation in whichever column has it."""
    column = next((name for name in TURN_COLUMNS if row.get(name)), TURN_COLUMNS[0])
    return to_conversation(row.get(column), column=column)


def read_orca(row: Row) -> Parts:
    return Parts((Message("user", to_text(row.get("question"), column="question")),), _both(row))


def read_prompt(row: Row) -> tuple[Message, ...]:
    """The prompt of a row that need not have responses: `prompt`, `instruction`, `question`, a conversation (up to its
    last question) or MT-Bench's `turns`, of which the first is read."""
    if is_transcript_prompt(prompt := row.get("prompt")):
        messages = parse_transcript(to_text(prompt, column="prompt"), column="prompt")[:-1]
    elif isinstance(prompt, str):
        messages = prompt_of(row)
    elif is_filled(row.get("instruction")):
        messages = instruction_of(row)
    elif is_filled(row.get("question")):
        messages = (Message("user", to_text(row["question"], column="question")),)
    elif isinstance(turns := row.get("turns"), list) and turns:
        messages = (Message("user", to_text(turns[0], column="turns")),)
    else:
        column = next((name for name in ("prompt", *TURN_COLUMNS) if is_filled(row.get(name))), "prompt")
        messages = to_conversation(row.get(column), column=column)
        while len(messages) > 1 and messages[-1].role == "assistant":
            messages = messages[:-1]
    return with_system(messages, row)


def with_system(prompt: tuple[Message, ...], row: Row) -> tuple[Message, ...]:
    """The prompt behind the text of the row's `system` column."""
    if not is_filled(row.get("system")):
        return prompt
    text = to_text(row["system"], column="system")
    if prompt and prompt[0].role == "system":
        if text.strip() and text.strip() != prompt[0].content.strip():
            detail = "'system' and the conversation's own system message differ"
            raise RowFaultError(Reason.NOT_READ, detail)
        return prompt
    return (Message("system", text), *prompt) if text.strip() else prompt


def _history(turns: object) -> tuple[Message, ...]:
    """Earlier turns as `[[question, answer], …]`."""
    if not is_filled(turns):
        return ()
    if not isinstance(turns, list) or not all(isinstance(turn, list | tuple) and len(turn) == 2 for turn in turns):
        raise RowFaultError(Reason.UNREADABLE, "'history' holds something else than pairs of question and answer")
    return tuple(
        message
        for question, answer in turns
        for message in (
            Message("user", to_text(question, column="history")),
            Message("assistant", to_text(answer, column="history")),
        )
    )


def _both(row: Row) -> tuple[Message, Message]:
    return response_of(row, "chosen"), response_of(row, "rejected")


def response_of(row: Row, side: str) -> Message:
    """One response: a text, an assistant message, or a list with that one message."""
    value = row.get(side)
    if value is None or isinstance(value, str):
        return Message("assistant", to_text(value, column=side))
    return whole_response(to_conversation(value, column=side), side)


def whole_response(messages: Sequence[Message], side: str) -> Message:
    """One response, whose calls and their results stand in `steps`."""
    *steps, last = messages
    if steps and not any(message.role == "tool" or '"tool_calls"' in message.extras for message in messages):
        raise RowFaultError(
            Reason.WRONG_ROLES, f"'{side}' holds {len(messages)} messages where one response was expected"
        )
    if steps and (fault := steps_fault(messages)):
        raise RowFaultError(Reason.WRONG_ROLES, f"the response in '{side}': {fault}")
    answer_of(last, side)
    if not steps:
        return last
    extras = {"steps": [message.to_json() for message in steps]} | json.loads(last.extras or "{}")
    return replace(last, extras=compact_json(extras))


def answer_of(message: Message, side: str) -> Message:
    if message.role != "assistant":
        raise RowFaultError(Reason.WRONG_ROLES, f"the response in '{side}' is from the {message.role}")
    return message


def _first_difference(chosen: Sequence[Message], rejected: Sequence[Message]) -> str:
    if len(chosen) != len(rejected):
        return f"messages before the response: {len(chosen)} in 'chosen', {len(rejected)} in 'rejected'"
    number = next(number for number, pair in enumerate(zip(chosen, rejected, strict=True), 1) if pair[0] != pair[1])
    return f"message {number} differs between 'chosen' and 'rejected'"
