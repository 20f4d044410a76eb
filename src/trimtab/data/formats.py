"""Which of the published shapes of preference data a source has, and how a row of it becomes a `Pair`.

    shape          columns                                    prompt                      responses
    explicit       prompt, chosen, rejected                   text or messages            text or one message
    conversations  (prompt,) chosen, rejected                 the messages before the     whole conversations that share
                                                              last one of each            every message but the last
    transcript     (prompt,) chosen, rejected                 `Human:`/`Assistant:` text  after the last `Assistant:`
    sharegpt       conversations (or messages), chosen, …     from/value or role/content  one message or text
    orca           (system,) question, chosen, rejected       text                        text or one message

`conversations` covers TRL's implicit prompt and UltraFeedback-binarized as published, where the prompt column repeats
one message of the conversation and is not read. A `system` column is put before any prompt that has no system message.
The shared prompt is found message by message, never by comparing characters. A prompt given as text becomes one user
message and the pair is marked `plain`; whether a template wraps it is decided by the tokenizer, in `chat`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, assert_never

from trimtab.data.messages import (
    is_conversation,
    is_message,
    is_transcript,
    is_transcript_prompt,
    parse_transcript,
    to_conversation,
    to_text,
)
from trimtab.data.problems import Reason, RowFaultError, RowProblem
from trimtab.errors import DataError
from trimtab.records import Message, Pair

FormatName = Literal["explicit", "conversations", "transcript", "sharegpt", "orca"]
Shape = Literal["text", "message", "conversation", "nothing", "other"]
Parts = tuple[tuple[Message, ...], str, str]

COLUMN_ROLES = ("prompt", "chosen", "rejected", "system")
_TURNS = ("conversations", "messages")
_COLUMNS_READ: dict[FormatName, tuple[str, ...]] = {
    "explicit": COLUMN_ROLES,
    "conversations": COLUMN_ROLES,
    "transcript": COLUMN_ROLES,
    "sharegpt": (*_TURNS, "chosen", "rejected", "system"),
    "orca": ("question", "chosen", "rejected", "system"),
}
_MAX_META_CHARACTERS = 200
_ACCEPTED = """accepted shapes:
    prompt, chosen, rejected                 text, or lists of messages (role, content)
    chosen, rejected                         whole conversations that share their prompt
    chosen, rejected                         transcripts with '\\n\\nHuman:' and '\\n\\nAssistant:' (HH-RLHF)
    conversations, chosen, rejected          ShareGPT turns (from, value)
    system, question, chosen, rejected       Orca"""
_REMEDY = "say which columns they are: --columns prompt=…,chosen=…,rejected=… (and system=… if there is one)"


@dataclass(frozen=True, slots=True)
class Format:
    """The shape of a source's rows. `columns` are the names that the reader looks for, by the names in the file."""

    name: FormatName
    columns: Mapping[str, str]
    _read: Callable[[Mapping[str, Any]], Parts]

    def to_pair(self, row_id: str, row: Mapping[str, Any]) -> Pair | RowProblem:
        """Read one row. What is wrong with a row is a value, not an exception, so that every row can be counted."""
        named = _renamed(row, self.columns)
        try:
            prompt, chosen, rejected = self._read(named)
            prompt = _with_system(prompt, named)
        except RowFaultError as fault:
            return fault.at(row_id)
        plain = self.name == "explicit" and len(prompt) == 1 and isinstance(named["prompt"], str)
        return Pair(row_id, prompt, chosen, rejected, plain=plain, meta=_meta(row, read=set(self.columns)))


def detect_format(
    head: Sequence[Mapping[str, Any]], *, source: str, columns: Mapping[str, str] | None = None
) -> Format:
    """Tell the shape of a source from its first rows.

    `columns` maps `prompt`, `chosen`, `rejected` and `system` to the names in the file; columns it does not name are
    not read. Raises `DataError`, with the columns found and the accepted shapes, when the rows have none of them.
    """
    found = list(dict.fromkeys(name for row in head for name in row))
    names = _checked_mapping(columns, found=found, source=source) if columns else {name: name for name in found}
    rows = [_renamed(row, names) for row in head]
    for side in ("chosen", "rejected"):
        if all(row.get(side) is None for row in rows):
            fault = "is empty in the first rows" if any(side in row for row in rows) else "is missing"
            raise _shape_error(source, found, f"column '{side}' {fault}")
    sample = next((row for row in rows if row.get("chosen") is not None and row.get("rejected") is not None), rows[0])
    shapes = {name: _shape(sample.get(name)) for name in ("prompt", "chosen", "rejected", "question", *_TURNS)}
    name, read = _reader(sample, shapes, source=source, found=found)
    return Format(
        name, {file: canonical for file, canonical in names.items() if canonical in _COLUMNS_READ[name]}, read
    )


