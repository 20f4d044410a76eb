"""What checkpoints cost a run: the seconds of one against those of the steps between two, at the default cadence.

    python benchmarks/checkpoints.py                     60M parameters, fp32, batches of 16 pairs; one JSON object

A step is a quarter of its batch's gradient four times, and one update. A checkpoint is all of it: weights and moments
written, synced, hashed and read back, the oldest one deleted. Both are measured in turns, so that they see the same
load. By default a run saves ten times: the share falls with its length, and is given for short ones.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import machine
from workload import LENGTHS, SHAPES, choose_fate, make_pairs

BATCH = 16  # pairs an optimizer step, the default of train.batch_pairs
PART = 4
STEPS = (32, 64, 128, 1024)  # of whole runs


def measure(shape: str, *, lengths: str, repeats: int, folder: Path) -> dict[str, Any]:
    """Seconds of steps and of checkpoints, one after another."""
    from step import Stepper
    from trimtab.engine import checkpoint
    from trimtab.runtime.training_plan import CHECKPOINTS_A_RUN

    stepper = Stepper(SHAPES[shape])
    pairs = make_pairs(PART, lengths=lengths, vocabulary=stepper.vocabulary)
    fate, pack_tokens = choose_fate(pairs, rate=1.0), stepper.pack_tokens(pairs)
    stepper.warm_up(pairs)
    parts, updates, saves = [], [], []
    for number in range(1, repeats + 1):
        began = time.perf_counter()
        stepper.optimizer.zero_gradients()
        stepper.accumulate(pairs, fate, pack_tokens=pack_tokens, screening=False)
        middle = time.perf_counter()
        stepper.optimizer.clip(1.0)
        stepper.optimizer.step(learning_rate=0.0)
        end = time.perf_counter()
        checkpoint.save(folder, step=number, optimizer=stepper.optimizer, identity={}, extra={})
        parts.append(middle - began)
        updates.append(end - middle)
        saves.append(time.perf_counter() - end)
    step, save = BATCH / PART * median(parts) + median(updates), median(saves)
    between = {n: math.ceil(n / CHECKPOINTS_A_RUN) for n in STEPS}
    return {
        "shape": shape,
        "lengths": lengths,
        "batch_pairs": BATCH,
        "step_seconds": round(step, 2),
        "checkpoint_seconds": round(save, 2),
        "checkpoint_bytes": sum(file.stat().st_size for file in max(folder.iterdir()).iterdir()),
        "overhead_by_steps_of_the_run": {n: round(save / (every * step), 5) for n, every in between.items()},
        "measured": {"quarters": parts, "updates": updates, "checkpoints": saves},
    }


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--shape", choices=sorted(SHAPES), default="60m")
    words.add_argument("--lengths", choices=sorted(LENGTHS), default="ultrafeedback")
    words.add_argument("--repeats", type=int, default=3)
    words.add_argument("--threads", type=int, default=machine.threads_here())
    words.add_argument("--folder", help="where checkpoints go; default the system's temporary folder")
    told = words.parse_args()
    began, commit = datetime.now(UTC), machine.commit()
    import torch

    torch.set_num_threads(told.threads)
    with tempfile.TemporaryDirectory(dir=told.folder) as folder:
        found = measure(told.shape, lengths=told.lengths, repeats=told.repeats, folder=Path(folder))
    found["load"] = os.getloadavg()
    found["about"] = machine.about("checkpoints.py", began, commit, threads=told.threads)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
