"""What a sweep varies: points that set keys of their own, a grid over keys, seeds; each run has a folder of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from trimtab.config import Config, config_digest, merge, resolve, to_json
from trimtab.config.flags import full_name, setting
from trimtab.errors import ConfigError
from trimtab.records import digest

# what runs must agree in to be served each other's log-probs and unaligned answers from the cache
CACHE_SECTIONS = ("model", "data", "windtunnel", "adapter", "generate", "benchmark")
NO_AXIS = {"out": "every point gets a folder below --out", "seed": "use --seeds K", "seeds": "use --seeds K"}
LONGEST_NAME = 80  # characters: with the sweep's folder before it and a file's name behind, far below 255
RANGE = ".."  # 1e-5..1e-3: what a search may take a value from
POINT = "point"  # the axis of points that were written out one by one; no configuration has such a key

ConfigTree = Mapping[str, Any]  # a configuration as files and flags write it
Settings = Mapping[str, object]  # values by dotted key, as resolved
KeyTexts = Sequence[tuple[str, str]]  # dotted keys, each with the text of its value as it was written


@dataclass(frozen=True, slots=True)
class Axis:
    """A configuration key by its dotted name, and the texts of its values as they were written."""

    key: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WrittenPoint:
    """A point that was written out: its name, if it was given one, and what it sets."""

    name: str | None
    settings: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Point:
    """One combination. `config` has every seed and stands for `<out>/points/<name>`.

    values: where it stands on the sweep's axes. settings: every key that the sweep sets in it, as resolved; the same
    as `values` but for points that were written out.
    """

    name: str
    values: Settings
    config: Config
    settings: Settings

    @property
    def cache_key(self) -> str:
        """Equal for points that share reference log-probs and unaligned answers."""
        return config_digest(self.config, *CACHE_SECTIONS)


@dataclass(frozen=True, slots=True)
class Sweep:
    """All points of a sweep, and the configuration that they share (as JSON, without the keys that differ)."""

    out: str
    axes: tuple[Axis, ...]
    points: tuple[Point, ...]
    seeds: tuple[int, ...]
    base: ConfigTree


@dataclass(frozen=True, slots=True)
class _Combination:
    """A written-out point's name ("" without any) and what it sets, and one value of every axis."""

    label: str
    own: KeyTexts
    grid: KeyTexts

    @property
    def settings(self) -> KeyTexts:
        return [*self.own, *self.grid]

    @property
    def place(self) -> KeyTexts:
        return [*([(POINT, self.label)] if self.label else []), *self.grid]


def read_axis(word: str) -> Axis:
    """`objective.margin=0.5,1,2`, the key as in a flag. Raises ConfigError for a key that is unknown or no axis."""
    name, _, text = word.partition("=")
    values = tuple(value.strip() for value in text.split(","))
    if not name or not all(values):
        raise ConfigError(f"--grid {word!r} cannot be read", remedy="write --grid objective.margin=0.5,1,2")
    return text_axis(name, values)


def text_axis(name: str, values: Sequence[str]) -> Axis:
    """An axis from texts, its key as in a flag. Raises ConfigError for a key that is unknown or no axis."""
    return Axis(_require_axis(full_name(name)), tuple(values))


def is_range(axis: Axis) -> bool:
    return len(axis.values) == 1 and RANGE in axis.values[0]


def _require_axis(key: str) -> str:
    if remedy := NO_AXIS.get(key):
        raise ConfigError(f"{key} is no axis of a grid", remedy=remedy)
    return key


def expand(tree: ConfigTree, axes: Sequence[Axis], *, points: Sequence[WrittenPoint] = ()) -> Sweep:
    """Every point on the configuration `tree`, whose `out` is the sweep's folder: `points`, if any, times the grid.

    Raises ConfigError for a key that stands twice, for two points that are the same, and for what cannot be run.
    """
    if ranges := [axis.key for axis in axes if is_range(axis)]:
        raise ConfigError(f"{ranges[0]} is a range, and a grid has values", remedy="add --trials N to search it")
    grid_keys, point_keys = _keys_of(axes, points)
    labels = _labels(points)
    combinations = [
        _Combination(label, own, list(zip(grid_keys, values, strict=True)))
        for label, own in ([(label, p.settings) for label, p in zip(labels, points, strict=True)] or [("", ())])
        for values in product(*(axis.values for axis in axes))
    ]
    configs = [resolve(_with_settings(tree, combination.settings)) for combination in combinations]
    first = configs[0]
    base = _without(first, [*grid_keys, *point_keys, *NO_AXIS])
    seeds = tuple(range(first.seed, first.seed + first.seeds))
    out = str(tree.get("out") or f"runs/sweep-{_identity(base, axes, points, seeds)[:8]}")
    names = _folder_names([combination.place for combination in combinations])
    sweep_points = tuple(
        Point(
            name,
            {**({POINT: combination.label} if combination.label else {}), **_values(config, grid_keys)},
            config.model_copy(update={"out": f"{out}/points/{name}"}),
            _values(config, [*dict(combination.own), *grid_keys]),
        )
        for name, combination, config in zip(names, combinations, configs, strict=True)
    )
    _refuse_equal(sweep_points)
    point_axis = (Axis(POINT, tuple(labels)),) if points else ()
    return Sweep(out, (*point_axis, *axes), sweep_points, seeds, base)


