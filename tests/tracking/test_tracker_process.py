"""A tracker's process: what it is sent, over several lives, and what its failing means to the run.

Two files stand in for tensorboardX: one that writes down what it is told, one that behaves badly.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

import trimtab
from api_runs import KEYS, rows
from trimtab import cli
from trimtab.errors import ConfigError, UserError
from trimtab.progress import reporter
from trimtab.tracking import follower

RECORDER = """
import json, os, sys
class SummaryWriter:
    def __init__(self, logdir, flush_secs):
        os.makedirs(logdir, exist_ok=True)
        self._file = open(os.path.join(logdir, "told.jsonl"), "a")
        print("printed by the library"); print("and this", file=sys.stderr)
    def _tell(self, *words):
        self._file.write(json.dumps(words) + "\\n"); self._file.flush()
    def add_scalar(self, name, value, step): self._tell(name, value, step)
    def add_text(self, name, text, step): self._tell(name, text, step)
    def close(self): self._tell("close")
"""
FAULTS = {
    "raises": "def SummaryWriter(logdir, flush_secs): raise OSError(28, 'No space left on device')",
    "dies": "import os\nos._exit(9)",
    "raises late": RECORDER
    + "    def add_scalar(self, name, value, step):\n        if step == 3: raise ValueError('no such number')\n"
    + "        self._tell(name, value, step)\n",
}
HANGS = "import time\nclass SummaryWriter:\n    def __init__(self, logdir, flush_secs): time.sleep(600)"


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "library"
    folder.mkdir()
    source = str(Path(trimtab.__file__).parents[1])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), source]))
    monkeypatch.syspath_prepend(str(folder))
    return folder / "tensorboardX.py"


def train(out: Path, *callbacks: trimtab.Callback, steps: int = 4, **keys: Any) -> trimtab.Run:
    settings = KEYS | {"train": KEYS["train"] | {"max_steps": steps, "save_every": 1}, "track": "tensorboard"} | keys
    return trimtab.train("windtunnel", pairs=rows(), objective=trimtab.Dpo(), out=out, callbacks=callbacks, **settings)


def lines(run: Path) -> list[list[Any]]:
    path = run / "tracking" / "tensorboard" / "told.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def losses(told: list[list[Any]]) -> list[tuple[int, float]]:
    return [(step, value) for name, value, step in (line for line in told if line[0] == "loss")]


def test_it_is_sent_everything_once(tmp_path: Path, library: Path, capsys: pytest.CaptureFixture[str]) -> None:
    library.write_text(RECORDER)
    run = train(tmp_path / "run")
    told = lines(run.folder)
    assert losses(told) == list(zip(run.metrics["step"], run.metrics["loss"], strict=True))
    names = {line[0] for line in told if line[0] != "close"}
    assert names == set(run.metrics.columns) - {"step"} | {
        "heldout/accuracy", "heldout/loss", "heldout/reward_gap", "heldout/drift", "config", "outcome",
    }  # fmt: skip
    assert [line for line in told if line[0] == "outcome"] == [
        ["outcome", f"done, report: {run.folder}/report.html", 4]
    ]
    assert told[-1] == ["close"]
    [config] = [line[1] for line in told if line[0] == "config"]
    assert '| objective.name | `"dpo"` |' in config
    captured = capsys.readouterr()
    assert "printed by the library" not in captured.out + captured.err
    assert train(tmp_path / "run") == run
    assert losses(lines(run.folder)) == losses(told)  # what was delivered is not sent again


def test_a_run_that_goes_on_sends_what_is_missing(tmp_path: Path, library: Path) -> None:
    class Stop(trimtab.Callback):
        def step(self, event: trimtab.Step, /) -> None:
            if event.step == 2:
                raise KeyboardInterrupt

    library.write_text(RECORDER)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", Stop())
    assert [line[1] for line in lines(tmp_path / "run") if line[0] == "outcome"] == ["stopped"]
    run = train(tmp_path / "run")
    told = lines(run.folder)
    assert losses(told) == list(zip(run.metrics["step"], run.metrics["loss"], strict=True))
    assert [line[0] for line in told].count("config") == 1


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failing_library_stops_no_run_and_is_named_once(
    tmp_path: Path, library: Path, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    library.write_text(FAULTS[fault])
    run = train(tmp_path / "run")
    assert len(run.metrics) == 4
    [sentence] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("track:")]
    reason = {"raises": "No space left on device", "dies": "exit code 9", "raises late": "ValueError: no such number"}
    assert sentence.startswith("track: tensorboard failed (")
    assert reason[fault] in sentence
    library.write_text(RECORDER)  # and once it is mended, the same command sends what is missing
    assert train(tmp_path / "run") == run
    assert losses(lines(run.folder)) == list(zip(run.metrics["step"], run.metrics["loss"], strict=True))


def test_a_hanging_library_is_waited_for_a_while_only(
    tmp_path: Path, library: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    processes = []
    real = follower.subprocess.Popen

    def start(*words: Any, **options: Any) -> Any:
        processes.append(real(*words, **options))
        return processes[-1]

    library.write_text(HANGS)
    monkeypatch.setattr(follower, "END_SECONDS", 0.5)
    monkeypatch.setattr(follower.subprocess, "Popen", start)
    begin = time.monotonic()
    tracker = follower.TrackerProcess(
        "tensorboard", folder=tmp_path, project="p", run_name="r", config={}, reporter=reporter()
    )
    try:
        for step in range(1, 2001):  # more than a pipe holds
            tracker.step(trimtab.Step(tmp_path, step, 2000, {"step": step, "loss": 0.5, "note": 1.0}))
        tracker.end(trimtab.End(tmp_path, "done", None))
        assert time.monotonic() - begin < 30
        assert "track: tensorboard has not taken everything after 0 s" in capsys.readouterr().err
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_a_library_that_is_not_there_is_refused_before_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trimtab.tracking.PACKAGES", {"tensorboard": "no_such_package"})
    with pytest.raises(UserError, match="track: tensorboard needs the package no_such_package"):
        train(tmp_path / "run")
    assert not (tmp_path / "run").exists()
    run = train(tmp_path / "run", track="none")
    config = json.loads((run.folder / "config.json").read_text())
    (run.folder / "config.json").write_text(json.dumps(config | {"track": {"to": ["tensorboard"], "project": "p"}}))
    cli.main(["report", str(run.folder), "--quiet"])  # on a machine without the library, too


def test_the_key() -> None:
    from trimtab.config import resolve
    from trimtab.config.flags import as_words

    base = {"model": "windtunnel", "data": "windtunnel"}
    config = resolve(base | {"track": "wandb, mlflow"})
    assert config.track.to == ("wandb", "mlflow")
    assert config.out == resolve(base).out  # who looks on makes no other run
    assert "--track wandb,mlflow" in " ".join(as_words(config) or [])
    assert "--track" not in (as_words(resolve(base)) or ["--track"])
    with pytest.raises(ConfigError, match=r"track\.to"):
        resolve(base | {"track": "comet"})
    with pytest.raises(ConfigError, match=r"track\.project has no effect"):
        resolve(base | {"track": {"project": "mine"}})
    with pytest.raises(ConfigError, match=r"track\.project"):  # a dot is dropped by trackio, a comma refused by mlflow
        resolve(base | {"track": {"to": "trackio", "project": "my.project"}})
