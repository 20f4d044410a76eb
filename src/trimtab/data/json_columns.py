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

from trimtab.data.messages import is_message

Cell = Callable[[Any], object]
_MESSAGE_KEYS = {"role", "from", "type"}


def parser(
    schema: Any, features: Mapping[str, Any] | None = None
) -> Callable[[Mapping[str, Any]], dict[str, Any]] | None:
    """What turns a row of an Arrow table into the row that was saved; None where no column holds JSON.

    schema: a `pyarrow.Schema`. Its types say which columns hold JSON, or `features` do, the tree in which `datasets`
        describes them; without it, what stands in the schema's own metadata.
    """
    features = _features(schema) if features is None else features
    cells = {entry.name: _cell(entry.type, features.get(entry.name), in_message=False) for entry in schema}
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


def _cell(arrow_type: Any, feature: Any, *, in_message: bool) -> Cell | None:
    """The parser of a cell, by its Arrow type and what `datasets` says of it; None where there is no JSON in it."""
    import pyarrow  # type: ignore[import-untyped]  # pyarrow publishes no types

    feature = feature if isinstance(feature, Mapping) else {}
    if isinstance(arrow_type, pyarrow.JsonType) or feature.get("_type") == "Json":
        return lambda value: _parse(value, in_message=in_message)
    if pyarrow.types.is_list(arrow_type) or pyarrow.types.is_large_list(arrow_type):
        item = _cell(arrow_type.value_type, feature.get("feature"), in_message=in_message)
        return None if item is None else lambda value: value if value is None else [item(element) for element in value]
    if pyarrow.types.is_struct(arrow_type):
        inner = {entry.name: _cell(entry.type, feature.get(entry.name), in_message=True) for entry in arrow_type}
        fields = {name: cell for name, cell in inner.items() if cell is not None}
        if fields:
            return lambda value: value if value is None else value | {k: cell(value[k]) for k, cell in fields.items()}
    return None


def _parse(text: Any, *, in_message: bool) -> object:
    """The value of one stored text. Within a message `[]` is a text, and no empty list of messages."""
    if not isinstance(text, str):
        return text
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if isinstance(value, str) or (value == [] and not in_message):
        return value
    records = value if isinstance(value, list) else [value]
    if records and all(isinstance(record, Mapping) and _MESSAGE_KEYS & set(record) for record in records):
        return value if isinstance(value, list) or is_message(value) else text
    return text
