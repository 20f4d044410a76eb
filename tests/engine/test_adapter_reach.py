"""What an adapter reaches, on models without weights whose matrices are counted by hand."""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest
import torch

from trimtab.engine.adapter_reach import AdapterReach
from trimtab.engine.memory import Shape
from trimtab.engine.trainable import attach_lora

COMMON = {
    "vocab_size": 64, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "tie_word_embeddings": True,
}  # fmt: skip
# q and o 16 × 16, k and v 8 × 16 (head_dim is 8 in all of them)
ATTENTION = 2 * 16 * 16 + 2 * 8 * 16
NORMS = 2 * 16
OUTSIDE = 64 * 16 + 16  # the embedding, which is the head too, and the last norm


def adapted(kind: str, **settings: Any) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    targets = settings.pop("targets", "all-linear")
    config = AutoConfig.for_model(kind, **(COMMON | settings))
    with torch.device("meta"):
        return attach_lora(AutoModelForCausalLM.from_config(config), rank=2, alpha=4.0, targets=targets)


def test_experts_and_router_that_peft_knows_are_reached() -> None:
    """qwen3_moe: four experts of width 6, their two matrices each in one parameter, and a router."""
    model = adapted("qwen3_moe", num_experts=4, num_experts_per_tok=2, moe_intermediate_size=6, head_dim=8)
    reach = AdapterReach.of(model)
    assert reach is not None
    experts = 4 * (2 * 6 * 16 + 16 * 6)
    router = 4 * 16
    in_layers = 2 * (ATTENTION + experts + router)
    assert set(reach.reached) == {
        "q_proj", "k_proj", "v_proj", "o_proj", "experts.gate_up_proj", "experts.down_proj", "gate",
    }  # fmt: skip
    assert reach.not_reached == ("embed_tokens",)
    assert reach.weights_reached == in_layers
    assert reach.weights == in_layers + 2 * (NORMS + 2 * 8) + OUTSIDE  # q and k have norms of 8


def test_experts_and_router_that_peft_leaves_out_are_named() -> None:
    """granitemoe: `all-linear` finds the attention alone, and most of the weights are elsewhere."""
    model = adapted("granitemoe", num_local_experts=4, num_experts_per_tok=2)
    reach = AdapterReach.of(model)
    assert reach is not None
    experts = 4 * (2 * 24 * 16 + 16 * 24)
    router = 4 * 16
    assert set(reach.reached) == {"q_proj", "k_proj", "v_proj", "o_proj"}
    assert set(reach.not_reached) == {"embed_tokens", "experts.gate_up_proj", "experts.down_proj", "router"}
    assert reach.weights_reached == 2 * ATTENTION
    assert reach.weights == 2 * (ATTENTION + experts + router + NORMS) + OUTSIDE
    assert f"reaches {2 * ATTENTION / reach.weights:.1%} of the weights" in reach.sentence
    assert "experts.down_proj" in reach.sentence.split("; not ")[1]


def test_targets_that_were_named_leave_the_rest() -> None:
    reach = AdapterReach.of(adapted("qwen2", targets=["q_proj", "v_proj"]))
    assert reach is not None
    assert reach.reached == ("q_proj", "v_proj")
    assert reach.not_reached == ("embed_tokens", "k_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    assert reach.weights_reached == 2 * (16 * 16 + 8 * 16)


def test_a_plain_model_has_none_and_a_shape_has_its_own() -> None:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    model = adapted("qwen2")
    assert Shape.of(model).reach == AdapterReach.of(model)
    with torch.device("meta"):
        plain = Qwen2ForCausalLM(Qwen2Config(**COMMON))
    assert AdapterReach.of(plain) is None
    assert Shape.of(plain).adapter is False


def test_json_comes_back() -> None:
    reach = AdapterReach.of(adapted("qwen2"))
    assert reach is not None
    assert AdapterReach.from_json(json.loads(json.dumps(reach.to_json()))) == reach


@pytest.mark.parametrize("kind", ["qwen2", "qwen3_moe"])
def test_nothing_of_peft_or_transformers_is_said_on_the_way(kind: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adapted(kind)


def test_matrices_adapted_in_some_layers_alone_are_not_said_to_be_left_out() -> None:
    model = adapted("qwen2", targets=r".*layers\.1\..*(q_proj|up_proj)")
    reach = AdapterReach.of(model)
    assert reach is not None
    in_layer = 16 * 16 + 24 * 16
    assert reach.weights_reached == in_layer
    others = ", ".join(kind for kind in reach.not_reached if kind not in ("q_proj", "up_proj"))
    assert reach.sentence.endswith(f"of the weights, in q_proj, up_proj of some layers; not {others}")
    assert reach.sentence.count("up_proj") == 1
