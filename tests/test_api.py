"""trimtab from Python: the same stages, keyword-only, with the same errors."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import trimtab
from trimtab import cli, windtunnel
from trimtab.errors import ConfigError, DataError
from trimtab.objectives import LogRatios, is_registered
from trimtab.records import Message, Pair

DIALS = {
    "windtunnel": {"pairs": 32, "prompts": 16},
    "train": {"max_steps": 2, "batch_pairs": 8, "learning_rate": 1e-3},
    "engine": {"threads": 1},
}


def some_pairs(n: int = 24) -> list[Pair]:
    return [
        Pair(f"mine:{k}", (Message("user", f"What is {k} plus {k}?"),), f"{k} plus {k} is {2 * k}.", "Have a nice day.")
        for k in range(n)
    ]


def test_run_without_words_is_the_wind_tunnel_and_winrate_reads_its_verdicts(tmp_path: Path) -> None:
    run = trimtab.run(out=str(tmp_path / "run"), **DIALS)
    assert run.folder == tmp_path / "run"
    assert (run.model / "model.safetensors").is_file()
    assert run.report()["benchmark"]["name"] == "windtunnel"
    again = trimtab.run(tmp_path / "run" / "config.json", out=str(tmp_path / "run"))
    assert again == run
    told = trimtab.winrate(run.folder / "verdicts" / "windtunnel.unbiased.json")
    assert {"win_rate", "standard_error", "n_total", "n_missing", "length_controlled_winrate", "lc_c", "lc_ci95",
            "avg_length"} <= told.keys()  # fmt: skip
    assert told["n_total"] == 16


def test_train_with_pairs_as_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trimtab.train(
        windtunnel.model_folder(),
        pairs=(pair for pair in some_pairs()),
        objective=trimtab.ApoHingeZero(beta=0.3, margin=0.5),
        out=tmp_path / "run",
        train=DIALS["train"],
        engine=DIALS["engine"],
        data={"holdout": 0.2},
    )
    assert capsys.readouterr().out == ""
    told = json.loads((run.folder / "config.json").read_text())
    assert told["objective"] | {"name": "apo_hinge_zero", "beta": 0.3, "margin": 0.5} == told["objective"]
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["loss"] == pytest.approx(2 * 0.5, abs=1e-5)
    assert json.loads((run.folder / "data/audit.json").read_text())["rows"] == 24
    assert run.report()["benchmark"] is None


def test_the_same_values_are_the_same_source(tmp_path: Path) -> None:
    from trimtab.api.sources import pair_source

    assert pair_source(some_pairs()) == pair_source(tuple(some_pairs()))
    assert pair_source(some_pairs()) != pair_source(some_pairs(23))
    assert pair_source(tmp_path / "mine.jsonl") == str(tmp_path / "mine.jsonl")


@pytest.mark.parametrize(
    ("objective", "said"),
    [
        (trimtab.Dpo(beta=0.2, label_smoothing=0.1), {"name": "dpo", "beta": 0.2, "label_smoothing": 0.1}),
        (
            trimtab.Modified(trimtab.ApoZero(beta=0.2), sft_weight=0.5),
            {"name": "apo_zero", "beta": 0.2, "sft_weight": 0.5},
        ),
    ],
    ids=["dpo", "modified"],
)
def test_an_objective_value_says_all_it_is(
    tmp_path: Path, objective: trimtab.Objective, said: dict[str, object]
) -> None:
    run = trimtab.train(
        "windtunnel", pairs=some_pairs(), objective=objective, out=tmp_path / "run", train=DIALS["train"],
        engine=DIALS["engine"],
    )  # fmt: skip
    told = json.loads((run.folder / "config.json").read_text())["objective"]
    assert {key: value for key, value in told.items() if value is not None} == said


# --- an objective of one's own ----------------------------------------------------------------------------------------

SHORT = {"train": DIALS["train"], "engine": DIALS["engine"], "data": {"holdout": 0.2}}


@dataclass(frozen=True, kw_only=True)
class OwnDpo(trimtab.Objective):
    """DPO, written by somebody who does not know ours."""

    beta: float = 0.1

    def loss(self, log_ratios: LogRatios) -> Any:
        ratio = log_ratios.chosen - log_ratios.rejected
        return -(self.beta * ratio).sigmoid().log()


def test_the_documented_objective_trains_under_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The example of docs/objectives.md, with fewer pairs and steps; then what it says of going on."""
    page = (Path(__file__).parents[1] / "docs" / "objectives.md").read_text(encoding="utf-8")
    [example] = re.findall(r"```python\n(.*?)```", page, re.S)
    out = 'out="runs/squared-hinge"'
    assert out in example
    dials = ", ".join(f"{name}={value}" for name, value in DIALS.items())
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "losses.py").write_text(example.replace(out, f"{out}, {dials}"), encoding="utf-8")
    losses = import_module("losses")
    monkeypatch.delitem(sys.modules, "losses")
    run = losses.run
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["loss"] == pytest.approx(0.5**2, abs=1e-5)
    assert rows[0]["active/pair"] == 1.0
    section = json.loads((run.folder / "config.json").read_text())["objective"]
    assert (section["name"], section["python_class"]) == ("SquaredHinge", "losses.SquaredHinge")
    assert section["values"] == {"beta": 0.1, "margin": 0.5}
    assert run.report()["objective"]["name"] == "SquaredHinge"
    assert run.report()["reproduce"]["from_file"] is None
    assert "SquaredHinge (beta 0.1, margin 0.5)" in (run.model / "README.md").read_text(encoding="utf-8")
    assert "SquaredHinge" in (run.folder / "report.html").read_text(encoding="utf-8")

    again = trimtab.train(
        "windtunnel", pairs="windtunnel", objective=losses.SquaredHinge(margin=0.5), out="runs/squared-hinge", **DIALS
    )
    assert again == run
    with pytest.raises(ConfigError, match=r"objective\.values\.margin"):
        trimtab.train(
            "windtunnel", pairs="windtunnel", objective=losses.SquaredHinge(), out="runs/squared-hinge", **DIALS
        )
    capsys.readouterr()
    with pytest.raises(SystemExit) as refused:
        cli.main(["run", "runs/squared-hinge"])
    assert refused.value.code == 2
    assert "SquaredHinge is a value of a Python program (losses.SquaredHinge)" in capsys.readouterr().err


