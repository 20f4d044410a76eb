"""Which of the published shapes of preference data a source has, and how a row of it becomes a record.

    shape          columns                                    prompt                      responses
    explicit       prompt, chosen, rejected                   text or messages            text or one message
    conversations  (prompt,) chosen, rejected                 the messages before the     whole conversations that share
                                                              last one of each            every message but the last
    transcript     (prompt,) chosen, rejected                 `Human:`/`Assistant:` text  after the last `Assistant:`
    sharegpt       conversations (or messages), chosen, …     from/value or role/content  one message or text
    instruction    instruction (, input, history), chosen, …  text behind earlier turns   text or one message
    orca           (system,) question, chosen, rejected       text                        text or one message
    unpaired       prompt, completion, label                  text or messages            text or one message
    unpaired       conversations (or messages), label         all but the last message    the last message
    unpaired       instruction (, input, history), output, …  text behind earlier turns   text
    ranked         see `data.ranked`: several responses to a prompt, or one a row, each with a score or a rank

A label is true or false; LLaMA-Factory's name for its column is `kto_tag`. Rows of these forms without a label are
`demonstrations`, to be imitated.

`conversations` covers TRL's implicit prompt and UltraFeedback-binarized as published, where the prompt column repeats
one message of the conversation and is not read. A `system` column is put before any prompt that has no system message.
The shared prompt is found message by message, never by comparing characters. A prompt given as text becomes one user
message and the pair is marked `plain`; whether a template wraps it is decided by the tokenizer, in `chat`.

The shape is what most of the first rows have, told without a look into their messages, so that no faulty row decides
for the others. What a shape does not read is named once all rows are read; a row that would mean something else without
it (documents, images) is refused, unless the columns were chosen by hand. The columns `tools` (or `functions`) and
`chat_template_kwargs` are what the chat template is given for the row.
"""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, assert_never

from trimtab.data.messages import (
    has_parts,
    is_conversation,
    is_filled,
    is_message,
    is_transcript,
    is_transcript_prompt,
    messages_as_text,
    turns_of,
    unread_keys,
)
from trimtab.data.problems import Reason, RowFaultError, RowProblem
from trimtab.data.ranked import RANKED_COLUMNS, RECORD_KEYS, reader_of_ranked
from trimtab.data.readers import (
    TURN_COLUMNS,
    Reader,
    Row,
    read_conversations,
    read_explicit,
    read_instruction,
    read_orca,
    read_sharegpt,
    read_transcript_prompt,
    read_transcripts,
    with_system,
)
from trimtab.data.tools import template_arguments, tools_of
from trimtab.data.unpaired import LABEL_COLUMNS, reader_of_demonstrations, reader_of_unpaired
from trimtab.errors import DataError
from trimtab.records import Message, Pair, Ranked, Unpaired, compact_json

FormatName = Literal[
    "explicit",
    "conversations",
    "transcript",
    "sharegpt",
    "instruction",
    "orca",
    "unpaired",
    "ranked",
    "demonstrations",
]
Shape = Literal["text", "message", "conversation", "nothing", "other"]

