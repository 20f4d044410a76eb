"""The short pass for Llama's kind of model: the model's own numbers, and a step aside where it does not fit."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from trimtab.sampling import lay_for_decoding, sample
from trimtab.sampling.layout import joint_weight
from trimtab.sampling.llama_pass import llama_pass

Build = Callable[..., Any]
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {}),
    "biases": ("LlamaConfig", {"attention_bias": True}),
    "as many keys as queries": ("LlamaConfig", {"num_key_value_heads": 4}),
    "rotary angles of its own": (
        "LlamaConfig",
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 10_000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            }
        },
    ),
    "qwen2": ("Qwen2Config", {}),
    "qwen3": ("Qwen3Config", {"head_dim": 16}),
    "mistral": ("MistralConfig", {"sliding_window": None}),
}


def built(kind: str, **settings: Any) -> Any:
    import transformers

    common = {
        "vocab_size": 97,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
    }
    torch.manual_seed(0)
    config = getattr(transformers, kind)(**common | settings)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.mul_(8)
            else:  # norms of one and biases of zero would hide where they go
                weight.add_(0.2 * torch.randn(weight.shape))
            assert weight.std() > 0, name
    return model


@pytest.mark.parametrize("kind", list(KINDS))
def test_answers_are_those_of_the_models_own_pass(kind: str) -> None:
    """Rows of every length, joins and crops; before its weights are laid out, a model decodes by its own forward."""
    draw = random.Random(5)  # noqa: S311 - test data
    prompts = [[draw.randrange(5, 97) for _ in range(draw.randrange(1, 30))] for _ in range(20)]
    settings: dict[str, Any] = {"stop_ids": {2, 3}, "max_new_tokens": 20, "seed": 4, "batch_tokens": 300}
    name, options = KINDS[kind]
    model = built(name, **options)
    with torch.no_grad():
        assert llama_pass(model) is None
        own = [sample(model, prompts, temperature=heat, **settings) for heat in (0, 0.9)]
        lay_for_decoding(model)
        assert llama_pass(model) is not None
        assert [sample(model, prompts, temperature=heat, **settings) for heat in (0, 0.9)] == own


@torch.no_grad()
def test_columns_behind_a_beginning_see_it_and_what_is_before_them() -> None:
    """Prompts of one length have no padding to mask, yet the columns behind their common beginning are in an order."""
    model = built("LlamaConfig")
    prompts = [[*range(10, 22), 30 + number, 50, 60 - number, 70] for number in range(6)]
    own = sample(model, prompts, stop_ids=(), max_new_tokens=6, temperature=0)
    lay_for_decoding(model)
    assert llama_pass(model) is not None
    assert sample(model, prompts, stop_ids=(), max_new_tokens=6, temperature=0) == own
    alone = [sample(model, [prompt], stop_ids=(), max_new_tokens=6, temperature=0)[0] for prompt in prompts]
    assert alone == own


@torch.no_grad()
def test_what_does_not_fit_is_left_to_the_model() -> None:
    window = built("MistralConfig", sliding_window=8)
    other_family = built("Gemma2Config", head_dim=8)
    half = built("LlamaConfig").bfloat16()
    other_gate = built("LlamaConfig", hidden_act="gelu")
    hooked, exchanged, altered = (built("LlamaConfig") for _ in range(3))
    for model in (window, other_family, half, other_gate, hooked, exchanged, altered):
        lay_for_decoding(model)
    assert llama_pass(hooked) is not None
    hooked.model.layers[1].mlp.register_forward_hook(lambda *_: None)
    exchanged.model.layers[2].mlp.down_proj = nn.Sequential(exchanged.model.layers[2].mlp.down_proj)
    altered.model.layers[0].self_attn.scaling *= 2  # read by the first layer alone: the numbers give it away
    altered.model.layers[1].self_attn.scaling *= 3
    for model in (window, other_family, half, other_gate, hooked, exchanged, altered):
        assert llama_pass(model) is None, type(model).__name__


@torch.no_grad()
def test_an_adapter_is_never_left_out() -> None:
    from peft import LoraConfig, get_peft_model

    model = built("Qwen2Config")
    lay_for_decoding(model)
    adapted = get_peft_model(model, LoraConfig(r=2, init_lora_weights=False, target_modules=["v_proj"]))
    assert llama_pass(adapted) is None
    assert llama_pass(adapted.get_base_model()) is None


def test_layers_that_read_the_same_numbers_lie_side_by_side() -> None:
    model = built("LlamaConfig")
    attention, mlp = model.model.layers[0].self_attn, model.model.layers[0].mlp
    projections = [attention.q_proj, attention.k_proj, attention.v_proj]
    expected = torch.cat([projection.weight.detach().clone() for projection in projections])
    assert joint_weight(projections) is None
    lay_for_decoding(model)
    joint = joint_weight(projections)
    assert joint is not None
    assert torch.equal(joint, expected)
    assert joint.data_ptr() == attention.q_proj.weight.data_ptr()
    assert joint_weight([attention.k_proj, attention.q_proj, attention.v_proj]) is None
    assert joint_weight([attention.q_proj, attention.k_proj]) is None
    assert joint_weight([mlp.gate_proj, attention.v_proj]) is None
