"""Pages made from results: the committed ones can be made again, and ratios are those of a repeat."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import convergence_table
import gpu_table
import pytest
import table

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def test_the_committed_results_make_the_committed_page(tmp_path: Path) -> None:
    found = list(BENCHMARKS.glob("results-*.json"))
    assert found
    for file in found:
        shutil.copy(file, tmp_path)
    table.write(tmp_path)
    assert (tmp_path / "RESULTS.md").read_text(encoding="utf-8") == (BENCHMARKS / "RESULTS.md").read_text(
        encoding="utf-8"
    )


def test_the_page_about_a_gpu_is_made_from_its_results_or_says_that_there_are_none() -> None:
    results, page = BENCHMARKS / "gpu.json", (BENCHMARKS / "GPU.md").read_text(encoding="utf-8")
    if results.exists():
        assert page == gpu_table.text(json.loads(results.read_text(encoding="utf-8")))
    else:
        assert page == gpu_table.not_run()
        assert "has not been run on a GPU" in page


def test_the_page_about_convergence_is_made_from_its_results() -> None:
    results = BENCHMARKS / "convergence.json"
    if not results.exists():
        pytest.skip("not measured yet")
    made = convergence_table.text(json.loads(results.read_text(encoding="utf-8")))
    assert made == (BENCHMARKS / "CONVERGENCE.md").read_text(encoding="utf-8")


def sample(contender: str, repeat: int, seconds: float, *, above: float = 1e9, busy: float = 1.0) -> dict[str, Any]:
    return {
        "contender": contender,
        "repeat": repeat,
        "seconds": seconds,
        "cpu": busy * seconds,
        "peak": 2e9,
        "above": above,
    }


def results(samples: list[dict[str, Any]], *, shape: str = "60m") -> dict[str, Any]:
    about = {"date": "d", "commit": "c", "minutes": 1, "machine": "m", "versions": {}, "command": "x"}
    settings = {"shape": shape, "lengths": "ultrafeedback", "pairs": 2, "repeats": 2, "threads": 1}
    work = {"tokens": [2, 4, 4], "training_operations": 6e12}
    return {"about": about, "settings": settings, "workload": work, "startup": {}, "samples": samples}


def test_ratios_are_taken_within_a_repeat_and_held_to_the_targets() -> None:
    """The machine is half as fast in repeat 1: TRL 20 s and 40 s, dense 4 s and 8 s, so 5 times as fast in both."""
    page = table.section(
        results(
            [
                {"contender": "matmul", "repeat": 0, "matmul": 2e12},
                {"contender": "matmul", "repeat": 1, "matmul": 1e12},
                sample(table.DENSE, 0, 4.0),
                sample(table.DENSE, 1, 8.0),
                sample(table.screened(0.1), 0, 1.0),
                sample(table.screened(0.1), 1, 2.0),
                sample(table.LEAN, 0, 9.0, above=1e8),
                sample("TRL, batch 1", 0, 20.0, above=7e8),
                sample("TRL, batch 1", 1, 40.0, above=7e8),
            ]
        )
    )
    assert "| times TRL's best, every response active | ≥ 4.5 | ≥ 6 | 5.00 (5.00 to 5.00) | floor |" in page
    assert "| times TRL's best, 0.1 active, exact | ≥ 9 | ≥ 13 | 20.00 (20.00 to 20.00) | aim |" in page
    assert "| screened, 0.1 active: of the dense time | ≤ 0.5 | ≤ 0.45 | 0.25 (0.25 to 0.25) | aim |" in page
    assert "leanest: one pair a pack, checkpointing | ≥ 5 | ≥ 8 | 7.00 | floor |" in page
    assert "| dense: share of the fp32 matrix-product ceiling | ≥ 0.7 | ≥ 0.82 | 0.75 (0.75 to 0.75) | floor |" in page


def test_disturbed_and_failed_turns_are_named_and_left_out() -> None:
    page = table.section(
        results(
            [
                {"contender": "matmul", "repeat": 0, "matmul": 2e12},
                sample(table.DENSE, 0, 4.0),
                sample(table.ONE_PAIR, 0, 90.0, busy=0.5),
                {"contender": "TRL, batch 8", "repeat": 0, "error": "killed"},
            ],
            shape="tiny",
        )
    )
    assert "| trimtab, dense, one pair a pack |" not in page
    assert (
        "Left out, because other work took more than 20% of the processor meanwhile: trimtab, dense, one pair" in page
    )
    assert "Ended without an answer: TRL, batch 8." in page
    assert "held to" not in page


def run_of(mode: str, repeat: int, step_seconds: list[float], skipped: list[float]) -> dict[str, Any]:
    rows = [
        {
            "step": i + 1,
            "epoch": (i + 1) / 2,
            "seconds": sum(step_seconds[: i + 1]),
            "skipped_backward": skipped[i],
            "tokens": 100,
            "active/chosen": 1.0,
            "active/rejected": 1.0 - i / 4,
            "active/pair": 1.0,
        }
        for i in range(len(step_seconds))
    ]
    return {"mode": mode, "repeat": repeat, "rows": rows}


def test_convergence_is_read_at_the_first_checkpoint_that_is_good_enough() -> None:
    """Dense: 2 s a step, .70 after step 2, .75 after step 4. Screened: the second epoch's steps take 1 s."""
    task = {
        "task": "a world",
        "words": "trimtab run",
        "runs": [
            run_of("dense", 0, [2.0] * 4, [0.0] * 4),
            run_of("screened", 0, [2.0, 2.0, 1.0, 1.0], [0, 0, 0.5, 0.7]),
        ],
        "accuracy": {mode: [(0, 0.5), (2, 0.7), (4, 0.75)] for mode in ("dense", "screened")},
        "repeats_identical": True,
        "exact": {"screened": {"apart": 1e-6, "metrics": 1e-6}},
        "approximate": {},
    }
    about = {"date": "d", "commit": "c", "minutes": 1, "machine": "m", "versions": {}, "command": "x"}
    page = convergence_table.text({"about": about, "seed": 0, "repeats": 1, "tasks": [task]})
    assert "| s to 0.65 | s to 0.7 | s to 0.75 | backward skipped | forward skipped | promoted |" in page
    assert "| dense | 8.0 | 1.00 | 4.0 | 4.0 | 8.0 | 0% | 0% | 0% |" in page
    assert "| screened | 6.0 | 0.75 | 4.0 | 4.0 | 6.0 | 30% | 0% | 0% |" in page
    assert "| 2 | 1.00 | 0.38 | 1.00 | 4.0 | 2.0 | 0.50 | 60% |" in page
    assert "Dense and screened: the same path" in page
    task["exact"]["screened"]["apart"] = 0.5
    assert "**another path**" in convergence_table.text({"about": about, "seed": 0, "repeats": 1, "tasks": [task]})
