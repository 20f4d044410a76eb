"""Columns that hold JSON as text: what `datasets` makes of a column in which texts and lists of parts stand together.

One row whose content is a list is enough to make `content` such a column for all rows. Stored is JSON for whatever is
no text or would not parse as JSON, and the text itself where it does: the answer `42` is stored as 42, like the number.
Answers are texts, so only what cannot be one (a quoted text, messages, parts) is parsed; all else is taken as it is
stored. The library itself parses everything, and hands back 42, true and dictionaries for texts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from trimtab.data.messages import MESSAGE_KEYS, is_message

Cell = Callable[[Any], object]
_TEXT_FIELDS = ("content", "value", "text")


def parser(
    schema: Any, features: Mapping[str, Any] | None = None
) -> Callable[[Mapping[str, Any]], dict[str, Any]] | None:
    """What turns a row of an Arrow table into the row that was saved; None where no column holds JSON.

    schema: a `pyarrow.Schema`. Its types say which columns hold JSON, or `features` do, the tree in which `datasets`
        describes them; without it, what stands in the schema's own metadata.
    """
    features = _features(schema) if features is None else features
    cells = {entry.name: _cell(entry.type, features.get(entry.name), parse=_parse_cell) for entry in schema}
    parsers = {name: cell for name, cell in cells.items() if cell is not None}
    if not parsers:
        return None
    return lambda row: {name: parsers[name](value) if name in parsers else value for name, value in row.items()}


def _features(schema: Any) -> Mapping[str, Any]:
    metadata = (schema.metadata or {}).get(b"huggingface")
    try:
        tree = json.loads(metadata)["info"]["features"] if metadata else {}
    except (ValueError, KeyError, TypeError):
        return {}
    return tree if isinstance(tree, Mapping) else {}


def _cell(arrow_type: Any, feature: Any, *, parse: Cell) -> Cell | None:
    """The parser of a cell, by its Arrow type and what `datasets` says of it; None where there is no JSON in it.

    parse: what to do with a stored text at this place.
    """
    import pyarrow  # type: ignore[import-untyped]  # pyarrow publishes no types

    feature = feature if isinstance(feature, Mapping) else {}
    if isinstance(arrow_type, pyarrow.JsonType) or feature.get("_type") == "Json":
        return lambda value: value if value is None else parse(value)
    if pyarrow.types.is_list(arrow_type) or pyarrow.types.is_large_list(arrow_type):
        item = _cell(arrow_type.value_type, feature.get("feature"), parse=parse)
        return None if item is None else lambda value: value if value is None else [item(element) for element in value]
    if pyarrow.types.is_struct(arrow_type):
        return _record(arrow_type, feature)
    return None


def _record(arrow_type: Any, feature: Mapping[str, Any]) -> Cell | None:
    """The parser of a message: the text of its content is kept as it is stored, its other fields are parsed."""
    cells = {
        entry.name: _cell(
            entry.type, feature.get(entry.name), parse=_parse_content if entry.name in _TEXT_FIELDS else _parse_any
        )
        for entry in arrow_type
    }
    fields = {name: cell for name, cell in cells.items() if cell is not None}
    if not fields:
        return None
    return lambda value: value if value is None else value | {name: cell(value[name]) for name, cell in fields.items()}


def _parse_cell(text: str) -> object:
    """A column's cell: one message, or `[]` for an empty list of them; all else as in a message."""
    if text == "[]":
        return []
    value = _parse_any(text)
    return value if _is_whole_message(value) else _parse_content(text)


def _parse_content(text: str) -> object:
    """A text where a text may stand: parsed where it is a quoted one, or a list of messages or parts."""
    if text != text.strip():
        return text  # JSON is stored without white space at its edges
    value = _parse_any(text)
    if isinstance(value, str):
        return value
    records = value if isinstance(value, list) and all(isinstance(record, Mapping) for record in value) else []
    if records and all(_is_whole_message(record) or "type" in record for record in records):
        return value if any(len(record) > 1 for record in records) else text
    return text


def _is_whole_message(value: object) -> bool:
    return isinstance(value, Mapping) and is_message(value) and bool(MESSAGE_KEYS & set(value))


def _parse_any(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
