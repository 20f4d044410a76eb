#!/usr/bin/env bash
# lm-eval's use_cache gives one model's answers for another: its key holds the request and not the model.
#
# Guess:     `use_cache=PATH` keeps what a model has answered, so that before and after a fine-tuning may share a path.
# Versions:  lm_eval 0.4.13, transformers 5.23.0, torch 2.13.0 (CPU).
# Behaviour: the key of a kept answer is a hash of the kind of request and its text. The second model is loaded, asked
#            nothing, and scored by the first one's log-probabilities; nothing is said but that the cache was found.
#            Where a fine-tuning is compared with its base the difference is exactly 0, which looks like "no harm done".
# Seen:      two random models on 20 multiple-choice questions: without a cache their log-probabilities differ in all
#            60 choices; with one path for both they are equal in all 60.
# The way out: a path a model (and a precision), or a cache of one's own whose key holds the digest of the weights.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$work/venv/bin/pip" install --quiet --disable-pip-version-check "lm_eval[hf]==0.4.13" transformers==5.23.0
cd "$work"
mkdir task
for n in $(seq 20); do
    printf '{"q": "word%d word%d", "choices": ["word1", "word2 word3", "word4"], "gold": %d}\n' "$n" "$((n + 7))" "$((n % 3))"
done > task/rows.jsonl
cat > task/tiny.yaml <<'YAML'
task: tiny
dataset_path: json
dataset_kwargs: {data_files: {test: task/rows.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{q}}"
doc_to_choice: "{{choices}}"
doc_to_target: gold
YAML
OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 HF_HOME="$work/hub" venv/bin/python - 2> stderr <<'PY' || { tail -5 stderr; exit 1; }
import torch
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

words = ["<end>", *(f"word{n}" for n in range(40))]
backend = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="<end>"))
backend.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>", pad_token="<end>", unk_token="<end>")


def log_probs(seed, cache):
    torch.manual_seed(seed)
    config = LlamaConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, vocab_size=len(words))
    model = HFLM(pretrained=LlamaForCausalLM(config).eval(), tokenizer=tokenizer, batch_size=4)
    told = simple_evaluate(model, tasks=["tiny"], task_manager=TaskManager(include_path="task"), use_cache=cache, bootstrap_iters=0)
    return [float(answer[0]) for row in told["samples"]["tiny"] for answer in row["filtered_resps"]]


def equal(cache):
    first, second = log_probs(0, cache), log_probs(1, cache)
    return sum(a == b for a, b in zip(first, second, strict=True)), len(first)


without, with_cache = equal(None), equal("cache")
print(f"log-probabilities of two models that are equal: {without[0]} of {without[1]}; with one use_cache {with_cache[0]} of {with_cache[1]}")
assert without == (0, 60), "the two models are not two"
assert with_cache == (60, 60), "the key tells models apart now: this finding is out of date"
PY