COLUMN_ROLES = ("prompt", "chosen", "rejected", "system")
_ONE_RESPONSE = ("prompt", "completion", *TURN_COLUMNS, "instruction", "input", "history", "output", "system")
_ROLES_OF: dict[tuple[str, str], str] = {  # what must be named, and what rows then hold; prompt and system may be
    ("chosen", "rejected"): "a pair",
    ("completion", "label"): "a single response",
    ("completion", "score"): "a scored response",
    ("completions", "scores"): "ranked responses",
    ("completions", "ranks"): "ranked responses",
}
_COLUMNS_READ: dict[FormatName, tuple[str, ...]] = {
    "explicit": COLUMN_ROLES,
    "conversations": COLUMN_ROLES,
    "transcript": COLUMN_ROLES,
    "sharegpt": (*TURN_COLUMNS, "chosen", "rejected", "system"),
    "instruction": ("instruction", "input", "history", "chosen", "rejected", "system"),
    "orca": ("question", "chosen", "rejected", "system"),
    "unpaired": (*_ONE_RESPONSE, *LABEL_COLUMNS),
    "demonstrations": _ONE_RESPONSE,
    "ranked": ("prompt", "instruction", "input", "history", "question", *TURN_COLUMNS, *RANKED_COLUMNS, "system"),
}
# Filled, these change what the prompt says; a pair without them would be another one.
_NEVER_LEFT_OUT = (
    "documents", "history",
    "images", "image", "videos", "video", "audios", "audio",
)  # fmt: skip
_TOOL_COLUMNS, _ARGUMENT_COLUMN = ("tools", "functions"), "chat_template_kwargs"
_SCORE_COLUMNS = ("score_chosen", "score_rejected")
_MAX_META_CHARACTERS = 200  # ids, topics, scores; longer texts would be written twice for every pair
_ACCEPTED_SHAPES = """accepted shapes:
    prompt, chosen, rejected                 text, or lists of messages (role, content)
    chosen, rejected                         whole conversations that share their prompt
    chosen, rejected                         transcripts with '\\n\\nHuman:' and '\\n\\nAssistant:' (HH-RLHF)
    conversations, chosen, rejected          ShareGPT turns (from, value)
    instruction, input, chosen, rejected     LLaMA-Factory (and history, system)
    system, question, chosen, rejected       Orca
    prompt, completion, label                single responses, each good or bad (true or false)
    conversations, kto_tag                   LLaMA-Factory's form of these
    prompt, completions, scores (or ranks)   several responses (UltraFeedback, Nectar, HelpSteer2, RewardBench 2)
    prompt, completion                       demonstrations, for --objective sft"""
_REMEDY = (
    "say which columns they are: --columns prompt=…,chosen=…,rejected=… (and system=… if there is one), "
    "or prompt=…,completion=…,label=… (or score=…), or prompt=…,completions=…,scores=… (or ranks=…)"
)


@dataclass(frozen=True, slots=True)
class Format:
    """The shape of a source's rows. `columns` are the names that the reader looks for, by the names in the file.

    `unread_columns` grows as rows are read: the columns, and keys of messages, that held something and were left out.
    """

    name: FormatName
    columns: Mapping[str, str]
    _read: Reader
    _by_hand: bool = False
    unread_columns: dict[str, None] = field(default_factory=dict)

    def to_record(self, row_id: str, row: Row) -> Pair | Unpaired | Ranked | RowProblem:
        """Read one row. What is wrong with a row is a value, not an exception, so that every row can be counted."""
        self.unread_columns.update(dict.fromkeys(self._unread_in(row)))
        cells = _rename(row, self.columns)
        try:
            parts = self._read(cells)
            prompt = with_system(parts.prompt, cells)
            self._refuse_what_is_left_out(row)
            arguments = self._template_arguments(row, (*prompt, *parts.responses))
        except RowFaultError as fault:
            return fault.at(row_id)
        is_text = self.name in ("explicit", "unpaired", "demonstrations", "ranked") and len(prompt) == 1
        plain, meta = is_text and cells.get("prompt") == prompt[0].content, _meta(row, read=set(self.columns))
        if parts.scores:
            return Ranked(row_id, prompt, parts.responses, parts.scores, plain, meta, arguments)
        first, *others = parts.responses
        if parts.label is not None:
            return Unpaired(row_id, prompt, first.content, parts.label, plain, meta, first.extras, arguments)
        (second,) = others
        return Pair(
            row_id,
            prompt,
            first.content,
            second.content,
            plain=plain,
            meta=meta,
            chosen_extras=first.extras,
            rejected_extras=second.extras,
            template_arguments=arguments,
            score_gap=_score_gap(row),
        )

    def _template_arguments(self, row: Row, messages: Sequence[Message]) -> str:
        """What the row's chat template is given; reasoning is switched on where a message brings some."""
        if self._by_hand:
            return ""
        arguments: dict[str, Any] = {}
        if '"reasoning_content"' in "".join(message.extras for message in messages):
            arguments["enable_thinking"] = True
        if has_parts(row.get(_ARGUMENT_COLUMN)):
            arguments |= template_arguments(row[_ARGUMENT_COLUMN], column=_ARGUMENT_COLUMN)
        for name in _TOOL_COLUMNS:
            if has_parts(row.get(name)):
                arguments["tools"] = tools_of(row[name], column=name)
        return compact_json(arguments) if arguments else ""

    @property
    def notes(self) -> list[str]:
        """One line on what was not read, or none where everything was."""
        return [f"columns not read: {', '.join(self.unread_columns)}"] if self.unread_columns else []

    def _unread_in(self, row: Row) -> list[str]:
        read = {*self.columns, *(() if self._by_hand else (*_TOOL_COLUMNS, _ARGUMENT_COLUMN))}
        if "chosen" in self.columns.values() and _score_gap(row) is not None:
            read |= set(_SCORE_COLUMNS)
        names = [name for name, value in row.items() if name not in read and is_filled(value)]
        keys = [
            f"{name}.{key}"
            for name, role in self.columns.items()
            if name in row
            for key in unread_keys(row[name])
            if key not in RECORD_KEYS.get(role, ())
        ]
        return names + keys

    def _refuse_what_is_left_out(self, row: Row) -> None:
        if self._by_hand:
            return
        for name in _NEVER_LEFT_OUT:
            if name not in self.columns and has_parts(row.get(name)):
                raise RowFaultError(Reason.NOT_READ, f"the column {name!r} is filled (--columns leaves it out)")


