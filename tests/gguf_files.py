"""Small GGUF files, written by gguf's own writer, and the transformers models that they hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_CORPUS = [
    "The capital of France is Paris, and 1 000 or 12345.678 people don't know it.  Two  spaces,\n\tand a tab.",
    "def f(x):\n    return x**2  # ok 3 33 333",
    "user assistant system question answer Добрый день 漢字かな",
] * 3  # fmt: skip


def byte_level_vocabulary(size: int = 400) -> tuple[list[str], list[str]]:
    """Tokens in the order of their ids, the marks first, and merges as GGUF has them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(MARKS), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    state = json.loads(tokenizer.to_str())["model"]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in state["merges"]]
    return sorted(state["vocab"], key=state["vocab"].get), merges


def model(**changes: Any) -> Any:
    """A Llama of 2 layers with random weights, in eval mode."""
    from transformers import LlamaConfig, LlamaForCausalLM

    words: dict[str, Any] = {
        "vocab_size": 400, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 256, "tie_word_embeddings": True, "rms_norm_eps": 1e-6,
    }  # fmt: skip
    torch.manual_seed(0)
    made = LlamaForCausalLM(LlamaConfig(**(words | changes))).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2 + (parameter.dim() == 1))
    return made


_NAMES = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip


def write(
    path: Path, llama: Any, *, kind: str = "F32", fields: dict[str, Any] | None = None, without: str = "",
    tensors: dict[str, np.ndarray] | None = None,
) -> Path:  # fmt: skip
    """`llama` as a GGUF file with matrices in the format `kind`; `fields` over the file's own (None leaves one out) and
    further `tensors`; those whose name holds `without` are left out."""
    changes = dict(fields or {})
    writer = gguf.GGUFWriter(path, changes.pop("general.architecture", "llama"))
    file_type = {"general.file_type": gguf.LlamaFileType[_FILE_TYPE[kind]].value}
    for key, value in (_fields(llama.config) | file_type | changes).items():
        if value is not None:
            _add(writer, key, value)
    for name, values in (tensors or {}).items():
        writer.add_tensor(name, values)
    for name, parameter in llama.named_parameters():
        gguf_name = _gguf_name(name)
        if without and without in gguf_name:
            continue
        values = _permuted(parameter.detach(), gguf_name, llama.config).numpy()
        quantized = gguf.GGMLQuantizationType[kind] if values.ndim == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(gguf_name, gguf.quantize(np.ascontiguousarray(values), quantized), raw_dtype=quantized)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


_FILE_TYPE = {"F32": "ALL_F32", "F16": "MOSTLY_F16", "Q8_0": "MOSTLY_Q8_0", "Q4_1": "MOSTLY_Q4_1"}


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def _fields(config: Any) -> dict[str, Any]:
    tokens, merges = byte_level_vocabulary(config.vocab_size)
    return {
        "general.name": "Tiny", "llama.block_count": config.num_hidden_layers,
        "llama.context_length": config.max_position_embeddings, "llama.embedding_length": config.hidden_size,
        "llama.feed_forward_length": config.intermediate_size, "llama.attention.head_count": config.num_attention_heads,
        "llama.attention.head_count_kv": config.num_key_value_heads, "llama.rope.freq_base": 10_000.0,
        "llama.attention.layer_norm_rms_epsilon": config.rms_norm_eps, "llama.vocab_size": config.vocab_size,
        "llama.rope.dimension_count": config.hidden_size // config.num_attention_heads,
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "smollm", "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if token in MARKS else 1 for token in tokens], "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.padding_token_id": 2, "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": TEMPLATE,
    }  # fmt: skip


def _gguf_name(name: str) -> str:
    if name.startswith("model.layers."):
        layer, module = name.removeprefix("model.layers.").removesuffix(".weight").split(".", 1)
        return f"blk.{layer}.{_NAMES[module]}.weight"
    return {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}.get(
        name, "output.weight"
    )


def _permuted(weight: torch.Tensor, name: str, config: Any) -> torch.Tensor:
    """llama.cpp keeps the two rows that rotate together side by side."""
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(name.split(".")[-2])
    if heads is None:
        return weight
    rows = weight.shape[0] // heads
    return torch.stack(
        [
            weight[head * rows + half * rows // 2 + row]
            for head in range(heads)
            for row in range(rows // 2)
            for half in (0, 1)
        ]
    )
