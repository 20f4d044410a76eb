#!/usr/bin/env bash
# TRL's KTO, given preference pairs, trains on chosen answers alone and then on rejected answers alone.
#
# Guess:     KTOTrainer, which is documented to take pairs and to separate them by itself, mixes what it has separated: a
#            batch holds desirable and undesirable answers, as in any data set of KTO's own kind.
# Versions:  trl 1.16.0, transformers 5.23.0, datasets 5.2.0, accelerate 1.15.0, torch 2.13.0 (CPU).
# Behaviour: the pairs are separated a thousand at a time, the chosen of them first and the rejected behind, and nothing
#            shuffles them: KTO's divergence term wants neighbours, so its sampling is "sequential" by default, and
#            "random" is refused. Up to 1000 pairs an epoch is two halves of one kind each, every epoch alike, and the mixed
#            answers that the divergence is estimated from are of the batch's kind as well. No warning. A log entry
#            of one kind has no rewards/margins, the metric that the documentation says to watch.
# Seen:      64 pairs in batches of 8, share of desirable answers by batch: 1 in eight batches, then 0 in eight; no entry
#            with rewards/margins in the log. The same answers shuffled: 0.25 to 0.75, and 16 entries. Labels of 1500 pairs
#            come in runs of 1000, 1000, 500 and 500.
# The way out: unpair_preference_dataset(pairs).shuffle(seed) before the trainer sees it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$work/venv/bin/pip" install --quiet --disable-pip-version-check trl==1.16.0 transformers==5.23.0 datasets==5.2.0 accelerate==1.15.0
OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 "$work/venv/bin/python" - "$work" 2> "$work/stderr" <<'PY' || { tail -5 "$work/stderr"; exit 1; }
import contextlib
import io
import itertools
import random
import sys

from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, set_seed
from trl import KTOConfig, KTOTrainer
from trl.data_utils import unpair_preference_dataset

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


def pairs(count):
    return Dataset.from_list([{"prompt": text(4) + " ", "chosen": text(8), "rejected": text(8)} for _ in range(count)])


class Watched(KTOTrainer):
    def compute_loss(self, model, inputs, **options):
        self.shares.append(sum(map(bool, inputs["label"])) / len(inputs["label"]))
        return super().compute_loss(model, inputs, **options)


def trainer_of(data, **options):
    return Watched(
        model=LlamaForCausalLM.from_pretrained(f"{work}/model"),
        args=KTOConfig(output_dir=f"{work}/out", report_to=[], use_cpu=True, bf16=False, num_train_epochs=1, logging_steps=1,
                       per_device_train_batch_size=8, disable_tqdm=True, save_strategy="no", **options),
        train_dataset=data, processing_class=tokenizer,
    )


def epoch(data):
    """The share of desirable answers in each batch, and how many entries of the log have a margin."""
    trainer = trainer_of(data)
    trainer.shares = []
    with contextlib.redirect_stdout(io.StringIO()):
        trainer.train()
    return trainer.shares, sum("rewards/margins" in entry for entry in trainer.state.log_history)


data = pairs(64)
shares, margins = epoch(data)
mixed, mixed_margins = epoch(unpair_preference_dataset(data).shuffle(seed=0))
runs = [len(list(run)) for _, run in itertools.groupby(unpair_preference_dataset(pairs(1500))["label"])]
try:
    trainer_of(data, train_sampling_strategy="random")
    refused = False
except ValueError:
    refused = True
print(f"pairs: shares {shares}, entries with margins {margins}; random refused: {refused}")
print(f"shuffled: shares {mixed}, entries with margins {mixed_margins}; 1500 pairs: runs of labels {runs}")
assert 0 < min(mixed) and max(mixed) < 1 and mixed_margins == 16, "shuffled answers are not mixed either"
assert refused and runs == [1000, 1000, 500, 500], "the order of unpaired answers has changed"
assert shares == [1.0] * 8 + [0.0] * 8 and margins == 0, "pairs are mixed now: this finding is out of date"
PY