def detect_format(head: Sequence[Row], *, source: str, columns: Mapping[str, str] | None = None) -> Format:
    """Tell the shape of a source from its first rows: the one that most of them have.

    `columns` maps `prompt`, `chosen`, `rejected` and `system`, or the parts of single, scored or ranked responses, to
    the names in the file; columns it does not name are not read. Raises `DataError`, with the columns found and the
    accepted shapes, when the rows have none of them.
    """
    present = list(dict.fromkeys(name for row in head for name in row))
    names = _checked_mapping(columns, present=present, source=source) if columns else {name: name for name in present}
    rows = [_rename(row, names) for row in head]
    readers: dict[FormatName, Reader | None] = {
        "ranked": reader_of_ranked(rows),
        "unpaired": reader_of_unpaired(rows),
        "demonstrations": reader_of_demonstrations(rows),
    }
    shapes = [(name, reader) for name, reader in readers.items() if reader is not None]
    if not shapes and (fault := _missing_side(rows)):
        raise _shape_error(source, present, fault)
    _refuse_messages_as_text(rows, source=source)
    shape: tuple[FormatName, Reader] | str = shapes[0] if shapes else _commonest_shape(rows)
    if isinstance(shape, str):
        raise _shape_error(source, present, shape)
    name, read = shape
    readable = _COLUMNS_READ[name]
    if columns:
        return Format(name, {file: role for file, role in names.items() if role in readable}, read, _by_hand=True)
    return Format(name, {column: column for column in readable}, read)  # also one that no row has yet


def _commonest_shape(rows: Sequence[Row]) -> tuple[FormatName, Reader] | str:
    """What most of the rows have that have a shape; else why most of those with both responses are no pair."""
    shapes = [_format_of(row) for row in rows]
    if formats := Counter(shape for shape in shapes if isinstance(shape, tuple)):
        return formats.most_common(1)[0][0]
    faults = Counter(str(shape) for row, shape in zip(rows, shapes, strict=True) if _has_both_sides(row))
    return faults.most_common(1)[0][0] if faults else "no row has both responses"


def _missing_side(rows: Sequence[Row]) -> str:
    for side in ("chosen", "rejected"):
        if all(row.get(side) is None for row in rows):
            return (
                f"column '{side}' {'is empty in the first rows' if any(side in row for row in rows) else 'is missing'}"
            )
    return ""


# ---- which reader ----------------------------------------------------------------------------------------------------


