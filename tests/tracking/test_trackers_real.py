"""Each tracker's real library: a run of 20 steps, stopped and gone on with, is in its own files as in metrics.jsonl.

`make test-all` runs them in an environment of their own (`.venv-track`); elsewhere they skip.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import trimtab
from api_runs import KEYS, rows
from trimtab.tracking import PACKAGES, follower

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:The ``noload``")]  # mlflow, of SQLAlchemy
PROJECT = "trimtab-test"
Losses = list[tuple[int, float]]


def tensorboard(run: trimtab.Run) -> tuple[Losses, str, str]:
    reader = import_module("tensorboard.backend.event_processing.event_accumulator")
    files = reader.EventAccumulator(str(run.folder / "tracking/tensorboard"), size_guidance={"scalars": 0})
    files.Reload()
    config, *outcomes = (
        event.tensor_proto.string_val[0].decode()
        for name in ("config/text_summary", "outcome/text_summary")
        for event in files.Tensors(name)
    )
    return [(event.step, event.value) for event in files.Scalars("loss")], config, outcomes[-1]


def wandb(run: trimtab.Run) -> tuple[Losses, str, str]:
    record_type = import_module("wandb.proto.wandb_internal_pb2").Record
    losses, config, summary, ids = [], {}, {}, set()
    for path in sorted((run.folder / "tracking/wandb").glob("offline-run-*/run-*.wandb")):
        for content in wandb_records(path.read_bytes()):
            record = record_type()
            record.ParseFromString(content)
            ids |= {record.run.run_id} - {""}
            config |= {item.key: item.value_json for item in record.run.config.update}
            summary |= {item.key or item.nested_key[0]: item.value_json for item in record.summary.update}
            row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            losses += [(row["trainer_step"], row["loss"])] if "loss" in row else []
    assert len(ids) == 1  # one run, which `wandb sync` sends to one page
    return losses, str(config), f"{summary['outcome']} {summary['report']}"


def wandb_records(content: bytes) -> Iterator[bytes]:
    """A LevelDB log: blocks of 32 KiB, records with a header of 7 bytes, after a file header of 7."""
    place, parts = 7, b""
    while place + 7 <= len(content):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def mlflow(_run: trimtab.Run) -> tuple[Losses, str, str]:
    client = import_module("mlflow").MlflowClient()
    [found_run] = client.search_runs([client.get_experiment_by_name(PROJECT).experiment_id])
    history = client.get_metric_history(found_run.info.run_id, "loss")
    assert found_run.info.status == "FINISHED"
    losses = sorted((entry.step, entry.value) for entry in history)
    return losses, str(found_run.data.params), f"done {found_run.data.tags['trimtab.report']}"


def trackio(_run: trimtab.Run) -> tuple[Losses, str, str]:
    [record] = list(import_module("trackio").Api().runs(PROJECT))
    logs = import_module("trackio.sqlite_storage").SQLiteStorage.get_logs(PROJECT, record.name)
    outcomes = [row["outcome"]["_value"] for row in logs if "outcome" in row]
    return sorted((row["step"], row["loss"]) for row in logs if "loss" in row), str(record.config), outcomes[-1]


class Stop(trimtab.Callback):
    def step(self, event: trimtab.Step, /) -> None:
        if event.step == 12:
            raise KeyboardInterrupt


READERS: dict[str, Callable[[trimtab.Run], tuple[Losses, str, str]]] = {
    "tensorboard": tensorboard, "wandb": wandb, "mlflow": mlflow, "trackio": trackio,
}  # fmt: skip


@pytest.mark.parametrize("name", READERS)
def test_the_same_twenty_losses(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    for package in {PACKAGES[name], name}:
        pytest.importorskip(package, reason="`make test-all` installs it")
    monkeypatch.setattr(follower, "END_SECONDS", 120.0)
    settings: dict[str, Any] = KEYS | {
        "train": KEYS["train"] | {"epochs": 20, "max_steps": 20},
        "track": {"to": name, "project": PROJECT},
        "objective": trimtab.Dpo(beta=0.25),
        "pairs": rows(),
        "out": tmp_path / "run",
    }
    with pytest.raises(KeyboardInterrupt):
        trimtab.train("windtunnel", callbacks=[Stop()], **settings)
    run = trimtab.train("windtunnel", **settings)
    losses, config, outcome = READERS[name](run)
    expected = list(zip(run.metrics["step"], run.metrics["loss"], strict=True))
    assert len(expected) == 20
    assert [step for step, _ in losses] == list(range(1, 21))
    if name == "tensorboard":  # which keeps float32
        assert losses == [(step, pytest.approx(loss, rel=1e-7)) for step, loss in expected]
    else:
        assert losses == expected
    assert "objective.beta" in config
    assert "0.25" in config
    assert "done" in outcome
    assert str(run.folder / "report.html") in outcome
