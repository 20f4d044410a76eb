#!/usr/bin/env bash
# Reference log-probabilities that TRL's DPO keeps on disk are those of another run's responses: cut elsewhere.
#
# Guess:     precompute_ref_log_probs=True gives what the reference says of the very tokens that are trained on, so the
#            first loss is ln 2 whatever other runs over the same data did before.
# Versions:  trl 1.16.0, transformers 5.23.0, datasets 5.2.0, accelerate 1.15.0, torch 2.13.0 (CPU).
# Behaviour: the file's name is made of the tokenised data set and the weights. Responses are cut later, batch by batch,
#            and ld_alpha enters later still, so a run with max_length=16 and truncation_mode="keep_end", or with
#            ld_alpha, reads without a word what a run over whole responses has written, and the other way round. Every
#            margin is off by the reference's log-probability of the tokens that were cut. In truncation mode
#            "keep_start" a filter's function carries all arguments into the key: another seed is computed anew.
# Seen:      first loss, each as the first run on its data: 0.693, 0.693, 0.693. After a run over whole responses: cut
#            to their last 16 tokens 0.088, with ld_alpha 0.093; whole after cut: 5.149. Times that the reference is
#            computed in two runs that differ in their seed: keep_end 1, keep_start 2.
# The way out: a cache_dir of load_dataset for each setting.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$work/venv/bin/pip" install --quiet --disable-pip-version-check trl==1.16.0 transformers==5.23.0 datasets==5.2.0 accelerate==1.15.0
OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 "$work/venv/bin/python" - "$work" 2> "$work/stderr" <<'PY' || { tail -5 "$work/stderr"; exit 1; }
import contextlib
import io
import json
import random
import sys

import datasets
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, set_seed
from trl import DPOConfig, DPOTrainer

work = sys.argv[1]
WHOLE = {"max_length": None}
END = {"max_length": 16, "truncation_mode": "keep_end"}
START = {"max_length": 16, "truncation_mode": "keep_start"}
LENGTH_DESENSITISED = {"max_length": None, "ld_alpha": 0.1}

vocabulary = {word: index for index, word in enumerate(["<pad>", "<eos>", "<unk>", *(f"w{n}" for n in range(60))])}
words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>").save_pretrained(
    f"{work}/model"
)
set_seed(0)
LlamaForCausalLM(
    LlamaConfig(vocab_size=63, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                bos_token_id=None, eos_token_id=1, pad_token_id=0)
).save_pretrained(f"{work}/model")
draw = random.Random(0)
with open(f"{work}/pairs.jsonl", "w") as file:
    for n in range(16):
        lengths = {"prompt": 4, "chosen": 20 + n, "rejected": 20 - n}
        row = {name: " ".join(f"w{draw.randrange(60)}" for _ in range(length)) for name, length in lengths.items()}
        print(json.dumps({**row, "prompt": row["prompt"] + " "}), file=file)

computed = 0
original = DPOTrainer.compute_ref_log_probs


def counted(self, *arguments):
    global computed
    computed += 1
    return original(self, *arguments)


DPOTrainer.compute_ref_log_probs = counted


def first_losses(cache, *settings):
    """The first loss of runs that share a cache of data sets; each run reads data, model and tokeniser anew."""
    for setting in settings:
        trainer = DPOTrainer(
            model=LlamaForCausalLM.from_pretrained(f"{work}/model"),
            args=DPOConfig(output_dir=f"{work}/out", report_to=[], use_cpu=True, bf16=False, max_steps=1, logging_steps=1,
                           per_device_train_batch_size=16, disable_tqdm=True, save_strategy="no",
                           precompute_ref_log_probs=True, **setting),
            train_dataset=datasets.load_dataset(
                "json", data_files=f"{work}/pairs.jsonl", split="train", cache_dir=f"{work}/{cache}"
            ),
            processing_class=AutoTokenizer.from_pretrained(f"{work}/model"),
        )
        with contextlib.redirect_stdout(io.StringIO()):
            trainer.train()
        yield round(trainer.state.log_history[0]["loss"], 3)


def computations(cache, setting):
    global computed
    computed = 0
    list(first_losses(cache, {**setting, "seed": 1}, {**setting, "seed": 2}))
    return computed


alone = [next(first_losses(f"alone-{n}", setting)) for n, setting in enumerate((WHOLE, END, LENGTH_DESENSITISED))]
_, end, length_desensitised = first_losses("whole-first", WHOLE, END, LENGTH_DESENSITISED)
_, whole = first_losses("end-first", END, WHOLE)
times = computations("seeds-end", END), computations("seeds-start", START)
print(f"alone {alone}; after whole responses: cut {end}, ld_alpha {length_desensitised}; whole after cut: {whole}")
print(f"two seeds, the reference is computed: keep_end {times[0]}, keep_start {times[1]}")
assert alone == [0.693] * 3, "a first run does not start at ln 2 either"
assert end < 0.3 and length_desensitised < 0.3 and whole > 2, "the cut is part of the key now: this finding is out of date"
assert times == (1, 2), "the key of keep_start has changed"
PY
