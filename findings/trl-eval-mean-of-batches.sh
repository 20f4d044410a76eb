#!/usr/bin/env bash
# The held-out accuracy that TRL reports depends on the batch size: a last batch of one pair counts as much as a full one.
#
# Guess:     eval_accuracy and eval_rewards/accuracies are shares of the held-out pairs, as eval_loss is their mean, and a
#            batch size for evaluation is a matter of memory.
# Versions:  trl 1.16.0, transformers 5.23.0, datasets 5.2.0, accelerate 1.15.0, torch 2.13.0 (CPU).
# Behaviour: the trainer of transformers weights a batch's loss by its rows. What TRL adds, accuracies, rewards, margins and
#            log-probabilities, are means of a batch, averaged over batches of whatever size. RewardTrainer and
#            DPOTrainer alike; no warning. metric_for_best_model, and a comparison of two runs with batches of
#            different size, take the number as it is.
# Seen:      17 pairs in such an order that one the model gets right is the last, by batches of 1, 17 and 16: RewardTrainer
#            0.412, 0.412, 0.688 (7 pairs are right), DPOTrainer 0.353, 0.353, 0.656 (6 are); eval_loss 0.7393 and 0.7194 in
#            all three.
# The way out: a number of held-out pairs that the batch size divides, or per_device_eval_batch_size=1.
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
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast, set_seed
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer

work, count = sys.argv[1], 17
vocabulary = {word: index for index, word in enumerate(["<pad>", "<eos>", "<unk>", *(f"w{n}" for n in range(60))])}
words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")
config = LlamaConfig(vocab_size=63, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                     bos_token_id=None, eos_token_id=1, pad_token_id=0, num_labels=1, initializer_range=0.1)
draw = random.Random(0)


def text(length):
    return " ".join(f"w{draw.randrange(60)}" for _ in range(length))


pairs = [{"prompt": text(4) + " ", "chosen": text(8), "rejected": text(8)} for _ in range(count)]


def of(kind, seed):
    set_seed(seed)
    return kind(config)


def evaluated(make, held_out, batch):
    options = {"output_dir": f"{work}/out", "report_to": [], "use_cpu": True, "bf16": False, "disable_tqdm": True,
               "per_device_eval_batch_size": batch}
    data = {"train_dataset": Dataset.from_list(pairs), "eval_dataset": Dataset.from_list(held_out), "processing_class": tokenizer}
    with contextlib.redirect_stdout(io.StringIO()):
        told = make(options, data).evaluate()
    accuracy = told.get("eval_accuracy", told.get("eval_rewards/accuracies"))
    return round(accuracy, 3), round(told["eval_loss"], 4)


def reward(options, data):
    return RewardTrainer(model=of(LlamaForSequenceClassification, 0), args=RewardConfig(**options), **data)


def dpo(options, data):
    return DPOTrainer(model=of(LlamaForCausalLM, 0), ref_model=of(LlamaForCausalLM, 1), args=DPOConfig(**options), **data)


for name, make in (("RewardTrainer", reward), ("DPOTrainer", dpo)):
    each = [evaluated(make, [pair], 1)[0] for pair in pairs]
    # the pairs that the model gets wrong first, one that it gets right last: the order of a file
    ordered = [pair for _, pair in sorted(zip(each, pairs), key=lambda row: row[0])]
    (single, single_loss), (full, full_loss), (last, last_loss) = (evaluated(make, ordered, n) for n in (1, count, count - 1))
    print(f"{name}: {sum(each):.0f} of {count} right; batches of 1, 17, 16: accuracy {single}, {full}, {last}; "
          f"loss {single_loss}, {full_loss}, {last_loss}")
    assert 0 < sum(each) < count and abs(single - sum(each) / count) < 1e-3 and abs(full - single) < 1e-3
    assert max(abs(single_loss - full_loss), abs(single_loss - last_loss)) < 1e-3, "the loss depends on the batch, too"
    assert last - full > 0.1, "pairs count alike now: this finding is out of date"
PY