def _format_of(row: Row) -> tuple[FormatName, Reader] | str:
    """The shape of one row by its columns' shapes, or why it has none."""
    chosen, rejected = (_shape(row.get(side)) for side in ("chosen", "rejected"))
    if chosen != rejected or chosen in ("nothing", "other"):
        return f"'chosen' holds {_shape_words(chosen)} and 'rejected' {_shape_words(rejected)}"
    prompt, turns = _shape(row.get("prompt")), [_shape(row.get(name)) for name in TURN_COLUMNS]
    several = chosen == "conversation" and len(turns_of(row["chosen"])) > 1
    shapes: tuple[tuple[bool, FormatName, Reader], ...] = (
        (is_transcript(row["chosen"]), "transcript", read_transcripts),
        (several, "conversations", read_conversations),
        (is_transcript_prompt(row.get("prompt")), "transcript", read_transcript_prompt),
        (prompt in ("text", "conversation", "message"), "explicit", read_explicit),
        ("conversation" in turns, "sharegpt", read_sharegpt),
        (_shape(row.get("instruction")) == "text", "instruction", read_instruction),
        (_shape(row.get("question")) == "text", "orca", read_orca),
    )
    fault = (
        "'chosen' and 'rejected' are text, but no column holds the prompt they answer"
        if chosen == "text" and prompt == "nothing"
        else f"'prompt' holds {_shape_words(prompt)}"
    )
    return next(((name, read) for fits, name, read in shapes if fits), fault)


def _has_both_sides(row: Row) -> bool:
    return row.get("chosen") is not None and row.get("rejected") is not None


def _refuse_messages_as_text(rows: Sequence[Row], *, source: str) -> None:
    for column in ("chosen", "rejected", "prompt", "completion", *TURN_COLUMNS):
        cells = [row[column] for row in rows if is_filled(row.get(column))]
        if cells and 2 * sum(map(messages_as_text, cells)) > len(cells):
            raise DataError(
                f"{source}: '{column}' holds a conversation written as text",
                remedy="save the data as JSON lines or Parquet, so that messages stay lists of role and content",
            )


def _shape(value: object) -> Shape:
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return "text"
    if is_conversation(value):
        return "conversation"
    return "message" if is_message(value) else "other"


def _shape_words(shape: Shape) -> str:
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


def _checked_mapping(columns: Mapping[str, str], *, present: list[str], source: str) -> dict[str, str]:
    """The names in the file by what they stand for, after each was found there."""
    required = max(_ROLES_OF, key=lambda roles: len(set(roles) & set(columns)))
    unknown = [role for role in columns if role not in (*required, "prompt", "system")]
    if unknown or not set(required) <= set(columns):
        fault = (
            f"'{unknown[0]}' is none of the parts of {_ROLES_OF[required]}"
            if unknown
            else f"both {required[0]} and {required[1]} must be named"
        )
        raise DataError(f"--columns: {fault}", remedy=_REMEDY)
    for role, name in columns.items():
        if name not in present:
            close = difflib.get_close_matches(name, present, n=1)
            raise DataError(
                f"{source}: --columns {role}={name}, but there is no column '{name}'; columns found: {_names(present)}",
                remedy=f"did you mean {role}={close[0]}?" if close else f"name one of the columns found for {role}",
            )
    if len(set(columns.values())) < len(columns):
        raise DataError("--columns: one column cannot stand for two parts of a row", remedy=_REMEDY)
    return {name: role for role, name in columns.items()}


def _shape_error(source: str, present: list[str], fault: str) -> DataError:
    return DataError(f"{source}: {fault}; columns found: {_names(present)}\n  {_ACCEPTED_SHAPES}", remedy=_REMEDY)


def _names(columns: list[str]) -> str:
    return ", ".join(columns) or "none"


def _score_gap(row: Row) -> float | None:
    """How far the score of the chosen response is above that of the rejected one, where it is."""
    scores = [row.get(column) for column in _SCORE_COLUMNS]
    if not all(isinstance(score, int | float) for score in scores):
        return None
    gap = float(scores[0]) - float(scores[1])  # type: ignore[arg-type]  # numbers, by the line above
    return gap if 0 < gap < math.inf else None


def _rename(row: Row, names: Mapping[str, str]) -> dict[str, object]:
    return {canonical: row[name] for name, canonical in names.items() if name in row}


def _meta(row: Row, *, read: set[str]) -> tuple[tuple[str, str], ...]:
    """Short scalars that came with the row (ids, topics, scores): columns not read, entries of a `meta` object."""
    meta = row.get("meta")
    extra = {name: value for name, value in row.items() if name not in read}
    if isinstance(meta, Mapping):
        extra.update({str(name): value for name, value in meta.items()})
    return tuple(
        sorted(
            (name, str(value))
            for name, value in extra.items()
            if isinstance(value, int | float | str) and len(str(value)) <= _MAX_META_CHARACTERS
        )
    )
