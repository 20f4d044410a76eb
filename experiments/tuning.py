"""Equal budget for every method: one grid of learning rates and β, one seed, on a world that the ranking never sees.

The rule is fixed before the ranking: of a method's points the one with the highest true win rate on the tuning world;
of equal ones the smaller learning rate, then the smaller β (less change for the same result).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.sweeps_read import Sweep

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "windtunnel" / "ranking.toml"


@dataclass(frozen=True, slots=True)
class Tried:
    objective: str
    learning_rate: float
    beta: float
    win_rate: float


@dataclass(frozen=True, slots=True)
class Picked:
    """`n_tried`: points that this method was given; `at_edge`: keys whose picked value is an end of what was tried."""

    best: Tried
    n_tried: int
    at_edge: tuple[str, ...]


def tried(sweep: Sweep) -> list[Tried]:
    """Every point of the tuning sweep, with the mean true win rate in percent over its prompts and seeds."""
    return [
        Tried(
            point.setting("objective.name"),
            float(point.setting("train.learning_rate")),
            float(point.setting("objective.beta")),
            float(point.wins_KN().mean()),
        )
        for point in sweep.points
    ]


def pick(points: Sequence[Tried]) -> dict[str, Picked]:
    """By objective. Raises ValueError where methods were given unequal budgets."""
    by: dict[str, list[Tried]] = {}
    for point in points:
        by.setdefault(point.objective, []).append(point)
    budgets = {name: sorted((one.learning_rate, one.beta) for one in found) for name, found in by.items()}
    if len({tuple(budget) for budget in budgets.values()}) > 1:
        raise ValueError(f"unequal budgets: { {name: len(budget) for name, budget in budgets.items()} }")
    return {name: _best(found) for name, found in by.items()}


def _best(found: Sequence[Tried]) -> Picked:
    best = max(found, key=lambda one: (one.win_rate, -one.learning_rate, -one.beta))
    ends = {
        "learning_rate": {pick_end(one.learning_rate for one in found) for pick_end in (min, max)},
        "beta": {pick_end(one.beta for one in found) for pick_end in (min, max)},
    }
    at_edge = tuple(key for key, borders in ends.items() if len(borders) > 1 and getattr(best, key) in borders)
    return Picked(best, len(found), at_edge)


def in_recipe(path: Path = RECIPE) -> dict[str, tuple[float, float]]:
    """Learning rate and β of every objective in the ranking's recipe; a point's own keys stand before the file's."""
    tree = tomllib.loads(path.read_text(encoding="utf-8"))
    found = {}
    for point in tree["sweep"]["points"]:
        told = _flat(tree) | _flat(point)
        found[str(told["objective.name"])] = (
            float(told.get("train.learning_rate", 5e-4)),
            float(told.get("objective.beta", 0.3)),
        )
    return found


def differing(picked: Mapping[str, Picked], recipe: Mapping[str, tuple[float, float]]) -> list[str]:
    """One line for each method whose ranked values are not what tuning picked."""
    lines = []
    for name, one in picked.items():
        wanted = (one.best.learning_rate, one.best.beta)
        if recipe.get(name) != wanted:
            lines.append(
                f"{name}: tuning picks learning rate {wanted[0]:g}, β {wanted[1]:g}; recipe: {recipe.get(name)}"
            )
    return lines


def _flat(tree: Mapping[str, Any]) -> dict[str, Any]:
    """`{"train": {"learning_rate": 1}}` and `{"train.learning-rate": 1}` alike as `{"train.learning_rate": 1}`."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        name = key.replace("-", "_")
        if isinstance(value, Mapping):
            found |= {f"{name}.{inner}": one for inner, one in _flat(value).items()}
        else:
            found[name] = value
    return found
