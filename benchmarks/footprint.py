"""What training needs at Qwen2.5-0.5B's real shape: one process a case, random weights, fp32, one pair a pack.

    python benchmarks/footprint.py                     both cases, JSON and a table
    python benchmarks/footprint.py --case lora --shape 60m --checkpointing off

An optimizer step covers two pairs of 1,024 tokens (prompt and both responses). Peaks are those of resident memory
(VmHWM) of the case's own process: after the first step, and after the second, where the optimizer's moments are there
from the beginning, as in every later step.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import time
from typing import Any

from workload import EOS, SHAPES

CASES = ("lora", "full")
PROMPT, RESPONSE = 256, 384  # tokens; 1,024 a pair
PAIRS = 2
STEPS = 2
CHECKPOINTING = {"lora": "on", "full": "on"}  # what each case is measured with unless told


def main() -> None:
    """Run the cases one after another and print what they needed."""
    told = _arguments()
    if told.here:
        print(json.dumps(measure(told.case[0], shape=told.shape, checkpointing=told.checkpointing)))
        return
    rows = [run(case, shape=told.shape, checkpointing=told.checkpointing) for case in told.case or CASES]
    print(json.dumps(rows, indent=2))
    print(table(rows))


def run(case: str, *, shape: str = "qwen2.5-0.5b", checkpointing: str | None = None) -> dict[str, Any]:
    """One case in a process of its own."""
    command = [sys.executable, __file__, "--here", "--case", case, "--shape", shape]
    command += ["--checkpointing", checkpointing or CHECKPOINTING[case]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{case}: {done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(case: str, *, shape: str, checkpointing: Any) -> dict[str, Any]:
    """Two optimizer steps here and now."""
    import random

    import torch

    from trimtab import objectives
    from trimtab.engine import allocation, gradient, memory, trainable
    from trimtab.engine.optim import AdamW
    from trimtab.engine.packing import Group
    from trimtab.engine.scoring import Scorer
    from trimtab.records import TokenPair

    cpu = torch.device("cpu")
    numbers = random.Random(0)

    def ids(n: int) -> tuple[int, ...]:
        return (*(numbers.randrange(3, SHAPES[shape].vocabulary) for _ in range(n - 1)), EOS)

    pairs = [TokenPair(str(i), ids(PROMPT), ids(RESPONSE), ids(RESPONSE)) for i in range(PAIRS)]
    model = SHAPES[shape].build()
    libraries = memory.held_bytes() - sum(p.numel() * p.element_size() for p in model.parameters())
    if case == "lora":
        model = trainable.attach_lora(model, rank=16, alpha=32.0)
    told = memory.predict(
        memory.Shape.of(model),
        dtype=torch.float32,
        device=cpu,
        pack_tokens=pairs[0].n_tokens,
        response_share=2 * RESPONSE / pairs[0].n_tokens,
        base=libraries,
        checkpointing=checkpointing,
    )
    optimizer = AdamW(model, weight_decay=0.0)
    trainable.lean_embedding(model)
    allocation.settle_allocation(lean=checkpointing != "off")
    scorer = Scorer(model, checkpointing=checkpointing)
    scorer.prepare([Group.of_pair(pairs[0], 0)])
    objective = objectives.make("dpo")  # no dead zone: every response has a gradient
    reference = torch.zeros(2 * PAIRS)
    peaks, seconds = [], []
    for _ in range(STEPS):
        began = time.perf_counter()
        optimizer.zero_gradients()
        result = gradient.accumulate(
            scorer, pairs, objective=objective, reference_logps_R=reference, pack_tokens=pairs[0].n_tokens
        )
        passes = time.perf_counter() - began
        optimizer.clip(1.0)
        optimizer.step(learning_rate=1e-6)
        seconds.append((passes / PAIRS, time.perf_counter() - began - passes))
        peaks.append(memory.peak_bytes(cpu))
        gc.collect()
    assert not scorer.reason, scorer.reason
    assert result.active_R.all()
    return {
        "case": case,
        "shape": shape,
        "checkpointing": checkpointing,
        "threads": torch.get_num_threads(),
        "libraries": libraries,
        "peak_first_step": peaks[0],
        "peak": peaks[-1],
        "predicted": told.peak,
        "seconds_a_pair": min(s for s, _ in seconds),
        "optimizer_seconds": min(s for _, s in seconds),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown; memory in GB of 10⁹ bytes."""
    lines = [
        "| | checkpointing | peak RSS, first step | peak RSS | predicted | of it libraries | s a pair | s an update |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        first, peak, predicted, libraries = (
            f"{row[key] / 1e9:.2f}" for key in ("peak_first_step", "peak", "predicted", "libraries")
        )
        lines.append(
            f"| {row['shape']}, {row['case']} | {row['checkpointing']} | {first} | {peak} | {predicted} | {libraries} "
            f"| {row['seconds_a_pair']:.1f} | {row['optimizer_seconds']:.2f} |"
        )
    return "\n".join(lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--case", action="append", choices=CASES)
    parser.add_argument("--shape", choices=SHAPES, default="qwen2.5-0.5b")
    parser.add_argument("--checkpointing", choices=("off", "selective", "on"))
    parser.add_argument("--here", action="store_true", help="in this process: what the cases are run by")
    return parser.parse_args()


if __name__ == "__main__":
    main()
