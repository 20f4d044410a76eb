#!/usr/bin/env bash
# A PiSSA adapter that started from the randomised decomposition is another model each time it is loaded.
#
# Guess:     save_pretrained on a PeftModel and PeftModel.from_pretrained on the same base give the same logits.
# Versions:  peft 0.21.2, transformers 5.23.0, torch 2.13.0 (CPU).
# Behaviour: with init_lora_weights="pissa_niter_4" the base matrices are replaced by residuals when the adapter is
#            attached, here and again when it is loaded. The decomposition draws from torch's generator, so the second
#            residual is not the first, and the stored A and B no longer fit it. No warning. With "pissa" (an exact
#            decomposition) and with plain LoRA the logits come back.
# Seen:      plain LoRA 0e+00, pissa 0e+00, pissa_niter_4 3e-01 (largest difference of a logit; logits are about 1).
# The way out that PEFT documents: path_initial_model_for_weight_conversion when saving.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$work/venv/bin/pip" install --quiet --disable-pip-version-check peft==0.21.2 transformers==5.23.0
OMP_NUM_THREADS=1 "$work/venv/bin/python" - "$work" <<'PY'
import sys
import warnings

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

warnings.simplefilter("ignore")
work = sys.argv[1]
torch.manual_seed(0)
config = LlamaConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, vocab_size=512)
LlamaForCausalLM(config).save_pretrained(f"{work}/base")
ids = torch.arange(3, 60)[None]


def gap(start):
    base = AutoModelForCausalLM.from_pretrained(f"{work}/base")
    options = {} if start is None else {"init_lora_weights": start}
    model = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], **options)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:  # as a few steps of training would
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
        before = model(input_ids=ids).logits
        model.save_pretrained(f"{work}/adapter-{start}")
        again = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(f"{work}/base"), f"{work}/adapter-{start}")
        return float((again.eval()(input_ids=ids).logits - before).abs().max())


gaps = {start: gap(start) for start in (None, "pissa", "pissa_niter_4")}
print({str(start): f"{value:.0e}" for start, value in gaps.items()})
assert gaps[None] < 1e-5, "plain LoRA does not come back either"
assert gaps["pissa"] < 1e-4, "exact PiSSA does not come back any more"
assert gaps["pissa_niter_4"] > 1e-2, "the randomised start comes back now: this finding is out of date"
PY
