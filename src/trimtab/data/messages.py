"""From the ways in which data sets write conversations to `Message`: role/content, from/value, transcripts.

A key whose value is null is a key that is absent: columns of nested records have every key in every message.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from trimtab.data.problems import Reason, RowFaultError
from trimtab.data.tools import calls_of
from trimtab.records import Message, Role, compact_json

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",  # OpenAI's newer word
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
    "function_call": "assistant",  # ShareGPT's, whose value is the call
    "tool": "tool",
    "ipython": "tool",  # Llama 3's
    "function": "tool",
    "observation": "tool",
}
_CALL_KEYS = ("tool_calls", "function_call")
_PASSED_KEYS = ("name", "tool_call_id", "reasoning_content")  # to the template as they stand
_READ_KEYS = ("role", "content", "from", "value", *_CALL_KEYS, *_PASSED_KEYS)
MESSAGE_KEYS = {"content", "value", "tool_calls"}  # beside the speaker; a record with a role alone may be anything
# Parts of a message without which it means something else; a row that has one is refused by its name.
_UNREAD_PARTS = (
    "tools", "functions", "reasoning", "reasoning_details", "thinking",
    "images", "image", "videos", "video", "audios", "audio",
)  # fmt: skip
_MARKER = re.compile(r"(?:\A|\n\n)(Human|Assistant):")
_NEMO_MARKER = re.compile(r"\n?<extra_id_1>(User|Assistant)\n")  # of HelpSteer2's longer prompts
# Python's or numpy's way of writing messages, as it comes out of CSV files; its first key tells it from other records
_PYTHON_MESSAGES = re.compile(r"\[?\s*\{\s*'(?:role|from|content|value)'\s*:.*\}\s*\]?", re.DOTALL)


def is_filled(value: object) -> bool:
    """Whether a cell holds anything: null, empty text, and lists and records of nothing else, are as good as absent."""
    if isinstance(value, Mapping):
        return any(map(is_filled, value.values()))
    if isinstance(value, list | tuple):
        return any(map(is_filled, value))
    return value is not None and value != ""


def has_parts(value: object) -> bool:
    """Whether a cell for tools, calls or images holds any; written as JSON text, `[]` is none."""
    return is_filled(value) and not (isinstance(value, str) and value.strip() in ("[]", "{}", "null"))


def is_message(value: object) -> bool:
    """One turn as a mapping: `role`/`content`, or ShareGPT's `from`/`value`. What it lacks is for its reader to say."""
    return isinstance(value, Mapping) and (value.get("role") is not None or value.get("from") is not None)


def is_conversation(value: object) -> bool:
    """A list of turns, also in the column form (`{"role": [...], "content": [...]}`) that Arrow structs may take."""
    if isinstance(value, Mapping):
        return is_message(value) and all(isinstance(column, list) for column in value.values() if column is not None)
    return isinstance(value, list) and bool(value) and is_message(value[0])


def turns_of(value: object) -> list[object]:
    """The turns of one cell as they stand: a list of them, the column form, or one turn alone; else nothing."""
    if isinstance(value, Mapping):
        if not is_conversation(value):
            return [value]
        columns = {key: column for key, column in value.items() if column is not None}
        return [dict(zip(columns, turn, strict=True)) for turn in zip(*columns.values(), strict=True)]
    return value if isinstance(value, list) else []


def messages_as_text(value: object) -> bool:
    """A conversation, or one message, written as text: JSON or Python that nobody parsed."""
    text = value.strip() if isinstance(value, str) else ""
    if text[:1] not in ("[", "{") or text[-1:] not in ("]", "}"):
        return False
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        return _PYTHON_MESSAGES.fullmatch(text) is not None
    turns = tree if isinstance(tree, list) else [tree]
    return bool(turns) and all(is_message(turn) and MESSAGE_KEYS & set(turn) for turn in turns)