def test_ones_own_objective_trains_as_the_same_formula_of_ours(tmp_path: Path) -> None:
    ours, own = (
        trimtab.train(windtunnel.model_folder(), pairs=some_pairs(), objective=value, out=tmp_path / name, **SHORT)
        for name, value in {"ours": trimtab.Dpo(beta=0.3), "own": OwnDpo(beta=0.3)}.items()
    )
    losses = [
        [json.loads(line)["loss"] for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
        for run in (ours, own)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0][0] == pytest.approx(math.log(2), abs=1e-5)
    assert own.report()["objective"]["source"] == f"{__name__}.OwnDpo"
    weights = [load_file(run.model / "model.safetensors") for run in (ours, own)]
    assert all((tensor - weights[1][name]).abs().max() < 1e-5 for name, tensor in weights[0].items())


def test_a_stopped_run_goes_on_with_an_equal_value_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(value: trimtab.Objective) -> trimtab.Run:
        return trimtab.train(
            windtunnel.model_folder(), pairs=some_pairs(), objective=value, out=tmp_path / "run", **SHORT
        )

    from trimtab.stages import train as stage

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as during:
        during.setattr(stage, "_finish", stop)
        with pytest.raises(KeyboardInterrupt):
            train(trimtab.Modified(OwnDpo(beta=0.3), sft_weight=0.1))
    with pytest.raises(ConfigError, match=r"objective\.values\.sft_weight"):
        train(trimtab.Modified(OwnDpo(beta=0.3), sft_weight=0.2))
    run = train(trimtab.Modified(OwnDpo(beta=0.3), sft_weight=0.1))
    assert run.report()["objective"]["parameters"] == {"beta": 0.3, "sft_weight": 0.1}


def test_objectives_that_cannot_be_trained_with_are_refused_by_name(tmp_path: Path) -> None:
    @dataclass
    class Loose(trimtab.Objective):
        beta: float = 0.1

    @dataclass(frozen=True)
    class Listing(trimtab.Objective):
        weights: tuple[float, ...] = (1.0, 2.0)

    @dataclass(frozen=True, kw_only=True)
    class Disguised(trimtab.Dpo):
        name = "dpo"

    for value, words in (
        (Loose(), "Loose is not a frozen dataclass"),
        (Listing(), "weights is a tuple"),
        (Disguised(), "Disguised calls itself 'dpo'"),
    ):
        with pytest.raises(ConfigError, match=words):
            trimtab.train("windtunnel", pairs=some_pairs(), objective=value, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_class_below_one_of_ours_is_not_taken_for_it() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Softer(trimtab.Dpo):
        def loss(self, log_ratios: LogRatios) -> Any:
            return super().loss(log_ratios) / 2

    value = Softer(beta=0.2)
    assert (value.name, value.formula, value.parameters()["beta"]) == (
        "Softer", f"loss() of {__name__}.{Softer.__qualname__}", 0.2,
    )  # fmt: skip
    assert not is_registered(value)
    assert is_registered(trimtab.Modified(trimtab.Dpo(), sft_weight=0.1))


def test_everything_but_the_first_argument_is_keyword_only(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        trimtab.train("windtunnel", some_pairs(), trimtab.Dpo())  # type: ignore[misc]  # what is tested
    with pytest.raises(TypeError):
        trimtab.run(None, True)  # type: ignore[misc]  # what is tested
    with pytest.raises(TypeError):
        trimtab.winrate("file", "difficulty")  # type: ignore[misc]  # what is tested


def test_mistakes_are_the_command_lines_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="learning_rte") as unknown:
        trimtab.run(train={"learning_rte": 1e-3})
    assert "learning_rate" in unknown.value.remedy
    with pytest.raises(ConfigError, match="objektive"):
        trimtab.run(objektive="dpo")
    with pytest.raises(ConfigError, match="str"):
        trimtab.train("windtunnel", pairs=some_pairs(), objective="dpo")  # type: ignore[arg-type]  # what is tested
    with pytest.raises(DataError, match=r"nowhere\.jsonl"):
        trimtab.train("windtunnel", pairs="nowhere.jsonl", objective=trimtab.Dpo())
    with pytest.raises(DataError, match=r"nowhere\.json"):
        trimtab.winrate("nowhere.json")
    with pytest.raises(trimtab.TrimtabError):
        trimtab.train("windtunnel", pairs=[], objective=trimtab.Dpo())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("environment", "spins"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "None")],
)
def test_threads_wait_gently_unless_the_environment_says_how(environment: dict[str, str], spins: str) -> None:
    """Said before torch and its OpenMP are loaded, which read it once."""
    code = "import os, sys, trimtab; print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"
    usual = {name: value for name, value in os.environ.items() if name not in {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}}
    done = subprocess.run(
        [sys.executable, "-c", code], env=usual | environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [spins, "False"]
