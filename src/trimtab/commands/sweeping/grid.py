"""A grid over configuration keys: every combination of the values, every seed, each a run with a folder of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from trimtab.config import Config, config_digest, merge, resolve, to_json
from trimtab.errors import ConfigError
from trimtab.records import digest
from trimtab.written import read_flags

# what runs must agree in to be served each other's log-probs and unaligned answers from the cache
_SHARED = ("model", "data", "windtunnel", "adapter", "generate", "benchmark")
_NO_AXIS = {"out": "every point gets a folder below --out", "seed": "use --seeds K", "seeds": "use --seeds K"}
_LONGEST_NAME = 80


@dataclass(frozen=True, slots=True)
class Axis:
    """A configuration key by its dotted name, and the texts of its values as they were written."""

    key: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Point:
    """One combination. `config` has every seed and stands for `<out>/points/<name>`; `values` are as resolved."""

    name: str
    values: Mapping[str, Any]
    config: Config

    @property
    def kin(self) -> str:
        """Equal for points that share reference log-probs and unaligned answers."""
        return config_digest(self.config, *_SHARED)


@dataclass(frozen=True, slots=True)
class Sweep:
    """All points of a sweep, and the configuration that they have in common (as JSON, without the grid's keys)."""

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
    key, _ = _placed(name, values[0])
    if why := _NO_AXIS.get(key):
        raise ConfigError(f"{key} is no axis of a grid", remedy=why)
    return Axis(key, values)


def _placed(name: str, value: str) -> tuple[str, dict[str, Any]]:
    """The dotted key and the tree of a flag."""
    _, tree = read_flags([f"--{name}={value}"])
    ((section, inner),) = tree.items()
    return (f"{section}.{next(iter(inner))}" if isinstance(inner, dict) else section), tree


def expand(tree: Mapping[str, Any], axes: Sequence[Axis]) -> Sweep:
    """Every point of the grid on the configuration `tree`; its `out` is the sweep's folder.

    Raises ConfigError for a key that stands twice, for two points that are the same, and for what cannot be run.
    """
    if not axes:
        raise ConfigError("a sweep needs a grid", remedy="add --grid objective.margin=0.5,1,2")
    keys = [axis.key for axis in axes]
    if len(set(keys)) < len(keys):
        raise ConfigError(f"--grid {max(keys, key=keys.count)} is given twice", remedy="list all its values once")
    combinations = list(product(*(axis.values for axis in axes)))
    configs = [resolve(_laid(tree, keys, values)) for values in combinations]
    first = configs[0]
    base = _without(to_json(first), [*keys, *_NO_AXIS])
    seeds = tuple(range(first.seed, first.seed + first.seeds))
    named = str(tree.get("out") or f"runs/sweep-{digest([base, [[a.key, *a.values] for a in axes], seeds])[:8]}")
    names = _names(keys, combinations)
    points = tuple(
        Point(name, {key: _value(config, key) for key in keys}, _at(config, f"{named}/points/{name}"))
        for name, config in zip(names, configs, strict=True)
    )
    _refuse_equal(points)
    return Sweep(named, tuple(axes), points, seeds, base)


def _laid(tree: Mapping[str, Any], keys: Sequence[str], values: Sequence[str]) -> dict[str, Any]:
    laid = dict(tree)
    for key, value in zip(keys, values, strict=True):
        laid = merge(laid, _placed(key, value)[1])
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


def _names(keys: Sequence[str], combinations: Sequence[Sequence[str]]) -> list[str]:
    """`margin=0.5,beta=0.1`, as far as that is a name for a folder and unlike the others; else a digest is added."""
    last = [key.rpartition(".")[2] for key in keys]
    short = last if len(set(last)) == len(last) else list(keys)
    written = [",".join(f"{key}={value}" for key, value in zip(short, values, strict=True)) for values in combinations]
    names = [re.sub(r"[^A-Za-z0-9.,=+-]+", "-", text) for text in written]
    return [
        name if len(name) <= _LONGEST_NAME and names.count(name) == 1 else f"{name[:60]}-{digest(text)[:8]}"
        for name, text in zip(names, written, strict=True)
    ]


def _refuse_equal(points: Sequence[Point]) -> None:
    seen: dict[str, str] = {}
    for point in points:
        same = seen.setdefault(config_digest(_at(point.config, "")), point.name)
        if same != point.name:
            raise ConfigError(f"two points of the grid are the same: {same} and {point.name}", remedy="leave one out")