def is_transcript(value: object) -> bool:
    """HH-RLHF text: it opens with `Human:` or `Assistant:` and has both speakers."""
    if not isinstance(value, str) or not (first := _MARKER.match(value)):
        return False
    return first.start() == 0 and len({match[1] for match in _MARKER.finditer(value)}) == 2


def is_transcript_prompt(value: object) -> bool:
    """HH-RLHF text that stops where the assistant is to speak."""
    return is_transcript(value) and str(value).rstrip().endswith("\n\nAssistant:")


def to_conversation(value: object, *, column: str) -> tuple[Message, ...]:
    """Messages of one cell: a list of turns, or one turn alone. A system message without content is left out.

    Raises `RowFaultError` when the cell is something else, a speaker is not system, user, assistant or tool, or a
    message has a part that is not read.
    """
    turns = turns_of(value)
    if not turns:
        raise RowFaultError(Reason.UNREADABLE, f"'{column}' holds {kind_of(value)} where messages were expected")
    places = [f"message {number} of '{column}'" for number in range(1, len(turns) + 1)]
    # all roles before any content: a conversation with a tool is one with a tool, wherever its calls stand
    roles = [_role(turn, place=place) for turn, place in zip(turns, places, strict=True)]
    maybe = [_message(turn, role, place=place) for turn, role, place in zip(turns, roles, places, strict=True)]
    messages = tuple(message for message in maybe if message is not None)
    if not messages:
        raise RowFaultError(Reason.UNREADABLE, f"'{column}' holds a system message without content alone")
    return messages


def unread_keys(value: object) -> list[str]:
    """Keys of a cell's messages that are filled and not read."""
    turns = [turn for turn in turns_of(value) if isinstance(turn, Mapping)]
    return [key for turn in turns for key in turn if key not in _READ_KEYS and is_filled(turn[key])]


def to_text(value: object, *, column: str) -> str:
    """The text of one cell. Raises `RowFaultError` when it is not text that can be written as UTF-8, or is a
    conversation that was written as text."""
    if messages_as_text(value):
        raise RowFaultError(Reason.UNREADABLE, f"'{column}' holds messages written as text")
    return _checked_text(value, place=f"'{column}'")


def parse_transcript(text: str, *, column: str) -> tuple[Message, ...]:
    """Turns of an HH-RLHF transcript. White space at the edges of a turn belongs to the notation and is dropped."""
    markers = list(_MARKER.finditer(text))
    if not markers or markers[0].start() > 0:
        raise RowFaultError(Reason.UNREADABLE, f"'{column}' does not open with 'Human:' or 'Assistant:'")
    ends = [*(marker.start() for marker in markers[1:]), len(text)]
    return tuple(
        Message("user" if marker[1] == "Human" else "assistant", text[marker.end() : end].strip())
        for marker, end in zip(markers, ends, strict=True)
    )


def parse_prompt(text: str, *, column: str) -> tuple[Message, ...]:
    """A prompt given as text: one message of the user, or the turns of a HelpSteer2 prompt, which opens with the user
    and marks each later turn `<extra_id_1>User` or `<extra_id_1>Assistant`."""
    text = to_text(text, column=column)
    first, *rest = _NEMO_MARKER.split(text)
    if "Assistant" not in rest[::2]:
        return (Message("user", text),)
    turns = zip(("User", *rest[::2]), (first, *rest[1::2]), strict=True)
    return tuple(Message("user" if speaker == "User" else "assistant", turn.strip()) for speaker, turn in turns)


def roles_fault(prompt: Sequence[Message]) -> str | None:
    """What is wrong with the order of speakers in a prompt, or None: (system,) user, assistant, …, user.

    Between a message of the assistant that calls tools and the next one stand the tools' results.
    """
    turns = prompt[1:] if prompt and prompt[0].role == "system" else prompt
    if not turns:
        return "there is no user message"
    expected: tuple[Role, ...] = ("user",)
    for number, message in enumerate(turns, len(prompt) - len(turns) + 1):
        if message.role not in expected:
            fault = f"message {number} is from the {message.role}, not the {' or the '.join(expected)}"
            return fault + (" whose result the call before it asks for" if expected == ("tool",) else "")
        expected = _next_speakers(message)
    if turns[-1].role != "assistant":
        return None
    return "the prompt ends with the assistant, not the user" + (" or a tool" if expected == ("tool",) else "")


