"""What the page says of who reached which accuracy when, from runs whose numbers are known."""

from __future__ import annotations

from typing import Any

import time_to_accuracy_table


def run(side: str, reference: float, *values: float, pace: float = 10.0) -> dict[str, Any]:
    looks = [
        {"step": 2**i, "seconds": pace * 2**i, "value": value, "ci95": [value - 0.1, value + 0.1]}
        for i, value in enumerate(values)
    ]
    about = {"side": side, "objective": "dpo", "adapter": "LoRA", "rate": 1e-3, "reference_seconds": reference}
    return about | {"looks": looks}


def lines(*runs: dict[str, Any]) -> str:
    about = {
        "machine": "a processor", "date": "2026-01-01", "commit": "abc", "minutes": 1.0, "versions": {}, "command": "c",
    }  # fmt: skip
    return time_to_accuracy_table.section({"about": about, "batch": 8, "rate": 1e-3, "runs": list(runs)})


def test_the_ratio_is_of_seconds_to_the_best_that_the_peer_showed() -> None:
    text = lines(run("trimtab", 5.0, 0.5, 0.7, 0.72), run("TRL", 20.0, 0.5, 0.6, 0.65))
    # TRL's .65 at step 4: 20 + 40; ours has .7 at step 2: 5 + 20
    assert "shows as much at step 2: 60 s against 25, 2.4 times." in text
    assert "| trimtab, dpo, LoRA, 0.001 | 5 | 10 s, 50.0 % (40, 60) | 20 s, 70.0 % (60, 80) |" in text


def test_an_accuracy_that_ours_never_shows_is_said() -> None:
    assert "trimtab, dpo, LoRA, 0.001 never shows as much." in lines(run("trimtab", 5.0, 0.5), run("TRL", 20.0, 0.65))


def test_the_pace_is_of_equal_steps_under_the_same_adapter() -> None:
    full = run("TRL", 0.0, 0.5, 0.6, pace=99.0) | {"adapter": "all weights"}
    text = lines(run("trimtab", 0.0, 0.5, 0.6), run("TRL", 0.0, 0.5, 0.6, pace=25.0), full)
    assert "- Pace, 2 steps: TRL, dpo, LoRA, 0.001 50 s, trimtab, dpo, LoRA, 0.001 20 s, 2.5 times." in text
    assert text.count("Pace") == 1
