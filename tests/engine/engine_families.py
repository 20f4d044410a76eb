"""Tiny models of many families, with random weights large enough for every layer to matter, and groups for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import transformers

from trimtab.engine.packing import Group
from trimtab.records import TokenPair

VOCABULARY = 97
WINDOW = 12

_COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
_GPT = {
    "vocab_size": VOCABULARY,
    "n_embd": 32,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 256,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
_MQA = {name: value for name, value in _COMMON.items() if name != "num_key_value_heads"}

# family -> (config class, settings)
PACKED: dict[str, tuple[str, dict[str, Any]]] = {
    "Qwen2": ("Qwen2Config", _COMMON | {"tie_word_embeddings": True}),
    "Qwen3": ("Qwen3Config", _COMMON | {"head_dim": 8}),
    "Llama": ("LlamaConfig", _COMMON),
    "Mistral": ("MistralConfig", _COMMON | {"sliding_window": WINDOW}),
    "Gemma-2": (
        "Gemma2Config",
        _COMMON
        | {
            "head_dim": 8,
            "sliding_window": WINDOW,
            "attn_logit_softcapping": 2.0,  # tight enough that leaving one out shows
            "final_logit_softcapping": 3.0,
        },
    ),
    "Gemma-3": ("Gemma3TextConfig", _COMMON | {"head_dim": 8, "sliding_window": WINDOW, "num_hidden_layers": 6}),
    "Phi-3": ("Phi3Config", _COMMON | {"sliding_window": WINDOW}),
    "SmolLM3": ("SmolLM3Config", _COMMON),
    "GPT-NeoX": ("GPTNeoXConfig", _MQA),
    "OLMo-2": ("Olmo2Config", _COMMON),
    "GPT-2": ("GPT2Config", _GPT),
    "Granite": ("GraniteConfig", _COMMON | {"logits_scaling": 3.0, "attention_multiplier": 0.2}),
    "Cohere": ("CohereConfig", _COMMON | {"logit_scale": 0.25}),
    "gpt-oss": (
        "GptOssConfig",
        _COMMON
        | {
            "head_dim": 8,
            "sliding_window": WINDOW,
            "num_local_experts": 2,
            "num_experts_per_tok": 1,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        },
    ),
}

NOT_PACKED: dict[str, tuple[str, dict[str, Any]]] = {
    "GPT-Neo": (
        "GPTNeoConfig",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1]],
            "window_size": WINDOW,
            "max_position_embeddings": 256,
            "bos_token_id": 0,
            "eos_token_id": 1,
        },
    ),
    "LFM2": ("Lfm2Config", _COMMON | {"layer_types": ["conv", "full_attention", "conv"]}),
}


def build(
    family: str, *, dtype: torch.dtype = torch.float32, spread: float = 0.15, seed: int = 0, **changes: Any
) -> Any:
    """A model in eval mode. `spread`: standard deviation of its matrices; biases, norms and sinks are moved as well.

    `changes`: keys of its configuration.
    """
    config_name, settings = (PACKED | NOT_PACKED)[family]
    model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, config_name)(**settings | changes))
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, spread)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.to(dtype).eval()


def tokens(rng: np.random.Generator, length: int) -> tuple[int, ...]:
    return tuple(rng.integers(3, VOCABULARY, length).tolist())


def groups(shapes: Sequence[tuple[int, Sequence[int]]], *, seed: int = 0) -> list[Group]:
    """Groups of (prompt length, response lengths), keys counted through."""
    rng, out, key = np.random.default_rng(seed), [], 0
    for prompt, lengths in shapes:
        keys = tuple(range(key, key + len(lengths)))
        out.append(Group(tokens(rng, prompt), tuple(tokens(rng, n) for n in lengths), keys))
        key += len(lengths)
    return out


MIXED = ((30, (14, 21)), (1, (5, 1)), (70, (33, 47)), (9, (17,)), (40, (20, 8, 26)), (28, (90, 2)))
"""Groups short and long, with one, two and three responses; most sequences are longer than the window."""


def shared_pairs(*, seed: int = 0) -> list[TokenPair]:
    """Pairs with much in common: six of four completions, two of which begin alike; a conversation that goes on behind
    one of them; two prompts that begin alike; a pair that comes twice; and one that shares nothing with any other."""
    rng = np.random.default_rng(seed)
    system, prompt, opening = tokens(rng, 24), tokens(rng, 9), tokens(rng, 5)
    a, b, c, d = (*opening, *tokens(rng, 30)), (*opening, *tokens(rng, 14)), tokens(rng, 8), tokens(rng, 50)
    first = (*system, *prompt)
    later = (*first, *a, *tokens(rng, 6))
    rows = [
        *((first, *both) for both in ((a, b), (c, a), (a, d), (b, c), (d, b), (c, d))),
        (later, c, tokens(rng, 12)),
        ((*system, *tokens(rng, 11)), tokens(rng, 7), b),
        (tokens(rng, 20), tokens(rng, 4), tokens(rng, 40)),
        (first, c, a),
    ]
    return [TokenPair(f"shared.jsonl:{i + 1}", *row) for i, row in enumerate(rows)]


def pairs(n: int, *, seed: int = 0, prompt: int = 18, response: int = 14) -> list[TokenPair]:
    rng = np.random.default_rng(seed)
    return [
        TokenPair(
            f"pairs.jsonl:{i + 1}",
            tokens(rng, int(rng.integers(2, prompt + 1))),
            tokens(rng, int(rng.integers(1, response + 1))),
            tokens(rng, int(rng.integers(1, response + 1))),
        )
        for i in range(n)
    ]


def distinct_tokens(batch: Sequence[TokenPair], keys: Sequence[int] | None = None) -> int:
    """Distinct beginnings of each prompt's sequences (those of `keys`), from the definition: what has to be computed
    where no two prompts begin alike."""
    sequences = [
        (pair.prompt_ids, pair.prompt_ids + ids)
        for p, pair in enumerate(batch)
        for side, ids in enumerate((pair.chosen_ids, pair.rejected_ids))
        if keys is None or 2 * p + side in keys
    ]
    return len({(prompt, ids[:n]) for prompt, ids in sequences for n in range(1, len(ids) + 1)})


def alone_logps(model: Any, group_list: Sequence[Group]) -> list[torch.Tensor]:
    """Per-token log-probabilities of every response by the model's plain forward, one sequence at a time."""
    out = []
    for group in group_list:
        for response in group.responses:
            ids = torch.tensor([group.prompt_ids + response])
            logps = model(input_ids=ids, use_cache=False).logits[0].float().log_softmax(-1)
            n = len(group.prompt_ids)
            out.append(logps[n - 1 : -1].gather(1, ids[0, n:, None])[:, 0])
    return out


def gradients(model: Any) -> dict[str, torch.Tensor]:
    """Copies of all gradients; the model's are cleared."""
    grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return grads


def gradient_gap(ours: dict[str, torch.Tensor], truth: dict[str, torch.Tensor]) -> float:
    """Largest difference of one parameter's gradient, relative to the norm of the whole gradient."""
    assert ours.keys() == truth.keys()
    total = torch.stack([g.double().norm() for g in truth.values()]).norm()
    assert total > 0
    return max(float((ours[name].double() - truth[name].double()).norm() / total) for name in truth)
