"""The other questions, each on a sweep whose answer is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from conftest import Run
from experiments import page

Make = Callable[..., Path]
N = 40


def runs(wins: int, *, tokens: int = 20, regime: str = "selective") -> list[Run]:
    """Three seeds that win `wins` (and one more, and one fewer) of 40 prompts, with answers of so many tokens."""
    return [
        Run([tokens + k + i % 3 for i in range(N)], [2.0] * (wins + k) + [1.0] * (N - wins - k), regime=regime)
        for k in (-1, 0, 1)
    ]


def section(made_sweep: Make, name: str, points: Sequence[tuple[Mapping[str, Any], Sequence[Run]]], title: str) -> str:
    text = page.findings(made_sweep(name, points)).text
    return text.split(f"## {title}")[1].split("\n## ")[0]


@pytest.mark.parametrize(
    ("hinge_at_30", "expected"),
    [(20, "flipped labels cost the hinge more"), (36, "flipped labels cost the hinge less")],
)
def test_what_flipped_labels_cost(made_sweep: Make, hinge_at_30: int, expected: str) -> None:
    wins = {("dpo", 0.0): 36, ("dpo", 0.3): 28, ("apo_hinge_zero", 0.0): 36, ("apo_hinge_zero", 0.3): hinge_at_30}
    points = [({"objective.name": name, "windtunnel.label_noise": noise}, runs(n)) for (name, noise), n in wins.items()]
    text = section(made_sweep, "noise", points, "Noise in the labels")
    assert expected in text
    assert "30% flipped" in text


def test_a_nearer_dead_zone_that_shortens_is_said_to(made_sweep: Make) -> None:
    points = [
        (
            {"objective.margin": margin, "objective.beta": beta},
            runs(
                20 + round(2 * margin / beta),
                tokens=round(15 + 3 * margin / beta),
                regime="starved" if margin / beta < 1 else "selective",
            ),
        )
        for margin in (0.5, 2.0)
        for beta in (0.3, 1.0)
    ]
    # in one seed two settings that lie close change places: seeds that agree to the last digit have no interval
    points[0] = (points[0][0], [*points[0][1][:2], runs(26, tokens=23)[2]])
    text = section(made_sweep, "margin-beta", points, "Margin and β: bias against speed")
    assert "A nearer dead zone (smaller m/β) goes with shorter answers" in text
    assert "+0.89 [+0.41, +1.00]" in text
    assert "A nearer dead zone goes with a lower true win rate (Kendall's τ of m/β and the true win rate)" in text
    assert "Starved: m = 0.5, β = 1." in text


@pytest.mark.parametrize(
    ("large", "expected"), [(30, "the sizes do not all say the same"), (36, "the same sign at every size")]
)
def test_sizes_agree_or_do_not(made_sweep: Make, large: int, expected: str) -> None:
    wins = {"runs/models/small": 36, "windtunnel": 36, "runs/models/large": large}
    points = [
        ({"model.name": model, "objective.name": name, "windtunnel.length_bias": 0.5}, runs(n if name != "dpo" else 30))
        for model, n in wins.items()
        for name in ("dpo", "apo_hinge_zero")
    ]
    text = section(made_sweep, "sizes", points, "Three model sizes")
    assert f"True win rate, hinge less DPO: {expected}" in text
    assert text.index("0.3M") < text.index("2.9M")


def picks(made_sweep: Make, steps: Sequence[int], settings: Mapping[str, Any]) -> str:
    """What is said of a point whose seeds picked these steps of 40; the last step wins 36 of 40, the pick 28."""
    shared_settings: dict[str, Any] = {"objective.name": "dpo", "train.epochs": 3, "train.learning_rate": 1e-3}
    shared_settings |= {"windtunnel.label_noise": 0.3, "windtunnel.length_bias": 0, **settings}
    is_earlier = any(step != 40 for step in steps)
    points = [
        ({"select.by": "held_out"} | shared_settings, runs(28 if is_earlier else 36)),
        ({"select.by": "last"} | shared_settings, runs(36)),
        ({"select.by": "last"} | shared_settings | {"train.epochs": 9}, runs(10)),
        (
            {"select.by": "last"} | shared_settings | {"objective.name": "apo_hinge_zero", "objective.margin": 1.0},
            runs(10),
        ),
    ]
    folder = made_sweep("selection", points)
    for step, run in zip(steps, sorted((folder / "selection" / "points" / "p0").glob("seed-*")), strict=True):
        (run / "selection.json").write_text(f'{{"picked": {step}, "last": 40}}')
    return page.findings(folder).text


def test_picked_checkpoints_are_held_against_the_last_step(made_sweep: Make) -> None:
    text = picks(made_sweep, (31, 40, 31), {"windtunnel.length_bias": 0.5})
    assert "the pick by held-out evidence has the lower true win rate than the last step: −20.0" in text
    assert "an earlier step was picked in 2 of 3 seeds" in text
    assert "| dpo, 3 epochs, 30% flipped, λ = 0.5 | 31, 40 and 31 | 40 |" in text


def test_where_only_the_last_step_is_picked_nothing_is_claimed(made_sweep: Make) -> None:
    text = picks(made_sweep, (40, 40, 40), {})
    assert "dpo, 3 epochs, 30% flipped: the last step was picked in 3 of 3 seeds." in text
    assert "80 % power" not in text.split("## Picking")[1].split("\n## ")[0]
    assert "3 epochs, 30% flipped, last steps: the hinge has the lower true win rate than DPO: −65.0" in text


def test_settings_that_starve_are_named(made_sweep: Make) -> None:
    linear = {"objective.beta": 0.3, "train.learning_rate": 1e-4, "train.epochs": 1}
    made_sweep("regimes", [({"objective.name": name, **linear}, runs(20)) for name in ("dpo", "apo_zero")])
    text = section(
        made_sweep, "starvation",
        [
            ({"windtunnel.pairs": n, "train.epochs": 10, "objective.beta": 3}, runs(20, regime=regime))
            for n, regime in ((128, "starved"), (512, "selective"))
        ],
        "When does the choice of objective matter at all?",
    )  # fmt: skip
    assert "starved in 1 of 2 settings: 128 pairs, 10 ep, β 3 (starved 3)." in text
    assert "The true win rate differs distinguishably from DPO's in 0 of 1 settings." in text
