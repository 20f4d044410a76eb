"""Contenders in processes of their own, taking turns; slow because each imports torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from contenders import Contender, EndedError, Processes

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def test_a_process_that_ends_says_why(tmp_path: Path) -> None:
    processes = Processes(threads=1, log=tmp_path / "log", one_at_a_time=True)
    nobody = Contender("nobody", sys.executable, "trimtab_worker.py", ("--shape", "none"), {})
    with pytest.raises(EndedError, match="the following arguments are required"):
        processes.of(nobody)


@pytest.mark.slow
def test_the_bench_without_its_peer(tmp_path: Path) -> None:
    words = ["--shape", "tiny", "--lengths", "tiny", "--pairs", "4", "--repeats", "2", "--trl", "0", "--threads", "1"]
    subprocess.run(
        [sys.executable, BENCHMARKS / "bench.py", *words, "--no-startup", "--out", tmp_path], check=True, timeout=300
    )
    told = json.loads((tmp_path / "results-tiny-tiny.json").read_text(encoding="utf-8"))
    assert not [row for row in told["samples"] if "error" in row]
    rows = {row["contender"]: row for row in told["samples"]}
    assert rows["trimtab, dense"]["skipped"] == 0
    assert rows["trimtab, screened, 1 active"]["promoted"] == 0
    assert rows["trimtab, screened, 0.3 active"]["skipped"] == pytest.approx(0.7, abs=0.15)
    assert rows["trimtab, screened, 0.3 active, a tenth of the forecasts wrong"]["promoted"] > 0
    assert rows["trimtab, screened and shrunk, 0.1 active"]["held"] > 0.5
    assert "trimtab, chosen active, rejected not" in (tmp_path / "RESULTS.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_convergence_on_a_small_wind_tunnel(tmp_path: Path) -> None:
    words = ["--repeats", "1", "--checkpoints", "3", "--home", tmp_path / "home", "--out", tmp_path]
    world = ["--windtunnel", "--windtunnel.pairs", "64"]
    subprocess.run([sys.executable, BENCHMARKS / "convergence.py", *words, *world], check=True, timeout=600)
    (task,) = json.loads((tmp_path / "convergence.json").read_text(encoding="utf-8"))["tasks"]
    assert task["repeats_identical"]
    assert task["exact"]["screened"]["apart"] < 1e-3
    assert task["accuracy"]["dense"][0] == [0, 0.5]
    assert "the same path" in (tmp_path / "CONVERGENCE.md").read_text(encoding="utf-8")
