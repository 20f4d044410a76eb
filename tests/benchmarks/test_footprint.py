"""The footprint benchmark calls the engine as it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "footprint.py"


def test_a_tiny_case_has_a_peak_and_a_prediction() -> None:
    words = [sys.executable, str(SCRIPT), "--case", "lora", "--shape", "tiny", "--checkpointing", "off"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
    row = next(line for line in done.stdout.splitlines() if line.startswith("| tiny, lora"))
    cells = row.strip("| ").split(" | ")
    first, peak, predicted, libraries = map(float, cells[2:6])
    assert 0 < libraries < first <= peak
    assert 0 < predicted < 2
