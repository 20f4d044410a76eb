#!/usr/bin/env bash
# Half of the chat templates strip a response: what is trained on is not what was sampled, and pairs become equal.
#
# Guess:     apply_chat_template puts a message's text into the conversation as it is, so the tokens of prompt and response
#            that were sampled are those of the conversation that is trained on later, and continue_final_message goes on
#            exactly behind the text it is given.
# Versions:  transformers 5.23.0, the templates of families that trl 1.16.0 ships.
# Behaviour: templates of Llama 3, Gemma 3, GLM 4, Cohere and Qwen 3.8 trim an assistant's text at both ends; those of
#            Qwen 2.5, Phi 3, LFM 2 and Qwen 3 Instruct leave it alone. A preference for "Yes" over "\n Yes \n\n" is two
#            equal sequences in the first kind, with a gradient of zero, and a sampled "\n" before the end of turn is never
#            trained on. With continue_final_message transformers tolerates the trimming: the space behind "Score: "
#            is dropped, and the model goes on behind a colon. Nothing is said.
# Seen:      equal and "Score:" in 5 of 9 templates, different and "Score: " in 4.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.23.0 Jinja2==3.1.6
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps trl==1.16.0
HF_HUB_OFFLINE=1 "$work/venv/bin/python" - 2> "$work/stderr" <<'PY' || { tail -5 "$work/stderr"; exit 1; }
import importlib.util
from pathlib import Path

from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

TRIMMED = ("llama3", "gemma3", "glm4moe", "cohere", "qwen3_8")
WHOLE = ("qwen2_5", "phi3", "lfm2", "qwen3_instruct_2507")
folder = Path(importlib.util.find_spec("trl").origin).parent / "chat_templates"


def behaviour(family):
    """Whether two responses are one text, and whether a prefix keeps the space at its end."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = (folder / f"{family}.jinja").read_text(encoding="utf-8")

    def text(response, **options):
        messages = [{"role": "user", "content": "Is it?"}, {"role": "assistant", "content": response}]
        return tokenizer.apply_chat_template(messages, tokenize=False, **options)

    prefix = text("Score: ", continue_final_message=True)
    assert prefix.rstrip().endswith("Score:")
    return text("Yes") == text("\n Yes \n\n"), prefix.endswith("Score: ")


for family in TRIMMED + WHOLE:
    is_equal, has_space = behaviour(family)
    print(f"{family}: the pair is {'equal' if is_equal else 'different'}, the space is {'kept' if has_space else 'dropped'}")
    assert (is_equal, has_space) == ((True, False) if family in TRIMMED else (False, True)), "this finding is out of date"
PY