# ---- which reader ----------------------------------------------------------------------------------------------------


def _reader(
    sample: Mapping[str, Any], shapes: Mapping[str, Shape], *, source: str, found: list[str]
) -> tuple[FormatName, Callable[[Mapping[str, Any]], Parts]]:
    match shapes["chosen"], shapes["rejected"]:
        case ("text", "text") | ("message", "message") | ("conversation", "conversation"):
            pass
        case chosen, rejected:
            raise _shape_error(source, found, f"'chosen' holds {_said(chosen)} and 'rejected' {_said(rejected)}")
    if _has_stringified_messages(sample):
        raise DataError(
            f"{source}: 'chosen' holds a conversation written as text",
            remedy="save the data as JSON lines or Parquet, so that messages stay lists of role and content",
        )
    if is_transcript(sample["chosen"]):
        return "transcript", _read_transcripts
    if shapes["chosen"] == "conversation" and len(to_conversation(sample["chosen"], column="chosen")) > 1:
        return "conversations", _read_conversations
    return _reader_by_prompt(sample, shapes, source=source, found=found)


def _reader_by_prompt(
    sample: Mapping[str, Any], shapes: Mapping[str, Shape], *, source: str, found: list[str]
) -> tuple[FormatName, Callable[[Mapping[str, Any]], Parts]]:
    if is_transcript_prompt(sample.get("prompt")):
        return "transcript", _read_transcript_prompt
    if shapes["prompt"] in ("text", "conversation", "message"):
        return "explicit", _read_explicit
    if any(shapes[name] == "conversation" for name in _TURNS):
        return "sharegpt", _read_sharegpt
    if shapes["question"] == "text":
        return "orca", _read_orca
    if shapes["chosen"] == "text" and shapes["prompt"] == "nothing":
        why = "'chosen' and 'rejected' are text, but no column holds the prompt they answer"
        raise _shape_error(source, found, why)
    raise _shape_error(source, found, f"'prompt' holds {_said(shapes['prompt'])}")


def _has_stringified_messages(sample: Mapping[str, Any]) -> bool:
    text = sample["chosen"]
    return isinstance(text, str) and re.match(r"\s*\[\s*\{\s*['\"](role|content|from|value)['\"]\s*:", text) is not None


def _shape(value: object) -> Shape:
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return "text"
    if is_conversation(value):
        return "conversation"
    return "message" if is_message(value) else "other"


def _said(shape: Shape) -> str:
    match shape:
        case "text" | "nothing":
            return shape
        case "message":
            return "one message"
        case "conversation":
            return "a list of messages"
        case "other":
            return "neither text nor messages"
        case _:
            assert_never(shape)


def _checked_mapping(columns: Mapping[str, str], *, found: list[str], source: str) -> dict[str, str]:
    """The names in the file by what they stand for, after each was found there."""
    unknown = [role for role in columns if role not in COLUMN_ROLES]
    if unknown or not {"chosen", "rejected"} <= set(columns):
        fault = (
            f"'{unknown[0]}' is none of the parts of a pair" if unknown else "both chosen and rejected must be named"
        )
        raise DataError(f"--columns: {fault}", remedy=_REMEDY)
    for role, name in columns.items():
        if name not in found:
            close = difflib.get_close_matches(name, found, n=1)
            raise DataError(
                f"{source}: --columns {role}={name}, but there is no column '{name}'; columns found: {_listed(found)}",
                remedy=f"did you mean {role}={close[0]}?" if close else f"name one of the columns found for {role}",
            )
    if len(set(columns.values())) < len(columns):
        raise DataError("--columns: one column cannot stand for two parts of a pair", remedy=_REMEDY)
    return {name: role for role, name in columns.items()}


def _shape_error(source: str, found: list[str], why: str) -> DataError:
    return DataError(f"{source}: {why}; columns found: {_listed(found)}\n  {_ACCEPTED}", remedy=_REMEDY)


def _listed(found: list[str]) -> str:
    return ", ".join(found) or "none"


# ---- readers: the columns of one row to (prompt, chosen, rejected) ---------------------------------------------------


