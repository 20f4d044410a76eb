"""The suite for a GPU, on the CPU at a tiny shape: it measures, it names what fails, and it goes on after that."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import exactness
import gpu
import gpu_cases
import pytest
import torch
from contenders import EndedError
from step import Stepper
from workload import SHAPES, choose_fate, make_pairs

REHEARSAL = ["gpu.py", "--device", "cpu", "--shape", "tiny", "--lengths", "tiny", "--pairs", "2", "--repeats", "1",
             "--threads", "1"]  # fmt: skip


@pytest.fixture
def suite(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Run it with more words; exit status, results and page."""

    def run(*words: str) -> tuple[int, dict[str, Any], str]:
        monkeypatch.setattr(sys, "argv", [*REHEARSAL, "--out", str(tmp_path), *words])
        code = gpu.main()
        told = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
        return code, told, (tmp_path / "GPU.md").read_text(encoding="utf-8")

    return run


def a_check(*, passed: bool) -> dict[str, Any]:
    return exactness.Check("a way", "tiny", 0.0 if passed else 1.0, 0.5).row()


def test_the_engine_is_exact_in_every_way_it_has() -> None:
    found = list(exactness.checks("tiny", device="cpu"))
    assert [check for check in found if not check.passed] == []
    assert len(found) >= 25
    assert max(check.value or 0.0 for check in found if "fp32" in check.on) < 1e-5


def test_a_wrong_gradient_is_noticed() -> None:
    rows = make_pairs(2, lengths="tiny", vocabulary=SHAPES["tiny"].vocabulary)
    bench = exactness._Bench("tiny", "cpu", rows)
    ours, truth = bench.gradient(bench.dense), bench.truth(bench.dense)
    assert exactness.distance(ours, truth) < 1e-5
    assert exactness.distance(bench.gradient(choose_fate(rows, rate=0.5)), truth) > 0.1
    ours[0][0] += 0.1 * ours[0].abs().max()
    assert exactness.distance(ours, truth) > exactness.FP32
    assert not exactness.Check("", "", exactness.distance([torch.tensor([torch.nan])], [torch.ones(1)]), 1.0).passed


def test_a_way_that_breaks_is_a_failed_check() -> None:
    def breaks() -> float:
        raise RuntimeError("no kernel\nfor this")

    check = exactness._measured("flash", "tiny", 1.0, breaks)
    assert not check.passed
    assert check.note == "RuntimeError: no kernel"


def test_every_case_is_a_row_of_the_page(suite: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "_checks", lambda _: iter([a_check(passed=True)]))
    code, told, page = suite("--minutes", "5")
    assert code == 0
    wanted = [
        (adapter, case.name)
        for adapter in ("full", "LoRA")
        for case in gpu_cases.cases(make_pairs(2, lengths="tiny", vocabulary=9))
    ]
    assert [(row["adapter"], row["case"]) for row in told["cases"]] == wanted
    assert all(row["seconds"][0] > 0 and row["peak"] > 0 for row in told["cases"]), told["cases"]
    assert told["ceilings"].keys() == {"copy", "matmul"}
    assert "No peer: TRL is not installed here." in page
    assert "the figures say nothing about a GPU" in page


def test_failures_are_named_and_cost_the_exit_status_only(suite: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Stepper.step

    def short_of_memory(self: Stepper, *words: Any, **options: Any) -> Any:
        if options["pack_tokens"] == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, *words, **options)

    def ended(*_: Any, **__: Any) -> Any:
        raise EndedError("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(gpu, "_checks", lambda _: iter([a_check(passed=True), a_check(passed=False)]))
    monkeypatch.setattr(Stepper, "step", short_of_memory)
    monkeypatch.setattr(gpu_cases.Worker, "start", ended)
    code, told, page = suite("--quick", "--peer-python", sys.executable)
    assert code == 1
    assert "2 checks, 1 failed." in page
    assert "**Failed: FAILED: tiny: a way" in page
    rows = {row["case"]: row for row in told["cases"]}
    assert rows["dense, one pair a pack"]["error"] == "out of memory"
    assert "seconds" in rows["dense"]
    assert rows["TRL, no checkpointing, batch 8"]["error"] == "out of memory"


def test_what_comes_after_the_time_is_a_row_too(suite: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "_checks", lambda _: iter([]))
    code, told, _ = suite("--quick", "--minutes", "0")
    assert code == 0
    assert {row["error"] for row in told["cases"]} == {"not measured: the time was up"}


def test_a_rehearsal_does_not_write_where_a_gpus_figures_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", REHEARSAL)
    with pytest.raises(SystemExit, match="2"):
        gpu.main()
