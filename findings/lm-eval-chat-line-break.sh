#!/usr/bin/env bash
# lm-eval scores the chat template's own line break as part of every answer: acc_norm then ranks choices otherwise.
#
# Guess:     with apply_chat_template=True the context is what the template writes, up to the line break behind the
#            assistant's mark, and a choice's log-probability is that of its own tokens behind it.
# Versions:  lm_eval 0.4.13, transformers 5.23.0, torch 2.13.0 (CPU).
# Behaviour: white space at a context's end is moved to the continuation before both are encoded, which keeps words
#            whole in "Answer: " + "Paris". A ChatML context ends in the template's line break, so that token leaves the
#            context, and its log-probability, the same for all choices of a question, is added to each. acc and the
#            order of log-probabilities stay; acc_norm divides by each choice's own length and so can pick another
#            choice; is_greedy is false wherever the model would not have written the line break itself. Nothing is said.
# Seen:      a random model, 60 questions with choices of one to four words: all 180 log-probabilities lie below those of
#            the choices' tokens by that of the line break, 2.96 to 5.20 nats; acc_norm picks another choice in 28 of
#            the 60 questions.
# The way out: compare models by acc, or a template whose generation prompt does not end in white space; a model that
#            has learnt the template gives the line break nearly no surprise, one that has not is asked about it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$work/venv/bin/pip" install --quiet --disable-pip-version-check "lm_eval[hf]==0.4.13" transformers==5.23.0
cd "$work"
mkdir task
for n in $(seq 60); do
    printf '{"q": "word%d word%d", "choices": ["word%d", "word%d word%d", "word1 word%d word%d word7"], "gold": 0}\n' \
        "$((n % 40))" "$((n * 7 % 40))" "$((n * 3 % 40))" "$((n * 5 % 40))" "$((n * 11 % 40))" "$((n * 13 % 40))" "$((n % 9))"
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
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

pieces = ["<end>", "<user>", "<assistant>", "\n", " ", *(f"word{n}" for n in range(40))]
backend = Tokenizer(models.WordLevel({piece: n for n, piece in enumerate(pieces)}, unk_token="<end>"))
backend.pre_tokenizer = pre_tokenizers.Split(Regex("[\n ]"), "isolated")
tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=backend, eos_token="<end>", pad_token="<end>", unk_token="<end>",
    chat_template="{% for m in messages %}<{{ m.role }}>\n{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<assistant>\n{% endif %}",
)
torch.manual_seed(0)
shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": len(pieces)}
model = LlamaForCausalLM(LlamaConfig(**shape, initializer_range=0.3)).eval()
told = simple_evaluate(
    HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4), tasks=["tiny"], task_manager=TaskManager(include_path="task"),
    apply_chat_template=True, bootstrap_iters=0,
)


def log_prob(before, text):
    """Of the tokens of `text` behind those of `before`."""
    ids, start = tokenizer(before + text)["input_ids"], len(tokenizer(before)["input_ids"])
    with torch.no_grad():
        logps = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return sum(float(logps[at - 1, ids[at]]) for at in range(start, len(ids)))


def pick(scores, choices):
    return max(range(len(choices)), key=lambda n: scores[n] / len(choices[n]))


gaps, breaks, others = [], [], 0
for row in told["samples"]["tiny"]:
    contexts, choices = zip(*row["arguments"])
    assert contexts[0].endswith("<assistant>\n")
    theirs = [float(answer[0]) for answer in row["filtered_resps"]]
    truth = [log_prob(contexts[0], choice) for choice in choices]
    line_break = log_prob(contexts[0][:-1], "\n")
    breaks.append(line_break)
    gaps += [abs(a - b - line_break) for a, b in zip(theirs, truth)]
    assert row["acc_norm"] == (pick(theirs, choices) == 0), "acc_norm is another number than log-probability over length"
    others += pick(theirs, choices) != pick(truth, choices)
print(f"{len(gaps)} log-probabilities, each too low by that of the line break ({-max(breaks):.2f} to {-min(breaks):.2f} nats) "
      f"within {max(gaps):.0e}; acc_norm picks another choice in {others} of {len(breaks)} questions")
assert max(gaps) < 1e-3, "a choice is scored behind the whole context now: this finding is out of date"
assert others > 5
PY
