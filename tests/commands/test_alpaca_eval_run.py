"""`trimtab run --benchmark alpaca_eval --judge openai:… --base-url …`: from training to report, killed on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scripted_server import Action, ScriptedServer, Seen, preferring
from trial_runs import call, tree_of
from trimtab import windtunnel

N = 24
PROMPT = "<|im_start|>user\nTo {instruction} one says <m>{output_1}</m>, another <M>{output_2}</M>. m or M?\n<|im_end|>"


def benchmark_folder(folder: Path) -> Path:
    """Official names, other texts: prompts that the shipped model knows, and a judge prompt of our own."""
    folder.mkdir()
    rows = [
        {"dataset": task.family, "instruction": task.prompt, "output": "no idea , sorry .", "generator": "published"}
        for task in windtunnel.tasks(N, seed=5, split="eval")
    ]
    (folder / "alpaca_eval_gpt4_baseline.json").write_text(json.dumps(rows))
    (folder / "alpaca_eval_clf.txt").write_text(PROMPT)
    return folder


def longer(seen: Seen) -> Action:
    first, second = (seen.text.split(f"<{tag}>", 1)[1].split(f"</{tag}>", 1)[0] for tag in "mM")
    return preferring(0.9 if len(first) > len(second) else 0.1)


def words(tmp_path: Path, url: str, out: str = "run") -> list[str]:
    return [
        *("run", "--out", str(tmp_path / out), "--model", "windtunnel"),
        *("--data", "windtunnel", "--windtunnel.pairs", "32"),
        *("--train.max-steps", "4", "--train.batch-pairs", "8", "--train.save-every", "1", "--engine.threads", "1"),
        *("--benchmark", "alpaca_eval", "--benchmark-dir", str(tmp_path / "texts"), "--max-new-tokens", "24"),
        *("--judge", "openai:some-model", "--base-url", url, "--judge.canaries", "4", "--judge.concurrency", "2"),
        "--quiet",
    ]  # fmt: skip


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-of-the-test")


def test_killed_in_every_stage_it_goes_on_and_pays_nothing_twice(
    tmp_path: Path, scripted_server: Callable[[Any], ScriptedServer]
) -> None:
    server = scripted_server(lambda seen: slower(longer(seen)))
    benchmark_folder(tmp_path / "texts")
    run, home = tmp_path / "run", tmp_path / "home"
    points: list[Callable[[], bool]] = [
        lambda: any(run.glob("checkpoints/step-*")),
        lambda: any(path.stat().st_size for path in home.glob("answers/*.jsonl")) or (run / "answers").exists(),
        lambda: len(server.requests) >= 20,
    ]
    for reached in points:
        killed(words(tmp_path, server.url), reached)
    asked_before_the_last = len(server.requests)
    assert asked_before_the_last < 2 * N
    finished = subprocess.run(command(words(tmp_path, server.url)), capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert "sk-secret" not in finished.stderr

    verdicts = {side: tree_of(run / "verdicts" / f"alpaca_eval{side}.json") for side in ("", ".unaligned")}
    for rows in verdicts.values():
        assert len({row["instruction"] for row in rows}) == len(rows) == N
        assert all(row["preference"] is not None and row["generator_1"] == "published" for row in rows)
    asked = server.bodies()
    assert sum(asked.values()) - len(asked) <= 2, "at most what was under way when it was killed is paid again"
    report = tree_of(run / "report.json")
    assert report["benchmark"]["name"] == "alpaca_eval"
    assert "some-model (weighted)" in (run / "report.html").read_text()
    assert "sk-secret" not in (run / "report.html").read_text() + json.dumps(tree_of(run / "config.json"))


def test_a_dry_run_asks_nothing_and_a_mistake_stops_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmark_folder(tmp_path / "texts")
    told = words(tmp_path, "http://127.0.0.1:9/v1")
    code, out, _ = call([*told, "--dry-run", "--json", "--input-price", "1", "--output-price", "2"], capsys)
    estimate = json.loads(out)
    assert code == 0
    assert estimate["n_calls"] == 2 * N + 4 * 4
    assert estimate["answers"] == "assumed"
    assert estimate["cost_usd"] > 0
    for changed, said in (
        (["--judge", "gpt-4"], "did you mean openai:gpt-4?"),
        (["--benchmark", "alpaca_evil"], "alpaca_evil"),
        (["--max-cost", "1"], "prices"),
    ):
        code, out, err = call([*_without(told, changed[0]), *changed], capsys)
        assert (code, out) == (2, ""), err
        assert said in err
        assert "Traceback" not in err
    without_server = _without(_without(_without(told, "--base-url"), "--judge.concurrency"), "--judge")
    code, _, err = call([*without_server, "--judge", "reward:nowhere"], capsys)
    assert code == 2
    assert "nowhere" in err
    monkeypatch.delenv("OPENAI_API_KEY")
    code, _, err = call(_without(told, "--base-url"), capsys)
    assert code == 2
    assert "OPENAI_API_KEY" in err
    assert not (tmp_path / "run").exists()


def test_a_judge_that_cannot_be_asked_leaves_the_run_as_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    benchmark_folder(tmp_path / "texts")
    run = tmp_path / "run"
    run.mkdir()
    told = ["--model", "windtunnel", "--data", "windtunnel", "--benchmark", "alpaca_eval"]
    more = ["--benchmark-dir", str(tmp_path / "texts"), "--judge", "openai:some-model", "--out", str(run)]
    (run / "config.json").write_text("{}")
    code, _, err = call(["judge", *told, *more], capsys)
    assert code == 2
    assert "OPENAI_API_KEY" in err
    more[more.index("--judge") + 1] = f"reward:{windtunnel.model_folder()}"  # it writes answers and scores none
    code, _, err = call(["judge", *told, *more], capsys)
    assert code == 2
    assert "is no reward model" in err
    assert [(path.name, path.read_text()) for path in run.iterdir()] == [("config.json", "{}")]


def slower(action: Action) -> Action:
    return Action(action.code, action.body, action.headers, wait=0.05)


def command(told: list[str]) -> list[str]:
    return [sys.executable, "-c", "from trimtab.cli import main; main()", *told]


def killed(told: list[str], reached: Callable[[], bool]) -> None:
    child = subprocess.Popen(command(told), stderr=subprocess.PIPE, text=True)
    try:
        end = time.monotonic() + 120
        while not reached():
            assert child.poll() is None, (child.stderr.read() if child.stderr else "")[-3000:]
            assert time.monotonic() < end
            time.sleep(0.01)
    finally:
        if child.poll() is None:
            os.kill(child.pid, signal.SIGKILL)
        child.communicate()


def _without(told: list[str], flag: str) -> list[str]:
    if flag not in told:
        return told
    at = told.index(flag)
    return told[:at] + told[at + 2 :]
