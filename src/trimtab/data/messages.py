"""From the ways in which data sets write conversations to `Message`: role/content, from/value, transcripts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from trimtab.data.problems import Reason, RowFaultError
from trimtab.records import Message, Role

_ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
}
_MARKER = re.compile(r"(?:\A|\n\n)(Human|Assistant):")


def is_message(value: object) -> bool:
    """One turn as a mapping: `role`/`content`, or ShareGPT's `from`/`value`."""
    return isinstance(value, Mapping) and (
        ("role" in value and "content" in value) or ("from" in value and "value" in value)
    )


def is_conversation(value: object) -> bool:
    """A list of turns, also in the column form (`{"role": [...], "content": [...]}`) that Arrow structs may take."""
    if isinstance(value, Mapping):
        return is_message(value) and all(isinstance(column, list) for column in value.values())
    return isinstance(value, list) and bool(value) and is_message(value[0])


def is_transcript(value: object) -> bool:
    """HH-RLHF text: it opens with `Human:` or `Assistant:` and has both speakers."""
    if not isinstance(value, str) or not (first := _MARKER.match(value)):
        return False
    return first.start() == 0 and len({match[1] for match in _MARKER.finditer(value)}) == 2


def is_transcript_prompt(value: object) -> bool:
    """HH-RLHF text that stops where the assistant is to speak."""
    return is_transcript(value) and str(value).rstrip().endswith("\n\nAssistant:")


def to_conversation(value: object, *, column: str) -> tuple[Message, ...]:
    """Messages of one cell: a list of turns, or one turn alone.

    Raises `RowFaultError` when the cell is something else, or a speaker is not system, user or assistant.
    """
    if isinstance(value, Mapping) and is_conversation(value):
        keys = list(value)
        value = [dict(zip(keys, turn, strict=True)) for turn in zip(*(value[key] for key in keys), strict=True)]
    turns = [value] if isinstance(value, Mapping) else value
    if not isinstance(turns, list) or not turns:
        raise RowFaultError(Reason.MALFORMED, f"'{column}' holds {kind_of(value)} where messages were expected")
    return tuple(_to_message(turn, column=column, number=number) for number, turn in enumerate(turns, start=1))


def to_text(value: object, *, column: str) -> str:
    """The text of one cell. Raises `RowFaultError` when it is not text that can be written as UTF-8."""
    return _checked_text(value, where=f"'{column}'")


def parse_transcript(text: str, *, column: str) -> tuple[Message, ...]:
    """Turns of an HH-RLHF transcript. White space at the edges of a turn belongs to the notation and is dropped."""
    markers = list(_MARKER.finditer(text))
    if not markers or markers[0].start() > 0:
        raise RowFaultError(Reason.MALFORMED, f"'{column}' does not open with 'Human:' or 'Assistant:'")
    ends = [*(marker.start() for marker in markers[1:]), len(text)]
    return tuple(
        Message("user" if marker[1] == "Human" else "assistant", text[marker.end() : end].strip())
        for marker, end in zip(markers, ends, strict=True)
    )


def roles_fault(prompt: Sequence[Message]) -> str | None:
    """What is wrong with the order of speakers in a prompt, or None: (system,) user, assistant, …, user."""
    turns = prompt[1:] if prompt and prompt[0].role == "system" else prompt
    if not turns:
        return "there is no user message"
    for number, message in enumerate(turns):
        expected = "assistant" if number % 2 else "user"
        if message.role != expected:
            return f"message {len(prompt) - len(turns) + number + 1} is from the {message.role}, not the {expected}"
    return None if turns[-1].role == "user" else "the prompt ends with the assistant, not the user"


def _to_message(turn: object, *, column: str, number: int) -> Message:
    where = f"message {number} of '{column}'"
    if not isinstance(turn, Mapping) or not is_message(turn):
        raise RowFaultError(Reason.MALFORMED, f"{where} is {kind_of(turn)} without role and content")
    name, content = (turn["role"], turn["content"]) if "role" in turn else (turn["from"], turn["value"])
    role = _ROLES.get(str(name).strip().lower())
    if role is None:
        raise RowFaultError(Reason.WRONG_ROLES, f"{where} is from {name!r}; only system, user and assistant are known")
    return Message(role, _checked_text(_joined_parts(content), where=where))


def _checked_text(value: object, *, where: str) -> str:
    if not isinstance(value, str):
        raise RowFaultError(Reason.MALFORMED, f"{where} holds {kind_of(value)} where text was expected")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        detail = f"{where} holds half of a surrogate pair at character {error.start + 1}: not valid Unicode"
        raise RowFaultError(Reason.MALFORMED, detail) from None
    return value


def _joined_parts(content: Any) -> Any:
    """Content given as a list of text parts is their concatenation; any other part (an image) stays as it is."""
    if isinstance(content, list) and content and all(_is_text_part(part) for part in content):
        return "".join(part["text"] for part in content)
    return content


def _is_text_part(part: object) -> bool:
    return isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str)


def kind_of(value: object) -> str:
    """What a value is, in words for people."""
    names: dict[type, str] = {str: "text", bool: "a truth value", int: "a number", float: "a number", dict: "an object"}
    if value is None:
        return "nothing"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    return names.get(type(value), f"a {type(value).__name__}")