def expand_search(tree: ConfigTree, axes: Sequence[Axis]) -> Sweep:
    """What a search over these axes begins with: no point yet. Raises ConfigError as `expand` does, for each value."""
    first = expand(tree, [Axis(key, (text,)) for key, text in first_texts(axes).items()])
    for axis in axes:  # every value, and both ends of a range, must be one that can be run
        values = tuple(axis.values[0].split(RANGE)) if is_range(axis) else axis.values
        others = [Axis(key, (text,)) for key, text in first_texts(axes).items() if key != axis.key]
        expand(tree, [Axis(axis.key, values), *others])
    out = str(tree.get("out") or f"runs/search-{_identity(first.base, axes, (), first.seeds)[:8]}")
    return replace(first, out=out, axes=tuple(axes), points=())


def first_texts(axes: Sequence[Axis]) -> Mapping[str, str]:
    """One value of each axis: the first of a list, the low end of a range."""
    return {axis.key: axis.values[0].partition(RANGE)[0] for axis in axes}


def add_point(sweep: Sweep, tree: ConfigTree, texts: Mapping[str, str]) -> Point:
    """The point of a search at which each of its axes has this value."""
    settings = [(axis.key, texts[axis.key]) for axis in sweep.axes]
    config = resolve(_with_settings(tree, settings))
    (name,) = _folder_names([settings])
    (text,) = _texts([settings])
    if name != text and not name.endswith(digest(text)[:8]):  # points to come must not be called the same
        name = f"{name[:60]}-{digest(text)[:8]}"
    values = _values(config, list(texts))
    return Point(name, values, config.model_copy(update={"out": f"{sweep.out}/points/{name}"}), values)


def _labels(points: Sequence[WrittenPoint]) -> list[str]:
    """The names of points that were written out; one without a name is called by its keys."""
    by_keys = _texts([point.settings for point in points])
    names = [point.name or text for point, text in zip(points, by_keys, strict=True)]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"two points of the sweep are called {twice!r}", remedy="name each of them differently")
    return names


def _keys_of(axes: Sequence[Axis], points: Sequence[WrittenPoint]) -> tuple[list[str], list[str]]:
    """The keys of the grid and those of the points; each may stand in one of the two, once."""
    if not axes and not points:
        raise ConfigError(
            "a sweep needs a grid", remedy="add --grid objective.margin=0.5,1,2, or [sweep.grid] to the file"
        )
    grid_keys = [axis.key for axis in axes]
    point_keys = list(dict.fromkeys(_require_axis(key) for point in points for key, _ in point.settings))
    if len(set(grid_keys)) < len(grid_keys):
        twice = max(grid_keys, key=grid_keys.count)
        raise ConfigError(f"--grid {twice} is given twice", remedy="list all its values once")
    if in_both := next((key for key in grid_keys if key in point_keys), None):
        raise ConfigError(f"{in_both} stands in the grid and in a point", remedy="leave it in one of them")
    return grid_keys, point_keys


def _identity(base: ConfigTree, axes: Sequence[Axis], points: Sequence[WrittenPoint], seeds: Sequence[int]) -> str:
    grid = [[axis.key, *axis.values] for axis in axes]
    return digest([base, grid, seeds, *[[point.name, point.settings] for point in points]])


def _with_settings(tree: ConfigTree, settings: KeyTexts) -> ConfigTree:
    for key, value in settings:
        tree = merge(tree, setting(full_name(key), value))
    return tree


def _values(config: Config, keys: Sequence[str]) -> Settings:
    tree = to_json(config)
    values: dict[str, object] = {}
    for key in keys:
        section, _, name = key.rpartition(".")
        values[key] = tree[section][name] if section else tree[name]
    return values


def _without(config: Config, keys: Sequence[str]) -> ConfigTree:
    tree = to_json(config)
    for key in keys:
        section, _, name = key.rpartition(".")
        (tree[section] if section else tree).pop(name)
    return tree


def _texts(places: Sequence[KeyTexts]) -> list[str]:
    """`margin=0.5,beta=0.1`, the section left out where that is clear; a written-out point goes by its name alone."""
    keys = list(dict.fromkeys(key for place in places for key, _ in place))
    last_parts = [key.rpartition(".")[2] for key in keys]
    names = dict(zip(keys, last_parts if len(set(last_parts)) == len(keys) else keys, strict=True))
    return [",".join(text if key == POINT else f"{names[key]}={text}" for key, text in place) for place in places]


def _folder_names(places: Sequence[KeyTexts]) -> list[str]:
    """As written, as far as that is a name for a folder and unlike the others; else a digest is added."""
    texts = _texts(places)
    names = [re.sub(r"[^A-Za-z0-9.,=+-]+", "-", text).lstrip(".-") for text in texts]
    return [
        name if name and len(name) <= LONGEST_NAME and names.count(name) == 1 else f"{name[:60]}-{digest(text)[:8]}"
        for name, text in zip(names, texts, strict=True)
    ]


def _refuse_equal(points: Sequence[Point]) -> None:
    names: dict[str, str] = {}
    for point in points:
        first = names.setdefault(config_digest(point.config.model_copy(update={"out": ""})), point.name)
        if first != point.name:
            raise ConfigError(f"two points of the grid are the same: {first} and {point.name}", remedy="leave one out")
