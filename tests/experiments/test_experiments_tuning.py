"""Equal budget, one rule, and a ranking that stands on what the rule picked."""

from __future__ import annotations

from pathlib import Path

import pytest
from experiments.revision import ROOT
from experiments.tuning import Trial

from experiments import tuning
from trimtab import store

NUMBERS = ROOT / "experiments" / "numbers.json"


def test_the_highest_wins_and_ties_go_to_the_smaller_values() -> None:
    trials = [Trial("dpo", lr, beta, 60.0) for lr in (1e-3, 5e-4) for beta in (1.0, 0.3)]
    (method,) = tuning.tune([*trials, Trial("dpo", 2e-4, 0.1, 59.0)]).values()
    assert (method.best.learning_rate, method.best.beta, method.n_trials) == (5e-4, 0.3, 5)
    assert method.at_edge == ()


def test_a_pick_at_the_end_of_the_grid_is_said() -> None:
    (method,) = tuning.tune([Trial("dpo", lr, 0.3, 1e5 * lr) for lr in (1e-4, 5e-4)]).values()
    assert method.at_edge == ("learning_rate",)


def test_unequal_budgets_are_refused() -> None:
    with pytest.raises(ValueError, match="unequal budgets"):
        tuning.tune([Trial("dpo", 1e-3, 0.3, 60.0), Trial("aot", 1e-3, 0.3, 60.0), Trial("aot", 5e-4, 0.3, 60.0)])


def test_a_recipe_is_read_with_its_points_before_its_own_keys(tmp_path: Path) -> None:
    path = tmp_path / "ranking.toml"
    path.write_text(
        '[train]\nlearning_rate = 5e-4\n[objective]\nbeta = 0.3\n[[sweep.points]]\n"objective.name" = "dpo"\n'
        '[[sweep.points]]\nobjective.name = "aot"\nobjective.beta = 1\n"train.learning-rate" = 1e-3\n'
    )
    assert tuning.recipe_values(path) == {"dpo": (5e-4, 0.3), "aot": (1e-3, 1.0)}
    method = tuning.tune([Trial("dpo", 5e-4, 0.3, 60.0), Trial("aot", 5e-4, 0.3, 60.0)])
    assert tuning.differences(method, tuning.recipe_values(path)) == [
        "aot: tuning picks learning rate 0.0005, β 0.3; recipe: (0.001, 1.0)"
    ]


def test_the_ranking_recipe_names_every_method_that_is_tuned() -> None:
    if not tuning.RECIPE.is_file():
        pytest.skip("the ranking's recipe is not in this checkout")
    assert len(tuning.recipe_values()) == 8


def test_the_committed_ranking_stands_on_the_committed_tuning() -> None:
    """What the page ranks is what the rule picks from the committed numbers of the tuning sweep."""
    numbers = store.read_json(NUMBERS)["numbers"] if NUMBERS.is_file() else {}
    trials = [_trial(name, entry["value"]) for name, entry in numbers.items() if name.startswith("tuning/")]
    if not trials or not any(name.startswith("ranking/") for name in numbers):
        pytest.skip("the committed findings hold no tuning and ranking yet")
    assert tuning.differences(tuning.tune(trials), tuning.recipe_values()) == []


def _trial(name: str, value: float) -> Trial:
    _, objective, rate, beta = name.split("/")
    return Trial(objective, float(rate.removeprefix("lr=")), float(beta.removeprefix("beta=")), value)