def _read_explicit(row: Mapping[str, Any]) -> Parts:
    prompt = row.get("prompt")
    if isinstance(prompt, str):
        messages: tuple[Message, ...] = (Message("user", to_text(prompt, column="prompt")),)
    else:
        messages = to_conversation(prompt, column="prompt")
    return messages, _response(row, "chosen"), _response(row, "rejected")


def _read_conversations(row: Mapping[str, Any]) -> Parts:
    chosen, rejected = (to_conversation(row.get(side), column=side) for side in ("chosen", "rejected"))
    if len(chosen) == len(rejected) == 1:
        return _read_explicit(row)
    if chosen[:-1] != rejected[:-1]:
        raise RowFaultError(Reason.PROMPT_MISMATCH, _first_difference(chosen[:-1], rejected[:-1]))
    return chosen[:-1], _spoken(chosen[-1], "chosen"), _spoken(rejected[-1], "rejected")


def _read_transcripts(row: Mapping[str, Any]) -> Parts:
    chosen, rejected = (
        parse_transcript(to_text(row.get(side), column=side), column=side) for side in ("chosen", "rejected")
    )
    for side, turns in (("chosen", chosen), ("rejected", rejected)):
        if turns[-1].role != "assistant":
            raise RowFaultError(Reason.WRONG_ROLES, f"the transcript in '{side}' ends with the human")
    if chosen[:-1] != rejected[:-1]:
        raise RowFaultError(Reason.PROMPT_MISMATCH, _first_difference(chosen[:-1], rejected[:-1]))
    return chosen[:-1], chosen[-1].content, rejected[-1].content


def _read_transcript_prompt(row: Mapping[str, Any]) -> Parts:
    turns = parse_transcript(to_text(row.get("prompt"), column="prompt"), column="prompt")
    if turns[-1] != Message("assistant", ""):
        raise RowFaultError(Reason.WRONG_ROLES, "the transcript in 'prompt' does not stop where the assistant speaks")
    return turns[:-1], _response(row, "chosen").strip(), _response(row, "rejected").strip()


def _read_sharegpt(row: Mapping[str, Any]) -> Parts:
    column = next((name for name in _TURNS if row.get(name)), _TURNS[0])
    return to_conversation(row.get(column), column=column), _response(row, "chosen"), _response(row, "rejected")


def _read_orca(row: Mapping[str, Any]) -> Parts:
    prompt = (Message("user", to_text(row.get("question"), column="question")),)
    return prompt, _response(row, "chosen"), _response(row, "rejected")


def _response(row: Mapping[str, Any], side: str) -> str:
    """The text of one response: a text, an assistant message, or a list with that one message."""
    value = row.get(side)
    if value is None or isinstance(value, str):
        return to_text(value, column=side)
    messages = to_conversation(value, column=side)
    if len(messages) != 1:
        raise RowFaultError(
            Reason.WRONG_ROLES, f"'{side}' holds {len(messages)} messages where one response was expected"
        )
    return _spoken(messages[0], side)


def _spoken(message: Message, side: str) -> str:
    if message.role != "assistant":
        raise RowFaultError(Reason.WRONG_ROLES, f"the response in '{side}' is from the {message.role}")
    return message.content


def _with_system(prompt: tuple[Message, ...], row: Mapping[str, Any]) -> tuple[Message, ...]:
    system = row.get("system")
    if system is None or (prompt and prompt[0].role == "system"):
        return prompt
    text = to_text(system, column="system")
    return (Message("system", text), *prompt) if text.strip() else prompt


def _first_difference(one: Sequence[Message], other: Sequence[Message]) -> str:
    if len(one) != len(other):
        return f"messages before the response: {len(one)} in 'chosen', {len(other)} in 'rejected'"
    number = next(number for number, pair in enumerate(zip(one, other, strict=True), start=1) if pair[0] != pair[1])
    return f"message {number} differs between 'chosen' and 'rejected'"


def _renamed(row: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {canonical: row[name] for name, canonical in names.items() if name in row}


def _meta(row: Mapping[str, Any], *, read: set[str]) -> tuple[tuple[str, str], ...]:
    """Short scalars that came with the row (ids, topics, scores): columns not read, entries of a `meta` object."""
    nested = row.get("meta")
    extra = {name: value for name, value in row.items() if name not in read}
    if isinstance(nested, Mapping):
        extra.update({str(name): value for name, value in nested.items()})
    return tuple(
        sorted(
            (name, str(value))
            for name, value in extra.items()
            if isinstance(value, int | float | str) and len(str(value)) <= _MAX_META_CHARACTERS
        )
    )
