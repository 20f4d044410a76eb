#!/usr/bin/env bash
# ZeroRedundancyOptimizer hands out a state of two different steps, and loading a state empties the dict it came in.
#
# Guess:     state_dict() is of one moment: of now, or, where it has to be consolidated first, of the consolidation, and it
#            raises where that has not been done. load_state_dict reads its argument and leaves it as it was.
# Versions:  torch 2.13.0 (CPU), two processes on gloo, AdamW.
# Behaviour: consolidated after step 3 and asked after step 6 without consolidating again, state_dict() raises nothing: the
#            parameters of the process's own shard stand at step 6 and those of the other process at step 3. The dict
#            that was handed out after step 3, before any further step, turns into the same mixture: on a CPU its tensors
#            are the optimizer's own. load_state_dict puts None in the caller's dict in place of each parameter's state
#            that another process keeps; what is saved or compared from that dict afterwards has half of the moments.
# Seen:      steps by parameter: {0: 3, 1: 3, 2: 3, 3: 3} at first; the same dict after step 6 {0: 6, 1: 6, 2: 3, 3: 3}, and
#            so is a new state_dict(); consolidated again 6 throughout. After load_state_dict: {0: None, 1: None} and
#            {2: None, 3: None} in the two processes' dicts.
# The way out: consolidate_state_dict before every state_dict(), copy.deepcopy of what it gives and of what is loaded.
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
from torch.distributed.optim import ZeroRedundancyOptimizer

work = Path(sys.argv[1])
warnings.simplefilter("ignore")


def steps(state):
    return {index: None if entry is None else int(entry["step"]) for index, entry in state["state"].items()}


def process(rank):
    dist.init_process_group("gloo", init_method=f"file://{work}/meeting", rank=rank, world_size=2)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
    optimizer = ZeroRedundancyOptimizer(model.parameters(), optimizer_class=torch.optim.AdamW, lr=1e-2)

    def train():
        for _ in range(3):
            model(torch.ones(2, 4)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()

    train()
    optimizer.consolidate_state_dict(to=0)
    first = optimizer.state_dict() if rank == 0 else None
    at_first = first and steps(first)
    train()
    later = optimizer.state_dict() if rank == 0 else None
    optimizer.consolidate_state_dict(to=0)
    if rank == 0:
        now = optimizer.state_dict()
        torch.save((at_first, steps(first), steps(later), steps(now)), work / "steps.pt")
        torch.save(now, work / "state.pt")
    dist.barrier()
    loaded = torch.load(work / "state.pt")
    assert None not in steps(loaded).values()
    optimizer.load_state_dict(loaded)
    torch.save(steps(loaded), work / f"loaded-{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


context = torch.multiprocessing.get_context("fork")
processes = [context.Process(target=process, args=(rank,)) for rank in range(2)]
for child in processes:
    child.start()
for child in processes:
    child.join(120)
at_first, first, later, now = torch.load(work / "steps.pt")
loaded = [torch.load(work / f"loaded-{rank}.pt") for rank in range(2)]
print(f"after step 3: {at_first}; the same dict after step 6: {first}")
print(f"state_dict() after step 6: {later}, consolidated again: {now}; after load_state_dict: {loaded}")
assert set(at_first.values()) == {3} and set(now.values()) == {6}
assert set(later.values()) == {3, 6}, "state_dict() is of one moment now: this finding is out of date"
assert first == later, "what was handed out keeps its moment now"
assert all(None in entries.values() for entries in loaded), "the caller's dict is left alone now"
PY
