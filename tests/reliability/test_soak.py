"""Thousands of steps in one process: memory, open files and what lies on disk stay as they are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

import children
import pytest

from trimtab import store

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads /proc")

EVERY = 20  # steps between checkpoints, and between looks
GROWTH = 0.05  # of resident memory, from the first quarter to the last

RUN = """
import json, os, sys
from pathlib import Path
import torch
from stage_runs import Recorder, align, make_config
torch.set_num_threads(1)
model, out, steps, every = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
looks = []

class Looking(Recorder):
    def look(self):
        status = Path("/proc/self/status").read_text()
        resident = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
        looks.append([self.tracked["training"], resident, len(os.listdir("/proc/self/fd"))])
        self._at += every

told = Looking(at=every + 1)
told._act = told.look
often = {"epochs": steps, "max_steps": steps, "save_every": every, "learning_rate": 1e-3}
align(make_config(out, model, train=often), held=0, reporter=told)
print(json.dumps(looks))
"""


def looks_at(model: Path, out: Path, *, steps: int) -> list[list[int]]:
    """(step, resident kB, open files) after every checkpoint, in a process of its own."""
    paths = [str(Path(children.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(  # our own words
        [sys.executable, "-c", RUN, str(model), str(out), str(steps), str(EVERY)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        check=False,
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told: list[list[int]] = json.loads(done.stdout.splitlines()[-1])
    return told


def left_over(out: Path) -> list[str]:
    """Files that nobody should find after a run."""
    return sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.name.startswith((".tmp-", ".old-")))


@pytest.mark.parametrize("steps", [150, pytest.param(2000, marks=pytest.mark.slow)])
def test_memory_files_and_folders_stay_as_they_are(tiny: Path, place: Path, steps: int) -> None:
    looks = looks_at(tiny, place / "run", steps=steps)
    assert [step for step, _, _ in looks] == list(range(EVERY + 1, steps + 1, EVERY))
    quarter = max(2, len(looks) // 4)
    early, late = looks[:quarter], looks[-quarter:]
    before, after = (median(resident for _, resident, _ in some) for some in (early, late))
    print(f"resident {before / 1e3:.1f} to {after / 1e3:.1f} MB ({after / before - 1:+.2%}), files {looks[-1][2]}")
    assert after <= (1 + GROWTH) * before
    assert len({files for _, _, files in looks}) == 1
    assert left_over(place) == []
    checkpoints = sorted(folder.name for folder in (place / "run" / "checkpoints").iterdir())
    assert checkpoints == [f"step-{steps:08d}"]
    rows = store.read_jsonl(place / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, steps + 1))
