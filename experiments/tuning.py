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

from experiments.read_sweeps import Sweep

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "windtunnel" / "ranking.toml"


@dataclass(frozen=True, slots=True)
class Trial:
    """A point of the tuning sweep: what it set, and its true win rate in percent."""

    objective: str
    learning_rate: float
    beta: float
    win_rate: float


@dataclass(frozen=True, slots=True)
class TunedMethod:
    """`n_trials`: points that this method was given; `at_edge`: keys whose picked value is an end of what was tried."""

    best: Trial
    n_trials: int
    at_edge: tuple[str, ...]


def read_trials(sweep: Sweep) -> list[Trial]:
    """Every point of the tuning sweep, with the mean true win rate in percent over its prompts and seeds."""
    return [
        Trial(
            point.setting("objective.name"),
            float(point.setting("train.learning_rate")),
            float(point.setting("objective.beta")),
            float(point.wins_KN().mean()),
        )
        for point in sweep.points
    ]


def tune(trials: Sequence[Trial]) -> dict[str, TunedMethod]:
    """By objective. Raises ValueError where methods were given unequal budgets."""
    by_objective: dict[str, list[Trial]] = {}
    for trial in trials:
        by_objective.setdefault(trial.objective, []).append(trial)
    budgets = {
        name: sorted((trial.learning_rate, trial.beta) for trial in trials) for name, trials in by_objective.items()
    }
    if len({tuple(budget) for budget in budgets.values()}) > 1:
        raise ValueError(f"unequal budgets: { {name: len(budget) for name, budget in budgets.items()} }")
    return {name: _best(trials) for name, trials in by_objective.items()}


def _best(trials: Sequence[Trial]) -> TunedMethod:
    best = max(trials, key=lambda trial: (trial.win_rate, -trial.learning_rate, -trial.beta))
    values = {
        "learning_rate": {trial.learning_rate for trial in trials},
        "beta": {trial.beta for trial in trials},
    }
    at_edge = tuple(
        key for key, tries in values.items() if len(tries) > 1 and getattr(best, key) in (min(tries), max(tries))
    )
    return TunedMethod(best, len(trials), at_edge)


def recipe_values(path: Path = RECIPE) -> dict[str, tuple[float, float]]:
    """Learning rate and β of every objective in the ranking's recipe; a point's own keys stand before the file's."""
    tree = tomllib.loads(path.read_text(encoding="utf-8"))
    values = {}
    for point in tree["sweep"]["points"]:
        settings = _flat(tree) | _flat(point)
        values[str(settings["objective.name"])] = (
            float(settings.get("train.learning_rate", 5e-4)),
            float(settings.get("objective.beta", 0.3)),
        )
    return values


def differences(methods: Mapping[str, TunedMethod], recipe: Mapping[str, tuple[float, float]]) -> list[str]:
    """One line for each method whose ranked values are not what tuning picked."""
    lines = []
    for name, method in methods.items():
        rate, beta = method.best.learning_rate, method.best.beta
        if recipe.get(name) != (rate, beta):
            lines.append(f"{name}: tuning picks learning rate {rate:g}, β {beta:g}; recipe: {recipe.get(name)}")
    return lines


def _flat(tree: Mapping[str, Any]) -> dict[str, Any]:
    """`{"train": {"learning_rate": 1}}` and `{"train.learning-rate": 1}` alike as `{"train.learning_rate": 1}`."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = key.replace("-", "_")
        if isinstance(value, Mapping):
            flat |= {f"{name}.{inner}": leaf for inner, leaf in _flat(value).items()}
        else:
            flat[name] = value
    return flat
