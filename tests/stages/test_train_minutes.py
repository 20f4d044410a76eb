"""`train.max_minutes`: a run out of time ends with a checkpoint, a model and a report, and can go on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from api_runs import rows
from trimtab import cli


def tree(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_a_run_out_of_time_has_a_model_and_goes_on(tmp_path: Path) -> None:
    pairs, out = tmp_path / "pairs.jsonl", tmp_path / "run"
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    words = ["run", "--model", "windtunnel", "--data", str(pairs), "--benchmark", "none", "--judge", "none"]
    words += ["--train.batch-pairs", "4", "--train.max-steps", "4", "--train.epochs", "9", "--data.holdout", "0.2"]
    words += ["--quiet", "--out", str(out)]
    cli.main([*words, "--train.max-minutes", "1e-9"])
    assert [row["step"] for row in map(json.loads, (out / "metrics.jsonl").read_text().splitlines())] == [1]
    assert (out / "checkpoints" / "step-00000001").is_dir()
    assert (out / "model" / "model.safetensors").is_file()
    assert "train.max_minutes" in tree(out / "selection.json")["early_end"]
    assert "train.max_minutes" in (out / "report.md").read_text(encoding="utf-8").replace("\\", "")
    with pytest.raises(SystemExit):  # another course: said, and nothing is lost
        cli.main([*words, "--train.max-minutes", "99"])
    cli.main([*words, "--train.max-minutes", "99", "--resume-anyway"])
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 4
    assert tree(out / "selection.json")["early_end"] is None
