"""One row of a file: where it stands and how its fields are taken out. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from trimtab.errors import DataError

Row: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row stands, for people: `annotations.json, row 17`."""

    path: Path
    number: int

    def __str__(self) -> str:
        return f"{self.path}, row {self.number}"


def text_field(row: Row, name: str, *, place: Place) -> str:
    """A field that must be there and be text."""
    if name not in row:
        raise DataError(f"{place} has no {name!r}; it has {', '.join(row) or 'nothing'}", remedy=f"add {name!r}")
    value = row[name]
    if not isinstance(value, str):
        raise DataError(f"{place}: {name!r} is {kind(value)}, not text", remedy=f"give {name!r} as text")
    return value


def texts_field(row: Row, name: str, *, place: Place) -> tuple[str, ...]:
    """A field that must be there and be a list of texts, which may be empty."""
    value = row.get(name)
    if not isinstance(value, list):
        raise DataError(f"{place}: {name!r} is {kind(value)}, not a list of texts", remedy=f"give {name!r} as […]")
    for number, item in enumerate(value, start=1):
        if not isinstance(item, str):
            raise DataError(f"{place}: {name!r}, item {number} is {kind(item)}, not text", remedy="give only texts")
    return tuple(value)


def kind(value: object) -> str:
    """What a JSON value is, in words."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
