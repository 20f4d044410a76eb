"""What a sweep varies: points that set keys of their own, a grid over keys, seeds; each run has a folder of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from trimtab.config import Config, config_digest, merge, resolve, to_json
from trimtab.config.flags import full_name, setting
from trimtab.errors import ConfigError
from trimtab.records import digest

# what runs must agree in to be served each other's log-probs and unaligned answers from the cache
_SHARED = ("model", "data", "windtunnel", "adapter", "generate", "benchmark")
_NO_AXIS = {"out": "every point gets a folder below --out", "seed": "use --seeds K", "seeds": "use --seeds K"}
_LONGEST_NAME = 80
POINT = "point"  # the axis of points that were named one by one; no configuration has such a key


@dataclass(frozen=True, slots=True)
class Axis:
    """A configuration key by its dotted name, and the texts of its values as they were written."""

    key: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Named:
    """A point that was written out: its name, if it was given one, and its keys with the texts of their values."""

    name: str | None
    values: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Point:
    """One combination. `config` has every seed and stands for `<out>/points/<name>`.

    values: where it stands on the sweep's axes. settings: every key that the sweep sets in it, as resolved; the same
    as `values` but for points that were written out.
    """

    name: str
    values: Mapping[str, Any]
    config: Config
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kin(self) -> str:
        """Equal for points that share reference log-probs and unaligned answers."""
        return config_digest(self.config, *_SHARED)


@dataclass(frozen=True, slots=True)
class Sweep:
    """All points of a sweep, and the configuration that they share (as JSON, without the keys that differ)."""

    out: str
    axes: tuple[Axis, ...]
    points: tuple[Point, ...]
    seeds: tuple[int, ...]
    base: Mapping[str, Any]


def read_axis(word: str) -> Axis:
    """`objective.margin=0.5,1,2`, the key as in a flag. Raises ConfigError for a key that is unknown or no axis."""
    name, _, told = word.partition("=")
    values = tuple(value.strip() for value in told.split(","))
    if not name or not all(values):
        raise ConfigError(f"--grid {word!r} cannot be read", remedy="write --grid objective.margin=0.5,1,2")
    return text_axis(name, values)


def text_axis(name: str, values: Sequence[str]) -> Axis:
    """An axis from texts, its key as in a flag. Raises ConfigError for a key that is unknown or no axis."""
    return Axis(_free(full_name(name)), tuple(values))


def _free(key: str) -> str:
    if why := _NO_AXIS.get(key):
        raise ConfigError(f"{key} is no axis of a grid", remedy=why)
    return key


def expand(tree: Mapping[str, Any], axes: Sequence[Axis], *, points: Sequence[Named] = ()) -> Sweep:
    """Every point on the configuration `tree`, whose `out` is the sweep's folder: `points`, if any, times the grid.

    Raises ConfigError for a key that stands twice, for two points that are the same, and for what cannot be run.
    """
    keys, own = _keys_of(axes, points)
    grid = [list(zip(keys, values, strict=True)) for values in product(*(axis.values for axis in axes))]
    named = [(name, list(point.values)) for name, point in zip(_called(points), points, strict=True)]
    places = [
        ([(POINT, name)] if name else [], set_here, of_grid)
        for name, set_here in named or [("", [])]
        for of_grid in grid
    ]
    configs = [resolve(_laid(tree, [*set_here, *of_grid])) for _, set_here, of_grid in places]
    first = configs[0]
    base = _without(to_json(first), [*keys, *own, *_NO_AXIS])
    seeds = tuple(range(first.seed, first.seed + first.seeds))
    out = str(tree.get("out") or f"runs/sweep-{_identity(base, axes, points, seeds)[:8]}")
    found = tuple(
        Point(
            name,
            dict(place) | {key: _value(config, key) for key in keys},
            _at(config, f"{out}/points/{name}"),
            {key: _value(config, key) for key in [*dict(set_here), *keys]},
        )
        for name, (place, set_here, _), config in zip(
            _names([[*place, *of_grid] for place, _, of_grid in places]), places, configs, strict=True
        )
    )
    _refuse_equal(found)
    of_points = (Axis(POINT, tuple(name for name, _ in named)),) if named else ()
    return Sweep(out, (*of_points, *axes), found, seeds, base)


def _called(points: Sequence[Named]) -> list[str]:
    """The names of points that were written out; one without a name is called by its keys."""
    by_keys = _written([point.values for point in points])
    names = [point.name or told for point, told in zip(points, by_keys, strict=True)]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"two points of the sweep are called {twice!r}", remedy="name each of them differently")
    return names


def _keys_of(axes: Sequence[Axis], points: Sequence[Named]) -> tuple[list[str], list[str]]:
    """The keys of the grid and those of the points; each may stand in one of the two, once."""
    if not axes and not points:
        raise ConfigError(
            "a sweep needs a grid", remedy="add --grid objective.margin=0.5,1,2, or [sweep.grid] to the file"
        )
    keys = [axis.key for axis in axes]
    own = list(dict.fromkeys(_free(key) for named in points for key, _ in named.values))
    if len(set(keys)) < len(keys):
        raise ConfigError(f"--grid {max(keys, key=keys.count)} is given twice", remedy="list all its values once")
    if both := next((key for key in keys if key in own), None):
        raise ConfigError(f"{both} stands in the grid and in a point", remedy="leave it in one of them")
    return keys, own


def _identity(base: Mapping[str, Any], axes: Sequence[Axis], points: Sequence[Named], seeds: Sequence[int]) -> str:
    grid = [[axis.key, *axis.values] for axis in axes]
    return digest([base, grid, seeds, *[[named.name, named.values] for named in points]])


def _laid(tree: Mapping[str, Any], values: Sequence[tuple[str, str]]) -> dict[str, Any]:
    laid = dict(tree)
    for key, value in values:
        laid = merge(laid, setting(full_name(key), value))
    return laid


def _at(config: Config, out: str) -> Config:
    return config.model_copy(update={"out": out})


def _value(config: Config, key: str) -> Any:
    section, _, name = key.rpartition(".")
    tree = to_json(config)
    return tree[section][name] if section else tree[name]


def _without(tree: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    for key in keys:
        section, _, name = key.rpartition(".")
        (tree[section] if section else tree).pop(name)
    return tree


def _written(told: Sequence[Sequence[tuple[str, str]]]) -> list[str]:
    """`margin=0.5,beta=0.1`, the section left out where that is clear; a named point goes by its name alone."""
    keys = list(dict.fromkeys(key for values in told for key, _ in values))
    last = [key.rpartition(".")[2] for key in keys]
    short = dict(zip(keys, last if len(set(last)) == len(last) else keys, strict=True))
    return [",".join(text if key == POINT else f"{short[key]}={text}" for key, text in values) for values in told]


def _names(told: Sequence[Sequence[tuple[str, str]]]) -> list[str]:
    """As written, as far as that is a name for a folder and unlike the others; else a digest is added."""
    written = _written(told)
    names = [re.sub(r"[^A-Za-z0-9.,=+-]+", "-", text).lstrip(".-") for text in written]
    return [
        name if name and len(name) <= _LONGEST_NAME and names.count(name) == 1 else f"{name[:60]}-{digest(text)[:8]}"
        for name, text in zip(names, written, strict=True)
    ]


def _refuse_equal(points: Sequence[Point]) -> None:
    seen: dict[str, str] = {}
    for point in points:
        same = seen.setdefault(config_digest(_at(point.config, "")), point.name)
        if same != point.name:
            raise ConfigError(f"two points of the grid are the same: {same} and {point.name}", remedy="leave one out")
