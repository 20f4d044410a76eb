#!/usr/bin/env bash
# A reference that follows the policy (TR-DPO) begins again at its start when TRL's run goes on from a checkpoint.
#
# Guess:     resume_from_checkpoint gives the run that was never interrupted: the same losses, the same weights.
# Versions:  trl 1.16.0, transformers 5.23.0, datasets 5.2.0, accelerate 1.15.0, torch 2.13.0 (CPU).
# Behaviour: with sync_ref_model=True a callback mixes the policy into the reference every ref_model_sync_steps. A
#            checkpoint has the policy, the optimizer, the schedule and the generators, not the reference: after the
#            resumption it is the model that the run began with, or whatever ref_model was passed. No warning. Without
#            sync_ref_model the losses come back to the last digit.
# Seen:      losses of steps 5 to 8, resumed after 4, without interruption and with it:
#            fixed reference  0.6127 0.5357 0.5913 0.5883 | 0.6127 0.5357 0.5913 0.5883
#            moving reference 0.6672 0.6465 0.6713 0.6597 | 0.6127 0.5357 0.6530 0.6445
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$work/venv/bin/pip" install --quiet --disable-pip-version-check trl==1.16.0 transformers==5.23.0 datasets==5.2.0 accelerate==1.15.0
OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 "$work/venv/bin/python" - "$work" 2> "$work/stderr" <<'PY' || { tail -5 "$work/stderr"; exit 1; }
import contextlib
import io
import random
import sys

from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, set_seed
from trl import DPOConfig, DPOTrainer

work = sys.argv[1]
vocabulary = {word: index for index, word in enumerate(["<pad>", "<eos>", "<unk>", *(f"w{n}" for n in range(60))])}
words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")
set_seed(0)
LlamaForCausalLM(
    LlamaConfig(vocab_size=63, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                bos_token_id=None, eos_token_id=1, pad_token_id=0)
).save_pretrained(f"{work}/model")
draw = random.Random(0)


def text(length):
    return " ".join(f"w{draw.randrange(60)}" for _ in range(length))


pairs = Dataset.from_list([{"prompt": text(4) + " ", "chosen": text(20), "rejected": text(20)} for _ in range(16)])


def losses(is_moving, checkpoint=None):
    trainer = DPOTrainer(
        model=LlamaForCausalLM.from_pretrained(f"{work}/model"),
        ref_model=LlamaForCausalLM.from_pretrained(f"{work}/model"),
        args=DPOConfig(output_dir=f"{work}/{is_moving}", report_to=[], use_cpu=True, bf16=False, max_steps=8, logging_steps=1,
                       save_steps=4, per_device_train_batch_size=4, learning_rate=1e-3, lr_scheduler_type="constant",
                       max_length=None, disable_tqdm=True, sync_ref_model=is_moving, ref_model_sync_steps=2,
                       ref_model_mixup_alpha=0.6),
        train_dataset=pairs,
        processing_class=tokenizer,
    )
    with contextlib.redirect_stdout(io.StringIO()):
        trainer.train(resume_from_checkpoint=checkpoint)
    return [round(row["loss"], 4) for row in trainer.state.log_history if row.get("step", 0) > 4 and "loss" in row]


fixed, moving = ((losses(kind), losses(kind, f"{work}/{kind}/checkpoint-4")) for kind in (False, True))
for name, (whole, resumed) in {"fixed": fixed, "moving": moving}.items():
    print(f"{name} reference: {whole} without interruption, {resumed} resumed after step 4")
assert fixed[0] == fixed[1], "a run with a fixed reference does not come back either"
assert abs(moving[0][0] - moving[1][0]) > 0.01, "the reference comes back now: this finding is out of date"
PY
