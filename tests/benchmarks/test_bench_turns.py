"""Contenders in processes of their own, taking turns; slow because each imports torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import machine
import pytest
import table
from contenders import Contender, EndedError, Processes

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def test_a_process_that_ends_says_why(tmp_path: Path) -> None:
    processes = Processes(threads=1, log=tmp_path / "log", one_at_a_time=True)
    nobody = Contender("nobody", sys.executable, "trimtab_worker.py", ("--shape", "none"), {})
    with pytest.raises(EndedError, match="the following arguments are required"):
        processes.of(nobody)


@pytest.mark.slow
def test_the_bench_without_its_peer(tmp_path: Path) -> None:
    words = ["--shape", "tiny", "--lengths", "tiny", "--pairs", "6", "--repeats", "2", "--trl", "0", "--threads", "1"]
    words += ["--adapter", "lora", "--rates", "0.3", "--wrong-rates", "0.3", "--shrunk-rates", "0.1", "--no-mixed"]
    words += ["--baseline", BENCHMARKS.parent]
    subprocess.run([sys.executable, BENCHMARKS / "bench.py", *words, "--out", tmp_path], check=True, timeout=300)
    told = json.loads((tmp_path / f"results-{machine.kind()}-tiny-tiny-lora.json").read_text(encoding="utf-8"))
    assert not [row for row in told["samples"] if "error" in row]
    rows = {row["contender"]: row for row in told["samples"]}
    assert rows[table.DENSE]["skipped"] == rows[table.BASELINE]["skipped"] == 0
    assert rows[table.screened(0.3)]["skipped"] == pytest.approx(0.7, abs=0.15)
    assert rows[table.mistaken(0.3)]["promoted"] > 0
    assert rows[table.shrunk(0.1)]["held"] > 0.5
    assert "Shape tiny, LoRA" in (tmp_path / "RESULTS.md").read_text(encoding="utf-8")


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
