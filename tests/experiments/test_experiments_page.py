"""The page from sweeps of which the answer is known, and from none at all."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from experiments.questions import QUESTIONS, real_rates, real_settings, real_weights
from experiments.read_sweeps import read

from conftest import Run
from experiments import __main__ as command
from experiments import page, run_sweeps
from trimtab import store

Make = Callable[..., Path]
N = 60


def seed_of(k: int, *, longer: float = 0.0, wins: float = 0.7, **fields: Any) -> Run:
    """Lengths about 20 tokens, `longer` more than without, give or take one; the share of prompts that is won."""
    rng = np.random.default_rng(k)
    change = longer + np.where(np.arange(N) % 2, 1, -1) * (longer != 0)
    tokens = [int(n) for n in np.round(rng.normal(20, 4, size=N)) + change]
    preferences = [2.0 if i < wins * N else 1.0 for i in rng.permutation(N)]
    return Run(tokens, preferences, **fields)


def dead_zone(made_sweep: Make, *, longer: float) -> Path:
    points = [
        (
            {"objective.margin": margin, "windtunnel.length_bias": bias},
            [seed_of(k, longer=longer if margin == 1 else 0.0) for k in range(3)],
        )
        for bias in (0, 0.5)
        for margin in (1, 1000)
    ]
    return made_sweep("dead-zone", points)


def answers(text: str) -> str:
    return text.split("## Answers")[1].split("\n## ", maxsplit=1)[0]


def test_without_a_run_every_question_is_said_to_be_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (real_weights, real_rates, real_settings):
        monkeypatch.setattr(module, "read_results", dict)
    findings = page.findings(tmp_path)
    assert answers(findings.text).count("Not run yet.") == len(QUESTIONS)
    for question in QUESTIONS:
        assert f"## {question.title}" in findings.text
    for question in QUESTIONS[:-3]:
        assert f"python -m experiments --only {question.needs[0]}" in findings.text
    assert real_weights.COMMAND in findings.text
    assert real_rates.COMMAND in findings.text
    assert real_settings.COMMAND in findings.text
    assert findings.numbers["numbers"] == {}


@pytest.mark.parametrize(
    ("longer", "expected"),
    [
        (-3.0, "With the dead zone answers are shorter (the hinge at m = 1, λ = 0.5"),
        (3.0, "With the dead zone answers are longer, not shorter (the hinge at m = 1, λ = 0.5"),
        (0.0, "with the dead zone less without"),
    ],
)
def test_the_dead_zone_is_said_to_do_what_it_did(made_sweep: Make, longer: float, expected: str) -> None:
    findings = page.findings(dead_zone(made_sweep, longer=longer))
    assert expected in answers(findings.text)
    number = findings.numbers["numbers"]["dead-zone/margin=1/bias=0.5/length"]
    assert number["value"] == pytest.approx(longer)
    assert (number["n"], number["n_seeds"], number["command"]) == (N, 3, "trimtab sweep dead-zone.toml")


def test_runs_that_differ_by_chance_alone_are_not_told_apart(made_sweep: Make) -> None:
    points = [
        ({"objective.margin": margin, "windtunnel.length_bias": 0.5}, [seed_of(10 * margin + k) for k in range(4)])
        for margin in (1, 1000)
    ]
    text = answers(page.findings(made_sweep("dead-zone", points)).text)
    assert "not distinguishable" in text
    assert "80 % power for" in text


def test_at_equal_drift_less_training_is_told_from_the_dead_zone(made_sweep: Make) -> None:
    """Linear runs lengthen by a token a nat of drift. A hinge on that line only trained less; one below it did more."""
    for longer, expected in (
        (2.0, "the shorter answers are what less training gives"),
        (-1.0, "are not only less training"),
    ):
        dead_zone_at = [
            ({"objective.margin": 1, "windtunnel.length_bias": 0.5}, seeds(2.0, longer, noise=0.3)),
            ({"objective.margin": 1000, "windtunnel.length_bias": 0.5}, seeds(4.0, 4.0)),
        ]
        ladder = [
            (
                {"objective.margin": 1000, "windtunnel.length_bias": 0.5, "train.learning_rate": nats * 1e-4},
                seeds(nats, nats),
            )
            for nats in (1.0, 3.0, 4.0)
        ]
        runs = made_sweep("dead-zone", dead_zone_at)
        made_sweep("less-training", ladder)
        assert expected in page.findings(runs).text


def seeds(nats: float, longer: float, *, noise: float = 0.0) -> list[Run]:
    """Three seeds that drifted so far; with noise their lengths differ a little from seed to seed."""
    shifts = (-noise, 0.0, noise)
    return [
        Run([round(30 + 10 * (longer + shift)) for _ in range(N)], [2.0] * N, log_ratios=((nats, -nats),))
        for shift in shifts
    ]


def regimes(made_sweep: Make, *, distance: float) -> str:
    points = []
    for rate, regime in ((1e-4, "linear"), (5e-4, "selective")):
        far = 1.0 if regime == "selective" else distance
        for name in ("dpo", "apo_zero"):
            off = 0.0 if name == "dpo" else far
            settings = {
                "objective.name": name, "objective.beta": 0.1, "train.learning_rate": rate, "train.epochs": 1.0,
            }  # fmt: skip
            ratios = ((1.0 + off, -1.0), (1.0, -1.0))
            points.append((settings, [seed_of(k, regime=regime, log_ratios=ratios) for k in range(3)]))
    return answers(page.findings(made_sweep("regimes", points)).text)


def test_digits_of_agreement_in_the_linear_regime(made_sweep: Make) -> None:
    text = regimes(made_sweep, distance=0.002)  # ‖0.002‖ / ‖(1, −1, 1, −1)‖ = 0.001: three digits
    assert "In the linear regime log-ratios agree with DPO's to 3.0 digits (0.1 to 0.1 % apart" in text


def test_equal_models_in_the_linear_regime_are_no_error(made_sweep: Make) -> None:
    assert "agree with DPO's to all digits" in regimes(made_sweep, distance=0.0)


def test_every_method_is_ranked_and_p_values_are_adjusted(made_sweep: Make) -> None:
    methods = {"dpo": 0.5, "aot": 0.9, "exo_pair": 0.5}
    points = [
        (
            {"objective.name": name, "objective.beta": 0.3, "train.learning_rate": 5e-4, "windtunnel.length_bias": 0},
            [seed_of(k, wins=wins, rates={"biased": 100 * (1 - wins) + k}) for k in range(3)],
        )
        for name, wins in methods.items()
    ]
    findings = page.findings(made_sweep("ranking", points))
    assert "of 2 methods aot (+40.0" in findings.text
    assert "better than DPO in points of true win rate after Holm, the others not distinguishable" in findings.text
    tau = findings.numbers["numbers"]["ranking/0/raw/tau"]
    assert tau["value"] is not None
    assert tau["value"] < 0  # this judge ranks upside down


def test_points_that_a_question_needs_and_a_sweep_lacks_are_said(made_sweep: Make) -> None:
    runs = made_sweep("dead-zone", [({"objective.margin": 1, "windtunnel.length_bias": 0}, [seed_of(0), seed_of(1)])])
    assert "Not answered:" in answers(page.findings(runs).text)


def test_the_files_are_written_and_stale_pictures_go(made_sweep: Make, tmp_path: Path) -> None:
    findings = page.findings(dead_zone(made_sweep, longer=-3.0), quick=True)
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "gone.svg").write_text("<svg/>")
    page.write(findings, page=tmp_path / "findings.md", numbers=tmp_path / "numbers.json")
    text = (tmp_path / "findings.md").read_text()
    assert "**Quick form.**" in text
    pictures = {path.stem for path in (tmp_path / "figures").glob("*.svg")}
    assert pictures == set(re.findall(r"figures/([\w-]+)\.svg", text))
    for path in (tmp_path / "figures").glob("*.svg"):
        assert ET.fromstring(path.read_text()).tag.endswith("svg")  # noqa: S314  our own drawing
    assert store.read_json(tmp_path / "numbers.json")["quick"] is True


def test_links_of_the_page_reach_its_headings(tmp_path: Path) -> None:
    text = page.findings(tmp_path).text
    headings = {page.anchor(line[3:]) for line in text.splitlines() if line.startswith("## ")}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= headings


def test_check_names_numbers_outside_their_interval(
    made_sweep: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = dead_zone(made_sweep, longer=-3.0)
    numbers_file = tmp_path / "numbers.json"
    monkeypatch.setattr(command, "NUMBERS", numbers_file)
    store.write_json(numbers_file, dict(page.findings(runs).numbers))
    assert command.main(["--check", "--runs", str(runs)]) == 0
    dead_zone(made_sweep, longer=-9.0)
    assert command.main(["--check", "--runs", str(runs)]) == 1
    assert "dead-zone/margin=1/bias=0.5/length: -9.0 is outside" in capsys.readouterr().out


def test_words_that_name_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--page", "--only", "deadzone"]) == 2
    assert "no such sweep: deadzone" in capsys.readouterr().err


def test_only_runs_that_are_done_count(made_sweep: Make) -> None:
    runs = dead_zone(made_sweep, longer=0.0)
    path = runs / "dead-zone" / "sweep.json"
    tree = store.read_json(path)
    tree["points"][0]["runs"][1]["state"] = "failed"
    store.write_json(path, tree)
    sweep = read(runs / "dead-zone")
    assert sweep is not None
    assert [len(point.runs) for point in sweep.points] == [2, 3, 3, 3]
    assert run_sweeps.revision_of(runs / "dead-zone") == "unknown"
