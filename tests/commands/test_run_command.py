"""`trimtab run` on the embedded world: what it leaves, what it does not repeat, what it refuses, how it stops."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from trial_runs import TINY, alone, call, contents, rows_of, tree_of
from trimtab import cli, store
from trimtab import config as configuration
from trimtab.commands import plan
from trimtab.engine import models, quantized

CLOCK = {"seconds", "step_seconds", "tokens_per_second", "peak_memory_bytes"}


@dataclass(frozen=True)
class Finished:
    root: Path
    home: Path
    words: list[str]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """One bare run with small dials."""
    parent = tmp_path_factory.mktemp("runs")
    words = ["run", *TINY, "--out", str(parent / "whole"), "--quiet"]
    with alone(parent / "home"):
        cli.main(words)
    return Finished(parent / "whole", parent / "home", words)


@pytest.fixture
def same_home(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_HOME", str(finished.home))


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """No forward pass: the weights cannot even be loaded."""

    def load(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(models, "load", load)


def test_every_artefact_of_the_contract_is_there(finished: Finished) -> None:
    names = [
        *("config.json", "plan.json", "versions.json", "reference.json", "metrics.jsonl", "heldout.json"),
        *(f"data/{name}" for name in ("audit.json", "rejected.jsonl", "train.jsonl", "heldout.jsonl", "pairs.jsonl")),
        *("model/config.json", "model/model.safetensors", "model/tokenizer.json", "model/README.md"),
        *("answers/windtunnel.json", "answers/windtunnel.baseline.json"),
        *(f"verdicts/windtunnel.{judge}.json" for judge in ("oracle", "biased", "unbiased", "scores")),
        *("report.json", "report.html", "report.md"),
    ]
    assert [name for name in names if not (finished.root / name).is_file()] == []
    assert Path(tree_of(finished.root / "reference.json")["folder"]).is_relative_to(finished.home)
    assert tree_of(finished.root / "versions.json")["attention"].startswith("SDPA per segment")
    checkpoints = sorted((finished.root / "checkpoints").iterdir())
    assert [path.name for path in checkpoints] == ["step-00000002"]
    assert [problem for path in checkpoints for problem in store.damage(path)] == []
    assert store.damage(finished.root / "model") == []
    assert not list(finished.root.rglob(".tmp-*"))


def test_the_report_counts_what_the_verdicts_say(finished: Finished) -> None:
    told = tree_of(finished.root / "report.json")
    judged = {row["judge"]: row for row in told["benchmark"]["judges"]}
    assert set(judged) == {"oracle", "biased", "unbiased"}
    for judge, row in judged.items():
        verdicts = tree_of(finished.root / "verdicts" / f"windtunnel.{judge}.json")
        assert len(verdicts) == told["benchmark"]["n_prompts"] == 16
        mean = 100 * sum(verdict["preference"] - 1 for verdict in verdicts) / 16
        assert row["win_rate"]["value"] == pytest.approx(mean)
        low, high = row["win_rate"]["ci95"]
        assert low <= mean <= high
    scores = tree_of(finished.root / "verdicts" / "windtunnel.scores.json")
    assert told["benchmark"]["scores"]["after"]["value"] == pytest.approx(sum(scores["model"]) / 16)
    assert f"{judged['oracle']['win_rate']['value']:.1f}" in told["headline"][0]["text"]
    assert any(word in told["regime"][0]["text"].lower() for word in ("linear", "selective", "starved"))
    assert told["training"]["seeds"][0]["n_steps"] == 2
    page = (finished.root / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"(?:src|href)\s*=\s*[\"']?https?:", page)


def test_the_first_loss_is_the_step_zero_constant(finished: Finished) -> None:
    first = rows_of(finished.root / "metrics.jsonl")[0]
    assert first["loss"] == pytest.approx(tree_of(finished.root / "plan.json")["step_zero_loss"], abs=1e-5) == 2.0


@pytest.mark.usefixtures("same_home", "no_model")
def test_running_again_does_no_forward_pass(finished: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(finished.root)
    began = time.monotonic()
    code, out, said = call(finished.words, capsys)
    assert (code, out) == (0, "")
    assert time.monotonic() - began < 5
    assert "nothing has changed" in said
    after = contents(finished.root)
    assert {name for name in before if before[name] != after[name]} <= {"reference.json", ".stages/reference.json"}
    assert before.keys() == after.keys()
    assert call(["run", finished.root, "--resume"], capsys)[0] == 0


@pytest.mark.usefixtures("same_home", "no_model")
def test_another_configuration_in_the_same_folder_is_refused_by_name(
    finished: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(finished.root)
    code, _, said = call([*finished.words, "--beta", "0.7"], capsys)
    assert code == 2
    assert "objective.beta" in said
    assert "--out" in said
    assert contents(finished.root) == before


def test_a_run_that_began_while_this_one_was_planned_is_not_overwritten(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, made = tmp_path / "run", plan.plan

    def beaten(setup: Any, **told: Any) -> dict[str, Any]:
        first = setup.config.model_copy(update={"seed": setup.config.seed + 1})
        store.write_json(out / "config.json", configuration.to_json(first))
        return made(setup, **told)

    monkeypatch.setattr(plan, "plan", beaten)
    code, _, said = call(["run", *TINY, "--out", str(out)], capsys)
    assert code == 2
    assert "seed differ" in said
    assert sorted(path.name for path in out.iterdir() if not path.name.startswith(".")) == ["config.json"]


@pytest.mark.usefixtures("same_home")
def test_what_is_deleted_is_made_again_and_nothing_else(
    finished: Finished, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    copy = tmp_path / "copied elsewhere"
    shutil.copytree(finished.root, copy)
    expected = contents(copy)
    shutil.rmtree(copy / "verdicts")
    (copy / "report.md").unlink()
    monkeypatch.setattr(models, "load", lambda *_, **__: pytest.fail("a model was loaded"))
    code, _, said = call(["run", copy], capsys)
    assert code == 0, said
    assert f"report: {copy / 'report.html'}" in said
    after = contents(copy)
    assert {name: text for name, text in after.items() if name.startswith("verdicts/")} == {
        name: text for name, text in expected.items() if name.startswith("verdicts/")
    }
    assert (copy / "report.md").is_file()


@pytest.mark.usefixtures("same_home")
def test_stage_by_stage_is_the_same_run(finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "by stages"
    assert call(["prepare", *TINY, "--out", out, "--quiet"], capsys)[0] == 0
    for stage in ("reference", "train", "generate", "judge", "report"):
        code, printed, said = call([stage, out], capsys)
        assert (code, printed) == (0, ""), said
    assert json.loads(call(["report", out, "--json"], capsys)[1]) == tree_of(out / "report.json")

    def without_clock(root: Path) -> list[dict[str, Any]]:
        return [
            {key: value for key, value in row.items() if key not in CLOCK} for row in rows_of(root / "metrics.jsonl")
        ]

    assert without_clock(out) == without_clock(finished.root)
    for name in ("data/train.jsonl", "data/heldout.jsonl", "data/audit.json", "model/model.safetensors", "heldout.json",
                 "answers/windtunnel.json", "answers/windtunnel.baseline.json", "verdicts/windtunnel.oracle.json",
                 "verdicts/windtunnel.biased.json", "verdicts/windtunnel.scores.json"):  # fmt: skip
        assert (out / name).read_bytes() == (finished.root / name).read_bytes(), name
    ours, theirs = tree_of(out / "report.json"), tree_of(finished.root / "report.json")
    for part in ("headline", "benchmark", "heldout", "samples"):
        assert ours[part] == theirs[part], part


@pytest.mark.parametrize("stage", ["judge", "report"])
def test_a_stage_before_its_time_says_what_to_run(
    stage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, said = call([stage, *TINY, "--out", tmp_path / "run", "--quiet"], capsys)
    if stage == "report":  # reports what there is
        assert code == 0, said
        return
    assert code == 2
    assert "→ run `trimtab" in said


def test_resume_without_a_run_is_refused_and_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, said = call(["run", *TINY, "--out", tmp_path / "run", "--resume"], capsys)
    assert code == 2
    assert "no run to resume" in said
    assert not (tmp_path / "run").exists()


def test_a_folder_in_use_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with store.lock(tmp_path / "run"):
        code, _, said = call(["run", *TINY, "--out", tmp_path / "run", "--quiet"], capsys)
    assert code == 1
    assert "in use by another trimtab process" in said


def test_seeds_share_reference_and_baseline_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "seeds"
    few = [
        "--windtunnel.pairs",
        "32",
        "--windtunnel.prompts",
        "8",
        "--train.max-steps",
        "2",
        "--train.batch-pairs",
        "8",
    ]
    code, _, said = call(["run", *few, "--seeds", "2", "--out", out], capsys)
    assert code == 0, said
    one, two = out / "seed-0", out / "seed-1"
    assert (one / "report.html").is_file()
    assert (two / "report.html").is_file()
    assert (one / "model/model.safetensors").read_bytes() != (two / "model/model.safetensors").read_bytes()
    assert tree_of(one / "reference.json")["computed"] == tree_of(one / "reference.json")["rows"]
    assert tree_of(two / "reference.json")["computed"] == 0
    assert (one / "data/train.jsonl").read_bytes() == (two / "data/train.jsonl").read_bytes()
    assert said.count("sampling answers to be labelled (1 of 2): 64 of 64") == 1
    assert said.count("answers of the unaligned model: 8 of 8") == 1
    told = tree_of(out / "report.json")
    assert told["kind"] == "pooled"
    assert told["seeds"] == [0, 1]
    values = [
        next(row for row in tree_of(root / "report.json")["benchmark"]["judges"] if row["judge"] == "oracle")
        for root in (one, two)
    ]
    pooled = next(row for row in told["benchmark"]["judges"] if row["judge"] == "oracle")
    assert pooled["win_rate"]["value"] == pytest.approx(sum(row["win_rate"]["value"] for row in values) / 2)
    monkeypatch.setattr(models, "load", lambda *_, **__: pytest.fail("a model was loaded"))
    assert call(["run", out], capsys)[0] == 0
    code, _, said = call(["export", out], capsys)
    assert code == 2
    assert f"name one of them, such as {one}" in said


def test_sigterm_keeps_a_checkpoint_and_the_same_command_finishes(tmp_path: Path) -> None:
    out = tmp_path / "stopped"
    words = [sys.executable, "-m", "trimtab.cli", "run", "--windtunnel.pairs", "64", "--windtunnel.prompts", "8",
             "--train.epochs", "5", "--train.batch-pairs", "8", "--out", str(out), "--quiet"]  # fmt: skip
    own = os.environ | {"TRIMTAB_HOME": str(tmp_path / "home")}
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=own)
    metrics = out / "metrics.jsonl"
    while process.poll() is None and not (metrics.is_file() and len(metrics.read_text().splitlines()) >= 3):
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    asked = time.monotonic()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143, said
    assert time.monotonic() - asked < 25
    assert "→ the same command goes on from there" in said
    assert "Traceback" not in said
    newest, problems = store.newest_valid(out / "checkpoints", "step-")
    assert newest is not None
    assert problems == []
    stopped_after = int(newest.name.removeprefix("step-"))
    assert not (out / "model").exists()
    assert not (out / "report.json").exists()
    again = subprocess.run(words, capture_output=True, text=True, env=own, check=False)
    assert again.returncode == 0, again.stderr
    assert f"goes on after step {stopped_after}" in again.stderr
    steps = [row["step"] for row in rows_of(metrics)]
    assert steps == list(range(1, tree_of(out / "plan.json")["train"]["steps"] + 1))
    assert (out / "report.html").is_file()


@pytest.mark.parametrize(
    "words", [["--train.optimizer", "adamw_8bit"], ["--adapter", "lora", "--adapter.quantize", "nf4"]]
)
def test_a_missing_extra_is_told_before_any_work(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(quantized, "import_module", missing)
    with pytest.raises(SystemExit) as caught:
        cli.main(["run", "--out", str(tmp_path / "run"), *words])
    assert caught.value.code == 2
    assert "pip install trimtab[qlora]" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
