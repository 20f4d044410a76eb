"""Real runs that go wrong without a number that is not finite: said once in the log, and shown in the report."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import Any

import children  # noqa: F401  # its import makes the stage tests' modules known
import pytest

from stage_runs import Recorder, align, make_config
from trimtab import config as configuration
from trimtab import objectives, store, windtunnel
from trimtab.analysis.symptoms import symptoms
from trimtab.config import Config
from trimtab.runtime import set_up
from trimtab.runtime.folder import Folder
from trimtab.runtime.symptom_watch import outline
from trimtab.stages import prepare, reference, report, train

WARNINGS = ("The loss", "By step", "Hardly", "After ", "The gradient has")


def said(told: Recorder) -> list[str]:
    lines = [line.removeprefix("train: ") for line in told.lines]
    return [line for line in lines if line.startswith(WARNINGS)]


TOO_HIGH = {"epochs": 6, "learning_rate": 0.5, "warmup": 0.0}


@pytest.mark.parametrize(
    ("sections", "pieces"),
    [
        ({"train": {"learning_rate": 1e-12}}, ["still is its reference", "learning rate is too small", "Raise"]),
        (
            {"train": {"learning_rate": 1e-7}, "engine": {"dtype": "bfloat16"}},
            ["still is its reference", "distance between bfloat16 numbers", "Raise"],
        ),
        ({"train": {"epochs": 6}}, ["active", "the dead zone begins near", "few pairs", "Raise objective.margin"]),
    ],
    ids=["rate too low", "too low for bfloat16", "starved"],
)
def test_a_bad_run_names_its_cause_once(tiny: Path, place: Path, sections: dict[str, Any], pieces: list[str]) -> None:
    tree = configuration.to_json(make_config(place / "run", tiny, train={"epochs": 4, "warmup": 0.0}))
    _, told = align(configuration.resolve(configuration.merge(tree, sections)))
    (line,) = said(told)
    assert all(piece in line for piece in pieces), line


def test_the_report_says_what_the_log_said(tiny: Path, place: Path) -> None:
    config = make_config(place / "run", tiny, train=TOO_HIGH)
    folder, told = align(config)
    (line,) = said(told)
    assert "The loss climbed" in line
    assert "the learning rate is too high" in line
    report.main(set_up(config), reporter=Recorder())
    numbers = store.read_json(folder.report("json"))
    (warning,) = numbers["symptoms"]
    assert warning["tone"] == "warn"
    assert warning["text"].replace("**", "").replace("\N{NO-BREAK SPACE}", " ") == line
    (symptom,) = numbers["training"]["seeds"][0]["symptoms"]
    assert symptom["sentence"] == line
    assert symptom["remedy"] in folder.report("html").read_text(encoding="utf-8")
    assert "the learning rate is too high" in folder.report("md").read_text(encoding="utf-8")


def test_a_run_that_goes_on_does_not_say_it_again(tiny: Path, place: Path) -> None:
    class Stopped(Exception):  # noqa: N818  # no error of ours
        pass

    def stop() -> None:
        raise Stopped

    config = make_config(place / "run", tiny, train=TOO_HIGH)
    first = Recorder(at=15, act=stop)
    with pytest.raises(Stopped):
        align(config, reporter=first)
    _, then = align(config)
    assert len(said(first)) == 1
    assert said(then) == []


def test_a_good_run_says_nothing(tiny: Path, place: Path) -> None:
    folder, told = align(make_config(place / "run", tiny, train={"epochs": 6, "learning_rate": 1e-4}))
    assert said(told) == []
    assert len(store.read_jsonl(folder.metrics)) == 24


# --- the embedded world, as its users run it -------------------------------------------------------------------------

CLEAN: list[dict[str, Any]] = [
    {"name": "apo_hinge_zero", "beta": 0.3}, {"name": "apo_hinge_zero", "beta": 0.3, "margin": 1000.0},
    {"name": "apo_hinge_zero", "beta": 0.1}, {"name": "apo_hinge_zero", "beta": 1.0},
    {"name": "dpo", "beta": 0.3}, {"name": "dpo_hinge", "beta": 0.3}, {"name": "apo_zero", "beta": 0.3},
    {"name": "apo_hinge_softplus", "beta": 0.3}, {"name": "margin_sigmoid", "beta": 0.3}, {"name": "simpo"},
]  # fmt: skip


def embedded(out: Path, *, seed: int, objective: dict[str, Any], **sections: Any) -> Config:
    """The recipe of a bare `trimtab run`, training alone, one of its three epochs."""
    tree = tomllib.loads((Path(windtunnel.__file__).parent / "recipe.toml").read_text(encoding="utf-8"))
    for section in ("benchmark", "judge", "generate", "objective"):
        del tree[section]
    own: dict[str, Any] = {"seed": seed, "objective": objective, "out": str(out), "train": {"epochs": 1.0}}
    return configuration.resolve(configuration.merge(configuration.merge(tree, own), sections))


def trained(config: Config) -> tuple[Folder, Recorder]:
    told = Recorder()
    for stage in (prepare, reference, train):
        stage.main(set_up(config), reporter=told)
    return set_up(config).folder, told


@pytest.mark.slow
def test_twenty_clean_runs_are_silent_and_each_would_not_be_at_a_hundredfold_rate(place: Path) -> None:
    for number in range(20):
        config = embedded(place / f"{number}", seed=number, objective=CLEAN[number % len(CLEAN)])
        folder, told = trained(config)
        rows = store.read_jsonl(folder.metrics)
        assert len(rows) == 31
        assert said(told) == [], config.objective
        value = objectives.make(config.objective.name, **config.objective.parameters())
        assert symptoms(rows, outline(config, value, steps=31, dtype="float32")) == []
        assert all(math.isfinite(row["loss"]) for row in rows)
    for number, objective in enumerate(CLEAN):
        config = embedded(place / f"bad-{number}", seed=0, objective=objective, train={"learning_rate": 5e-2})
        _, told = trained(config)
        assert any("the learning rate is too high" in line for line in said(told)), objective
