"""Small models with random weights whose greedy answers wander (weights larger than at initialisation)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

VOCABULARY = 97
_LLAMA_LIKE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
# family -> configuration class of transformers and its settings
_FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2": ("Qwen2Config", _LLAMA_LIKE),
    "llama": ("LlamaConfig", _LLAMA_LIKE),
    "gemma2": ("Gemma2Config", {**_LLAMA_LIKE, "head_dim": 8, "sliding_window": 8}),
    "gemma3": (
        "Gemma3TextConfig",
        {
            **_LLAMA_LIKE,
            "head_dim": 8,
            "sliding_window": 8,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
    ),
    "lfm2": ("Lfm2Config", {**_LLAMA_LIKE, "layer_types": ["conv", "full_attention", "conv"]}),
    "gpt2": (
        "GPT2Config",
        {
            "vocab_size": VOCABULARY,
            "n_embd": 32,
            "n_layer": 3,
            "n_head": 4,
            "n_positions": 48,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
    ),
    "gpt_neo": (
        "GPTNeoConfig",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 8,
            "max_position_embeddings": 48,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
    ),
}


@pytest.fixture
def small_model() -> Callable[[str], Any]:
    def build(family: str) -> Any:
        import transformers

        kind, settings = _FAMILIES[family]
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, kind)(**settings)).eval()
        with torch.no_grad():
            for weight in model.parameters():
                if weight.ndim > 1:
                    weight.mul_(8)
        return model

    return build
