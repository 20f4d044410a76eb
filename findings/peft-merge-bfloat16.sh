#!/usr/bin/env bash
# A LoRA adapter of a short, careful run, merged into its bfloat16 base: half of its changes are rounded away.
#
# Guess:     merge_and_unload gives the model that was trained and evaluated, up to the precision of its arithmetic.
# Versions:  peft 0.21.2, transformers 5.23.0, torch 2.13.0 (CPU).
# Behaviour: the adapter is kept in float32, the base in bfloat16, and the sum goes into bfloat16: a change that is smaller
#            than half the distance to the next number is dropped, any other becomes a whole distance. At the rates of
#            preference training the changes are about as small as that. Nothing is said; safe_merge=True looks
#            for NaN alone. Merged into the same base held in float32, the logits come back.
# Seen:      a small model, weights of about 0.02, 50 steps of AdamW at 5e-6: 54 % of the weights do not move, and the logits are
#            off by 16 % of what training had changed in them; 100 steps at 1e-4: 2 % and 0 %. Into float32: 0 %.
# The way out: merge into and store float32, or serve base and adapter.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$work/venv/bin/pip" install --quiet --disable-pip-version-check peft==0.21.2 transformers==5.23.0
OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 "$work/venv/bin/python" - "$work" 2> "$work/stderr" <<'PY' || { tail -5 "$work/stderr"; exit 1; }
import copy
import sys
import warnings

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

work = sys.argv[1]
torch.manual_seed(0)
config = LlamaConfig(hidden_size=256, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4, vocab_size=512)
LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(f"{work}/base")
ids = torch.randint(0, 512, (4, 64))


def base():
    return LlamaForCausalLM.from_pretrained(f"{work}/base", dtype=torch.bfloat16)


def logits(model):
    """In float32 arithmetic: of the weights as they are stored, and of nothing else."""
    with torch.no_grad():
        return copy.deepcopy(model).float().eval()(input_ids=ids).logits


def trained(rate, steps):
    torch.manual_seed(1)
    model = get_peft_model(base(), LoraConfig(r=8, lora_alpha=16, target_modules="all-linear"))
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=rate, weight_decay=0)
    for _ in range(steps):
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def lost(model):
    """The merged model's distance from the trained one over that of the base, in logits, and the weights that changed."""
    goal, start = logits(model), logits(base())
    weights = copy.deepcopy(model).float().merge_and_unload()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        merged = model.merge_and_unload(safe_merge=True)
    words = [str(w.message) for w in caught if "round" in str(w.message) or "precision" in str(w.message)]
    whole = (goal - start).norm()
    pairs = [(a, b) for (n, a), b in zip(base().named_parameters(), merged.parameters(), strict=True) if "_proj" in n]
    changed = sum(int((a != b).sum()) for a, b in pairs) / sum(a.numel() for a, _ in pairs)
    return float((logits(merged) - goal).norm() / whole), float((logits(weights) - goal).norm() / whole), changed, words


short, long = lost(trained(5e-6, 50)), lost(trained(1e-4, 100))
for name, (in_bfloat16, in_float32, changed, _) in {"50 steps of 5e-6": short, "100 steps of 1e-4": long}.items():
    print(f"{name}: off by {in_bfloat16:.0%} of what training changed in bfloat16, {in_float32:.0%} in float32; {changed:.0%} of the"
          " weights have moved")
assert short[1] < 0.01 and long[1] < 0.01, "merging into float32 is not exact either"
assert short[0] > 0.1 and not short[3], "less is lost, or it is said, now: this finding is out of date"
assert long[0] < short[0] / 3
PY
