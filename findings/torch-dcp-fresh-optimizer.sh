#!/usr/bin/env bash
# torch.distributed.checkpoint loads no moments into an optimizer that has not stepped yet, and its error is no Exception.
#
# Guess:     dcp.load into {"model": ..., "optimizer": ...} of the state_dict() of fresh objects, then load_state_dict of
#            both, goes on where the checkpoint was saved. What is missing raises something that `except Exception` sees.
# Versions:  torch 2.13.0 (CPU), one process.
# Behaviour: dcp.load fills the keys that it is given. A fresh AdamW has no state, so its dict has no key to fill, and
#            what lies in the checkpoint beside them is passed over without a word: the run goes on with moments of zero
#            and a step count of zero. get_state_dict makes the state first, and everything comes back. Where a key is
#            given that the checkpoint lacks, CheckpointException is raised, which derives from BaseException: a try for
#            an older checkpoint that catches Exception ends the program.
# Seen:      parameters after one more step are off by 1.4e-02 at a learning rate of 1e-02; by way of get_state_dict
#            0.0e+00. Bases of CheckpointException: BaseException, object.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
OMP_NUM_THREADS=1 "$work/venv/bin/python" - "$work" <<'PY'
import sys
import warnings

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

work = sys.argv[1]
warnings.simplefilter("ignore")  # that this is one process
inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))


def fresh():
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 4)
    return model, torch.optim.AdamW(model.parameters(), lr=1e-2)


def step(model, optimizer):
    optimizer.zero_grad()
    model(inputs).square().mean().backward()
    optimizer.step()


def plain(model, optimizer):
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict()}


def plain_set(model, optimizer, states):
    model.load_state_dict(states["model"])
    optimizer.load_state_dict(states["optimizer"])


def by_torch(model, optimizer):
    return dict(zip(("model", "optimizer"), get_state_dict(model, optimizer), strict=True))


def by_torch_set(model, optimizer, states):
    set_state_dict(model, optimizer, model_state_dict=states["model"], optim_state_dict=states["optimizer"])


def gap(name, get, put):
    trained = fresh()
    for _ in range(5):
        step(*trained)
    dcp.save(get(*trained), checkpoint_id=f"{work}/{name}")
    again = fresh()
    states = get(*again)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dcp.load(states, checkpoint_id=f"{work}/{name}")
    put(*again, states)
    assert torch.equal(trained[0].weight, again[0].weight)
    step(*trained)
    step(*again)
    about_state = [str(w.message) for w in caught if "optimizer" in str(w.message).lower()]
    return float((trained[0].weight - again[0].weight).detach().abs().max()), about_state


(lost, words), (kept, _) = gap("plain", plain, plain_set), gap("get_state_dict", by_torch, by_torch_set)
print(f"state_dict(): off by {lost:.1e}, warnings {words}; get_state_dict: {kept:.1e}")
assert kept == 0, "get_state_dict does not bring everything back either"
assert lost > 5e-3 and not words, "the moments are loaded, or their loss is said, now: this finding is out of date"
try:
    dcp.load({"nowhere": torch.zeros(1)}, checkpoint_id=f"{work}/plain")
    raise SystemExit("a key that the checkpoint lacks raises nothing")
except dcp.api.CheckpointException as error:
    print(f"bases: {[base.__name__ for base in type(error).__mro__[1:]]}")
    assert not isinstance(error, Exception), "CheckpointException is an Exception now: this finding is out of date"
PY
