"""Chat templates for base models that bring none: `model.template`, saved with the aligned model.

    chatml        <|im_start|>user … <|im_end|>     of tokenizers that have these two tokens (Qwen's and SmolLM2's do)
    plain         User: … / Assistant: …            ends an answer with the end-of-text token; no new token is learned
    instruction   ### Instruction: / ### Response:  likewise

What the tokenizer itself puts first (a BOS) stands first here, too.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal

from trimtab.data.tokenizer_identity import first_ids
from trimtab.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TemplateName = Literal["chatml", "plain", "instruction"]
_CHATML_TOKENS = ("<|im_start|>", "<|im_end|>")
_CHATML = (
    "{%- for message in messages -%}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)


def _with_names(user: str, assistant: str, *, gap: str) -> str:
    """Turns under two names, parted by blank lines; a system message stands without one."""
    return (
        "{%- for message in messages -%}"
        "{%- if message['role'] == 'assistant' -%}"
        f"{{{{ '{assistant}{gap}' + message['content'] + eos_token + '\\n\\n' }}}}"
        "{%- elif message['role'] == 'user' -%}"
        f"{{{{ '{user}{gap}' + message['content'] + '\\n\\n' }}}}"
        "{%- elif message['role'] == 'system' -%}"
        "{{ message['content'] + '\\n\\n' }}"
        "{%- else -%}{{ raise_exception('this template knows no ' + message['role']) }}{%- endif -%}"
        "{%- endfor -%}"
        f"{{%- if add_generation_prompt -%}}{{{{ '{assistant}{gap.rstrip(' ')}' }}}}{{%- endif -%}}"
    )


_TEXTS: dict[TemplateName, str] = {
    "chatml": _CHATML,
    "plain": _with_names("User:", "Assistant:", gap=" "),
    "instruction": _with_names("### Instruction:", "### Response:", gap="\\n"),
}


def builtin_template(name: TemplateName, tokenizer: PreTrainedTokenizerBase, *, model: str) -> str:
    """The template's text for this tokenizer. Raises ConfigError where it has a template already, or lacks a token."""
    if tokenizer.chat_template is not None:
        raise ConfigError(f"{model} has a chat template of its own", remedy="leave model.template out")
    needs = _CHATML_TOKENS if name == "chatml" else (str(tokenizer.eos_token),)
    vocabulary = tokenizer.get_vocab()
    if absent := [token for token in needs if token not in vocabulary]:
        raise ConfigError(
            f"model.template {name} needs the token {absent[0]}, which the tokenizer of {model} does not have",
            remedy="write --template plain" if name == "chatml" else "take a model whose tokenizer ends texts",
        )
    first = tokenizer.decode(first_ids(tokenizer), skip_special_tokens=False)
    return (f"{{{{ {json.dumps(first)} }}}}" if first else "") + _TEXTS[name]
