"""Rows with one response: with a label, which says whether it was good, or without one, as demonstrations to imitate.

    prompt, completion, label          TRL, and logs of single answers with a verdict
    conversations (messages), label    the last message is the response
    instruction, output, label         Alpaca's columns

LLaMA-Factory calls the label `kto_tag`. The same without the label are demonstrations, and count as good.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial

from trimtab.data.messages import is_conversation, is_filled, kind_of
from trimtab.data.problems import Reason, RowFaultError
from trimtab.data.readers import (
    TURN_COLUMNS,
    Parts,
    Reader,
    Row,
    answer_of,
    instruction_of,
    prompt_of,
    response_of,
    turns_before,
    whole_response,
)

LABEL_COLUMNS = ("label", "kto_tag")
_WORDS = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}  # as CSV files have them


def reader_of_unpaired(rows: Sequence[Row]) -> Reader | None:
    """The reader that fits most of these rows; None where they have no label, or are pairs."""
    if any(is_filled(row.get("chosen")) or is_filled(row.get("rejected")) for row in rows):
        return None
    if not any(is_filled(row.get(name)) for row in rows for name in LABEL_COLUMNS):
        return None
    readers = Counter(reader for row in rows if (reader := _reader_of(row)) is not None)
    return readers.most_common(1)[0][0] if readers else None


def reader_of_demonstrations(rows: Sequence[Row]) -> Reader | None:
    """The reader that fits most of these rows, which have no label; None where they are pairs, labelled or prompts."""
    label_names = ("chosen", "rejected", *LABEL_COLUMNS)
    if any(is_filled(row.get(name)) for row in rows for name in label_names):
        return None
    readers = Counter(reader for row in rows if (reader := _reader_of(row)) is not None)
    return partial(_read_demonstration, readers.most_common(1)[0][0]) if readers else None


def _read_demonstration(reader: Reader, row: Row) -> Parts:
    return reader({**row, LABEL_COLUMNS[0]: True})


def _reader_of(row: Row) -> Reader | None:
    if is_filled(row.get("completion")):
        return _read_completion
    if any(is_conversation(row.get(name)) for name in TURN_COLUMNS):
        return _read_conversation
    return _read_instruction if is_filled(row.get("output")) else None


def _read_completion(row: Row) -> Parts:
    return Parts(prompt_of(row), (response_of(row, "completion"),), _label(row))


def _read_conversation(row: Row) -> Parts:
    messages = turns_before(row)
    places = range(len(messages) - 1, 0, -1)  # the response is all that follows the last question
    start = next((n for n in places if messages[n - 1].role == "user"), len(messages) - 1)
    if any(message.role == "tool" for message in messages[start:]):
        return Parts(messages[:start], (whole_response(messages[start:], "the last messages"),), _label(row))
    return Parts(messages[:-1], (answer_of(messages[-1], "the last message"),), _label(row))


def _read_instruction(row: Row) -> Parts:
    return Parts(instruction_of(row), (response_of(row, "output"),), _label(row))


def _label(row: Row) -> bool:
    """True, false, 1 or 0, also as text."""
    name = next((name for name in LABEL_COLUMNS if name in row), LABEL_COLUMNS[0])
    value = row.get(name)
    label = _WORDS.get(str(value).strip().lower()) if isinstance(value, bool | int | float | str) else None
    if label is None:
        content = repr(value) if isinstance(value, int | float | str) else kind_of(value)
        raise RowFaultError(Reason.NO_LABEL, f"'{name}' is {content}, neither true nor false")
    return label