def steps_fault(messages: Sequence[Message]) -> str | None:
    """What is wrong with a response of several messages, or None: calls, each with the tools' results behind it, and
    then an answer."""
    expected: tuple[Role, ...] = ("assistant",)
    for number, message in enumerate(messages, 1):
        if message.role in expected:
            expected = ("tool", "assistant") if message.role == "tool" else _next_speakers(message)
        elif expected == ("tool",):
            return f"message {number} is from the {message.role}, and the tool call before it has no result"
        else:
            return f"message {number} is from the {message.role}, not the {' or the '.join(expected)}"
    return None


def _next_speakers(message: Message) -> tuple[Role, ...]:
    match message.role:
        case "tool":
            return ("tool", "assistant")
        case "assistant":
            return ("tool",) if '"tool_calls"' in message.extras else ("user",)
        case _:
            return ("assistant",)


def _role(turn: object, *, place: str) -> Role:
    if not isinstance(turn, Mapping) or not is_message(turn):
        raise RowFaultError(Reason.UNREADABLE, f"{place} is {kind_of(turn)} without role and content")
    name = turn["role"] if turn.get("role") is not None else turn["from"]
    role = _ROLES.get(str(name).strip().lower())
    if role is None:
        raise RowFaultError(
            Reason.WRONG_ROLES, f"{place} is from {name!r}; only system, user, assistant and tool are known"
        )
    return role


def _message(turn: object, role: Role, *, place: str) -> Message | None:
    """The message; None for a system message without content."""
    assert isinstance(turn, Mapping), "_role has looked"
    for part in _UNREAD_PARTS:
        if has_parts(turn.get(part)):
            raise RowFaultError(Reason.NOT_READ, f"{place} has {part!r}")
    content = turn["content"] if turn.get("content") is not None else turn.get("value")
    if content is None and role == "system":
        return None
    extras = {key: turn[key] for key in _PASSED_KEYS if is_filled(turn.get(key))}
    if str(turn.get("from")).strip().lower() == "function_call":
        content, turn = "", {"tool_calls": content}
    for key in _CALL_KEYS:
        if has_parts(turn.get(key)):
            extras["tool_calls"] = calls_of(turn[key], place=place)
            content = "" if content is None else content
    if "tool_calls" in extras and role != "assistant":
        raise RowFaultError(Reason.WRONG_ROLES, f"{place} calls a tool and is from the {role}")
    if content is None:
        raise RowFaultError(Reason.UNREADABLE, f"{place} has no content")
    text = _checked_text(_joined_parts(content, place=place), place=place)
    return Message(role, text, compact_json(extras) if extras else "")


def _checked_text(value: object, *, place: str) -> str:
    if not isinstance(value, str):
        raise RowFaultError(Reason.UNREADABLE, f"{place} holds {kind_of(value)} where text was expected")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        detail = f"{place} holds half of a surrogate pair at character {error.start + 1}: not valid Unicode"
        raise RowFaultError(Reason.UNREADABLE, detail) from None
    return value


def _joined_parts(content: object, *, place: str) -> object:
    """Content given as a list of text parts is their concatenation."""
    if not isinstance(content, list) or not content or not all(isinstance(part, Mapping) for part in content):
        return content
    for part in content:
        if part.get("type") not in (None, "text") or not isinstance(part.get("text"), str):
            raise RowFaultError(Reason.NOT_READ, f"{place} holds a part of type {part.get('type')!r}")
    return "".join(part["text"] for part in content)


def kind_of(value: object) -> str:
    """What a value is, in words for people."""
    names: dict[type, str] = {str: "text", bool: "a truth value", int: "a number", float: "a number", dict: "an object"}
    if value is None:
        return "nothing"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    return names.get(type(value), f"a {type(value).__name__}")
