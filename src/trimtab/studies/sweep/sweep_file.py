"""The table `[sweep]` of a configuration file: what a sweep varies, written down beside what its runs share.

    [sweep.grid]
    "objective.margin" = [0.5, 1, 2]

    [[sweep.points]]
    name = "gentle"
    objective.beta = 0.1
    train.learning_rate = 2e-4

Points are multiplied with the grid. Keys may be quoted or nested; quoted ones keep their order, where TOML gathers
those of one section: the first two axes are the rows and columns of the maps.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from trimtab.config import MAIN_FIELD, keys
from trimtab.config.flags import full_name
from trimtab.errors import ConfigError
from trimtab.studies.sweep.grid import Axis, ConfigTree, WrittenPoint, text_axis

TABLE = "sweep"
_PARTS = ("grid", "points")
_PLAIN_FROM = 0.01  # smaller numbers are written as people do: 5e-4


@dataclass(frozen=True, slots=True)
class SweepFile:
    """A configuration file in two: `base` without its `[sweep]`, and the axes and points that this holds."""

    base: ConfigTree
    axes: tuple[Axis, ...]
    points: tuple[WrittenPoint, ...]

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> SweepFile:
        """Raises ConfigError for a part that is unknown, empty, or no list of values."""
        base = {name: value for name, value in tree.items() if name != TABLE}
        table = tree.get(TABLE, {})
        if not isinstance(table, Mapping):
            raise ConfigError("sweep is a section, not a value", remedy="write [sweep.grid] and its keys below")
        if unknown := next((name for name in table if name not in _PARTS), None):
            raise ConfigError(f"unknown key 'sweep.{unknown}'", remedy="a sweep has [sweep.grid] and [[sweep.points]]")
        axes = tuple(_axis(key, values) for key, values in _flat(table.get("grid", {}), "sweep.grid"))
        points = table.get("points", [])
        if not isinstance(points, list):
            raise ConfigError("sweep.points is no list of tables", remedy="write [[sweep.points]] above each point")
        return cls(base, axes, tuple(_point(point, place) for place, point in enumerate(points, start=1)))


def replace_axes(axes: Sequence[Axis], by: Sequence[Axis]) -> list[Axis]:
    """The axes of a file with those of the command line: one of the same key takes its place, another is added."""
    new = {axis.key: axis for axis in by}
    if len(new) < len(by):
        return [*axes, *by]  # one is given twice, which `expand` refuses
    return [new.pop(axis.key, axis) for axis in axes] + list(new.values())


def _axis(key: str, values: object) -> Axis:
    if not isinstance(values, list) or not values:
        raise ConfigError(f"sweep.grid: {key} has no list of values", remedy=f'write "{key}" = [1, 2]')
    return text_axis(key, [text_of(value, f"sweep.grid: {key}") for value in values])


def _point(table: object, place: int) -> WrittenPoint:
    place_name = f"point {place} of the sweep"
    if not isinstance(table, Mapping):
        raise ConfigError(f"{place_name} is no table of keys", remedy="write [[sweep.points]] and its keys below")
    name = table.get("name")
    if name is not None and not (isinstance(name, str) and name.strip()):
        raise ConfigError(f"{place_name} has the name {name!r}", remedy='write name = "some-word"')
    flat = _flat({key: value for key, value in table.items() if key != "name"}, place_name)
    settings = tuple((key, text_of(value, f"{place_name}: {key}")) for key, value in flat)
    if not settings:
        raise ConfigError(f"{place_name} sets no key", remedy='write one, such as objective.name = "dpo"')
    return WrittenPoint(name, settings)


def _flat(table: object, place_name: str) -> Iterator[tuple[str, object]]:
    """Full dotted names and their values, from dotted and nested tables. Raises ConfigError for one given twice."""
    if not isinstance(table, Mapping):
        raise ConfigError(
            f"{place_name} is no table of keys", remedy='write lines such as "objective.margin" = [0.5, 1]'
        )
    names: set[str] = set()
    for name, value in _leaves(table, ""):
        key = full_name(name)
        if key in names:
            raise ConfigError(f"{place_name}: {key} is given twice", remedy="give it once")
        names.add(key)
        yield key, value


def _leaves(table: ConfigTree, prefix: str) -> Iterator[tuple[str, object]]:
    for name, value in table.items():
        key = f"{prefix}{name}"
        is_section = key in MAIN_FIELD or any(leaf.startswith(f"{key}.") for leaf in keys())
        if isinstance(value, Mapping) and is_section and key not in keys():  # a key's own value may be a table
            yield from _leaves(value, f"{key}.")
        else:
            yield key, value


def text_of(value: object, place_name: str) -> str:
    """A value as a flag would give it. Floats are written as people do, so that folders bear the same names."""
    match value:
        case bool():
            return "true" if value else "false"
        case float():
            return _short(value)
        case int() | str():
            return str(value)
        case _:
            raise ConfigError(
                f"{place_name} = {value!r} is no single value", remedy="write numbers, words or true and false"
            )


def _short(value: float) -> str:
    plain = re.sub(r"\.0$", "", repr(value))
    if not math.isfinite(value) or ("e" not in plain and (value == 0 or abs(value) >= _PLAIN_FROM)):
        return plain
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    head, tail = str(digits[0]), "".join(map(str, digits[1:]))
    return f"{'-' if sign else ''}{head}{'.' + tail if tail else ''}e{int(exponent) + len(tail)}"
