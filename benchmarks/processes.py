"""What several processes save: seconds of one optimizer step on one process, and shared by several, taking turns.

    python benchmarks/processes.py [--sizes 1 2] [--shard none]

Each process has one thread. Every step is dense, over the same pairs of UltraFeedback-like lengths and random weights,
from dealing the pairs to the stepped weights, so it holds what processes tell each other. Writes `processes.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import machine
from workload import SHAPES, make_pairs

HERE = Path(__file__).parent
LIMIT = 300  # seconds of one size


def main() -> None:
    told = _arguments()
    if told.worker:
        _work(told)
        return
    began, commit = datetime.now(UTC), machine.commit()
    rounds = [{size: _measure(told, size) for size in told.sizes} for _ in range(told.rounds)]
    ratios = {
        size: statistics.median(of[size]["seconds"] / of[told.sizes[0]]["seconds"] for of in rounds)
        for size in told.sizes
    }
    about = machine.about("processes.py", began, commit, threads=1)
    settings = {name: getattr(told, name) for name in ("shape", "pairs", "steps", "shard")}
    results = {"about": about, "settings": settings, "rounds": rounds, "ratios": ratios}
    (told.out / "processes.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    for size, ratio in ratios.items():
        imbalance = max(of[size]["imbalance"] for of in rounds)
        print(f"{size} processes: {ratio:.3f} of the time of {told.sizes[0]}, loads differ by {imbalance:.1%}")


def _measure(told: argparse.Namespace, size: int) -> dict[str, Any]:
    words = ["--worker", "--shape", told.shape, "--pairs", str(told.pairs), "--steps", str(told.steps)]
    launcher = [] if size == 1 else ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}"]
    command = [sys.executable, *launcher, __file__, *words, "--shard", told.shard]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    print(
        f"{size} processes: {result['seconds']:.2f} s a step, {result['computing']:.2f} of them computing", flush=True
    )
    return result


def _work(told: argparse.Namespace) -> None:
    """One process: warm-up, then the steps; the first one prints the median."""
    import torch

    from trimtab import objectives
    from trimtab.engine import allocation, gradient, memory, trainable
    from trimtab.engine.optim import AdamW
    from trimtab.engine.processes import join
    from trimtab.engine.scoring import Scorer
    from trimtab.engine.share import Share
    from trimtab.records import TokenPair

    torch.set_num_threads(1)
    processes, shape = join(timeout=60.0, device="cpu"), SHAPES[told.shape]
    model = shape.build(device="cpu", dtype="float32")
    if processes.size > 1:  # the same weights everywhere
        parameters = [parameter.data for parameter in model.parameters()]
        if not processes.is_first:
            for parameter in parameters:
                parameter.zero_()
        processes.sum_into(parameters)
    optimizer = AdamW(model, weight_decay=0.0, processes=processes, shard=told.shard)
    trainable.lean_embedding(model)
    # random weights give log-ratios of thousands of nats: with β = 0.1 the gradients of most pairs underflow to zero
    scorer, objective = Scorer(model), objectives.make("dpo", beta=1e-6)
    rows = make_pairs(told.pairs, lengths="ultrafeedback", vocabulary=shape.vocabulary)
    pairs = [TokenPair(f"row {n}", *row) for n, row in enumerate(rows)]

    def step(pairs: list[TokenPair]) -> tuple[float, float, Share]:
        """Seconds, those of computing the own share, and the shares."""
        start = time.perf_counter()
        share = Share.of(processes, pairs, [pair.n_tokens for pair in pairs])
        optimizer.zero_gradients()
        own = gradient.accumulate(
            scorer,
            share.pick(pairs),
            objective=objective,
            reference_logps_R=share.pick_R(torch.full((2 * len(pairs),), -100.0)),
            pack_tokens=memory.PACK_TOKENS["cpu"],
            share=share,
        )
        compute = time.perf_counter() - start
        share.join(processes.gather(own), pairs)
        optimizer.sum_gradients()
        optimizer.clip(1.0)
        optimizer.step(learning_rate=1e-6)
        return time.perf_counter() - start, compute, share

    step([TokenPair(p.id, p.prompt_ids[:8], p.chosen_ids[-8:], p.rejected_ids[-8:]) for p in pairs])  # checks, connects
    allocation.settle_allocation(lean=False)
    seconds, compute, shares = zip(*(step(pairs) for _ in range(told.steps)), strict=True)
    share = shares[0]
    loads = [sum(pairs[p].n_tokens for p in positions) for positions in share.positions]
    if processes.is_first:
        imbalance = max(loads) * processes.size / sum(loads) - 1
        median = statistics.median(seconds)
        speed = shape.training_operations(rows) / median
        product = memory.matmul_speed(scorer.device, torch.float32)  # of one process, while the others wait
        numbers = {"seconds": median, "computing": statistics.median(compute), "imbalance": imbalance}
        print(json.dumps(numbers | {"of_products": speed / processes.size / product}))
    processes.follow()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="a step on one process, and shared by several")
    parser.add_argument("--shape", default="60m", choices=SHAPES)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--shard", default="none", choices=["none", "optimizer", "gradients"])
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
