"""Dataclasses as the JSON of report.json: a key is a field's name, in the order of the fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass


def json_form(value: object) -> object:
    """What `json.dumps` takes. A value that has a `to_json` is asked; any other dataclass gives its fields."""
    to_json = getattr(value, "to_json", None)
    if callable(to_json):
        return json_form(to_json())
    if is_dataclass(value):
        return fields_form(value)
    if isinstance(value, Mapping):
        return {str(key): json_form(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [json_form(inner) for inner in value]
    return value


def fields_form(value: object, *leave_out: str) -> dict[str, object]:
    """A dataclass by its fields, all but some: for a `to_json` that differs from the fields in a few keys."""
    assert is_dataclass(value)
    return {field.name: json_form(getattr(value, field.name)) for field in fields(value) if field.name not in leave_out}
