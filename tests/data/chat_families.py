"""Small tokenizers with the chat templates and control tokens of five published families.

Vocabulary and merges are written out by rule (every word below is one token, with and without its leading space), so
ids depend on nothing but this file. The templates are the families' own, without their branches for tools.
"""

from __future__ import annotations

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

WORDS = [
    "Hello", "world", "Who", "are", "you", "I", "am", "Bob", "Be", "brief", "Why", "Yes", "No",
    "system", "user", "assistant", "model", "INST", "Qwen",
]  # fmt: skip

QWEN25 = """{%- if messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
{%- else %}
    {{- '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant") %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

# Qwen3: reasoning is kept for the last answer only, and can be switched off in the prompt.
QWEN3 = """{%- for message in messages %}
    {%- if message.role == "assistant" %}
        {%- set content = message.content %}
        {%- set reasoning_content = '' %}
        {%- if '</think>' in content %}
            {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.last %}
            {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""  # noqa: E501 - a template's white space is its meaning

LLAMA3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + "
    "message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"
    "{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)

# The head of Llama 3.2's template: it prints today's date.
LLAMA32 = (
    "{{- bos_token }}\n{%- if not date_string is defined %}\n    {%- if strftime_now is defined %}\n"
    '        {%- set date_string = strftime_now("%d %b %Y") %}\n    {%- endif %}\n{%- endif %}\n'
    "{{- 'Today Date: ' + date_string + '\n\n' }}" + LLAMA3.replace("bos_token + content", "content")
)

GEMMA2 = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}"
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}"
    "{% endif %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
)

MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + eos_token}}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)

ZEPHYR = """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>
'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""

_QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def chatml(template: str = QWEN25, *, eos: str | None = "<|im_end|>") -> PreTrainedTokenizerFast:
    """Qwen: byte-level BPE, no BOS, every turn between `<|im_start|>` and `<|im_end|>`."""
    tokenizer = _byte_level(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.add_tokens([AddedToken("<think>", special=False), AddedToken("</think>", special=False)])
    return _fast(tokenizer, eos=eos, pad="<|endoftext|>", chat_template=template)


def llama3(template: str = LLAMA3) -> PreTrainedTokenizerFast:
    """Llama 3: byte-level BPE; the tokenizer puts a BOS first, and so does the template."""
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    tokenizer = _byte_level(special)
    _bos_first(tokenizer, special[0])
    return _fast(tokenizer, bos=special[0], eos="<|eot_id|>", chat_template=template)


def gemma2() -> PreTrainedTokenizerFast:
    """Gemma 2: SentencePiece-like BPE without a leading mark; `<end_of_turn>` is not the EOS."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    tokenizer = _sentencepiece(special, prepend=False)
    _bos_first(tokenizer, "<bos>")
    return _fast(tokenizer, bos="<bos>", eos="<eos>", unk="<unk>", chat_template=GEMMA2)


def mistral() -> PreTrainedTokenizerFast:
    """Mistral 7B and Llama 2: SentencePiece-like BPE with a space mark before every text; `[INST]` is plain text."""
    tokenizer = _sentencepiece(["<unk>", "<s>", "</s>"], prepend=True)
    _bos_first(tokenizer, "<s>")
    return _fast(tokenizer, bos="<s>", eos="</s>", unk="<unk>", chat_template=MISTRAL)


def zephyr() -> PreTrainedTokenizerFast:
    """Zephyr: role names are plain text, a turn ends with the EOS."""
    tokenizer = _byte_level(["<unk>", "<s>", "</s>"])
    return _fast(tokenizer, bos="<s>", eos="</s>", unk="<unk>", chat_template=ZEPHYR)


def bare(*, eos: str | None = "<|endoftext|>") -> PreTrainedTokenizerFast:
    """GPT-2: byte-level BPE without a chat template or a BOS of its own."""
    return _fast(_byte_level(["<|endoftext|>"]), eos=eos)


def _fast(tokenizer: Tokenizer, *, chat_template: str | None = None, **special: str | None) -> PreTrainedTokenizerFast:
    named = {f"{name}_token": token for name, token in special.items() if token is not None}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, chat_template=chat_template, **named
    )


def _byte_level(special: list[str]) -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["Ġ" + word for word in WORDS] + WORDS + ["ĊĊ"]
    tokenizer = Tokenizer(models.BPE(*_vocabulary(special, alphabet, words)))
    split = pre_tokenizers.Split(Regex(_QWEN_SPLIT), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    return tokenizer


def _sentencepiece(special: list[str], *, prepend: bool) -> Tokenizer:
    alphabet = [f"<0x{byte:02X}>" for byte in range(256)] + ["▁", *map(chr, range(33, 127))]
    words = ["▁" + word for word in WORDS] + WORDS
    vocabulary, merges = _vocabulary(special, alphabet, words)
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True))
    spaces = normalizers.Replace(" ", "▁")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces]) if prepend else spaces
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prepend else steps)
    tokenizer.add_special_tokens(special)
    return tokenizer


def _vocabulary(
    special: list[str], alphabet: list[str], words: list[str]
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Ids in the order special, alphabet, prefixes of words; each word is built from its left by merges."""
    pieces = [*special, *alphabet]
    merges: list[tuple[str, str]] = []
    for word in words:
        for end in range(2, len(word) + 1):
            merge = (word[: end - 1], word[end - 1])
            if merge not in merges:
                merges.append(merge)
                pieces.append(word[:end])
    return {piece: number for number, piece in enumerate(pieces)}, merges


def _bos_first(tokenizer: Tokenizer, bos: str) -> None:
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )
