#!/usr/bin/env bash
# FSDP2's divide factor for gradients fails on gloo, until something else is asked for beside it.
#
# Guess:     set_gradient_divide_factor(1.0) makes the sum of the processes' gradients out of their mean, on every backend
#            that fully_shard runs on.
# Versions:  torch 2.13.0 (CPU), two processes on gloo.
# Behaviour: the factor, whatever its value, is handed to the collective as an operation that NCCL alone has, and the first
#            backward pass raises. After set_force_sum_reduction_for_comms(True), which is described as a matter of NCCL's
#            zero-copy transfers, the factor is multiplied in apart and the sum is right.
# Seen:      neither: mean 3.0; factor alone: RuntimeError, "Cannot use ReduceOp.PREMUL_SUM with Gloo"; both: 6.0.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
OMP_NUM_THREADS=1 "$work/venv/bin/python" - "$work" <<'PY'
import sys
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

work = Path(sys.argv[1])
warnings.simplefilter("ignore")
CASES = {"neither": (False, False), "factor alone": (True, False), "both": (True, True)}


def gradient(rank, has_factor, is_sum):
    model = torch.nn.Linear(4, 4, bias=False)
    fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
    if has_factor:
        model.set_gradient_divide_factor(1.0)
    if is_sum:
        model.set_force_sum_reduction_for_comms(True)
    try:
        model(torch.full((2, 4), float(rank + 1))).sum().backward()  # gradients 2 and 4
    except RuntimeError as error:
        return str(error)
    return float(model.weight.grad.full_tensor()[0, 0])


def process(rank):
    dist.init_process_group("gloo", init_method=f"file://{work}/meeting", rank=rank, world_size=2)
    seen = {name: gradient(rank, *case) for name, case in CASES.items()}
    if rank == 0:
        torch.save(seen, work / "seen.pt")
    dist.barrier()
    dist.destroy_process_group()


context = torch.multiprocessing.get_context("fork")
processes = [context.Process(target=process, args=(rank,)) for rank in range(2)]
for child in processes:
    child.start()
for child in processes:
    child.join(120)
seen = torch.load(work / "seen.pt")
print(seen)
assert (seen["neither"], seen["both"]) == (3.0, 6.0), "the ways that worked have changed"
assert "PREMUL_SUM" in str(seen["factor alone"]), "the factor works alone now: this finding is out of date"
PY
