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
from decimal import Decimal
from typing import Any

from trimtab.config import MAIN_FIELD, keys
from trimtab.config.flags import full_name
from trimtab.errors import ConfigError
from trimtab.studies.sweep.grid import Axis, Named, text_axis

TABLE = "sweep"
_PARTS = ("grid", "points")
_PLAIN_FROM = 0.01  # smaller numbers are written as people do: 5e-4


def holds_sweep(tree: Mapping[str, Any]) -> bool:
    """Whether a configuration, as written, is one of a sweep."""
    return TABLE in tree


def split(tree: Mapping[str, Any]) -> tuple[dict[str, Any], list[Axis], list[Named]]:
    """The configuration without its `[sweep]`, and the axes and points that this holds.

    Raises ConfigError for a part that is unknown, empty, or no list of values.
    """
    rest = {name: value for name, value in tree.items() if name != TABLE}
    told = tree.get(TABLE, {})
    if not isinstance(told, Mapping):
        raise ConfigError("sweep is a section, not a value", remedy="write [sweep.grid] and its keys below")
    if strange := next((name for name in told if name not in _PARTS), None):
        raise ConfigError(f"unknown key 'sweep.{strange}'", remedy="a sweep has [sweep.grid] and [[sweep.points]]")
    axes = [_axis(key, values) for key, values in _flat(told.get("grid", {}), "sweep.grid")]
    points = told.get("points", [])
    if not isinstance(points, list):
        raise ConfigError("sweep.points is no list of tables", remedy="write [[sweep.points]] above each point")
    return rest, axes, [_point(point, place) for place, point in enumerate(points, start=1)]


def laid_over(axes: Sequence[Axis], others: Sequence[Axis]) -> list[Axis]:
    """The axes of a file with those of the command line: one of the same key takes its place, another is added."""
    given = {axis.key: axis for axis in others}
    if len(given) < len(others):
        return [*axes, *others]  # one is given twice, which `expand` refuses
    return [given.pop(axis.key, axis) for axis in axes] + list(given.values())


def _axis(key: str, values: Any) -> Axis:
    if not isinstance(values, list) or not values:
        raise ConfigError(f"sweep.grid: {key} has no list of values", remedy=f'write "{key}" = [1, 2]')
    return text_axis(key, [text_of(value, f"sweep.grid: {key}") for value in values])


def _point(told: Any, place: int) -> Named:
    where = f"point {place} of the sweep"
    if not isinstance(told, Mapping):
        raise ConfigError(f"{where} is no table of keys", remedy="write [[sweep.points]] and its keys below")
    name = told.get("name")
    if name is not None and not (isinstance(name, str) and name.strip()):
        raise ConfigError(f"{where} has the name {name!r}", remedy='write name = "some-word"')
    flat = _flat({key: value for key, value in told.items() if key != "name"}, where)
    values = {key: text_of(value, f"{where}: {key}") for key, value in flat}
    if not values:
        raise ConfigError(f"{where} sets no key", remedy='write one, such as objective.name = "dpo"')
    return Named(name, tuple(values.items()))


def _flat(tree: Any, where: str) -> Iterator[tuple[str, Any]]:
    """Full dotted names and their values, from dotted and nested tables. Raises ConfigError for one given twice."""
    if not isinstance(tree, Mapping):
        raise ConfigError(f"{where} is no table of keys", remedy='write lines such as "objective.margin" = [0.5, 1]')
    seen: set[str] = set()
    for name, value in _leaves(tree, ""):
        key = full_name(name)
        if key in seen:
            raise ConfigError(f"{where}: {key} is given twice", remedy="give it once")
        seen.add(key)
        yield key, value


def _leaves(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        dotted = f"{prefix}{name}"
        nested = isinstance(value, Mapping) and dotted not in keys()
        if nested and (dotted in MAIN_FIELD or any(key.startswith(f"{dotted}.") for key in keys())):
            yield from _leaves(value, f"{dotted}.")
        else:
            yield dotted, value


def text_of(value: Any, where: str) -> str:
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
                f"{where} = {value!r} is no single value", remedy="write numbers, words or true and false"
            )


def _short(value: float) -> str:
    plain = re.sub(r"\.0$", "", repr(value))
    if not math.isfinite(value) or ("e" not in plain and (value == 0 or abs(value) >= _PLAIN_FROM)):
        return plain
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    head, tail = str(digits[0]), "".join(map(str, digits[1:]))
    return f"{'-' if sign else ''}{head}{'.' + tail if tail else ''}e{int(exponent) + len(tail)}"
