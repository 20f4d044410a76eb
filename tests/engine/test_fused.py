"""Work between products, fused: against torch's own operations, against whole models, and what it keeps."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import silu
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.llama import modeling_llama

from trimtab.engine import fused, matmul, trainable
from trimtab.engine.fused import Fusion


@pytest.fixture(autouse=True)
def _some_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "BLOCK", 48 * 10)


def _leaves(*shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in shapes]


def _spelled_norm(x: Tensor, weight: Tensor, offset: float) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * (offset + weight)


def test_a_norm_by_hand() -> None:
    # x = (3, 4): mean square 12.5, with ε = 3.5 the root is 4; y = (3/4 · 2, 4/4 · 1)
    y = fused.rms_norm(torch.tensor([[3.0, 4.0]]), torch.tensor([2.0, 1.0]), 3.5)
    assert y.tolist() == [[1.5, 1.0]]


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_norms_equal_the_spelled_out_ones_with_slopes(offset: float) -> None:
    x, weight = _leaves((1, 37, 48), (48,))
    ours, truth = fused.rms_norm(x, weight, 1e-5, offset), _spelled_norm(x, weight, offset)
    torch.testing.assert_close(ours, truth)
    upstream = torch.randn_like(truth)
    for a, b in zip(*(torch.autograd.grad(y, (x, weight), upstream) for y in (ours, truth)), strict=True):
        torch.testing.assert_close(a, b)


def test_a_gate_equals_the_spelled_out_one_with_slopes() -> None:
    gate, up = _leaves((2, 19, 48), (2, 19, 48))
    ours, truth = fused.swiglu(gate, up), silu(gate) * up
    torch.testing.assert_close(ours, truth)
    upstream = torch.randn_like(truth)
    for a, b in zip(*(torch.autograd.grad(y, (gate, up), upstream) for y in (ours, truth)), strict=True):
        torch.testing.assert_close(a, b)


def test_rotations_equal_the_spelled_out_ones_with_slopes() -> None:
    query, key, angles = _leaves((1, 3, 9, 8), (1, 1, 9, 8), (1, 9, 8))
    cos, sin = angles.detach().cos(), angles.detach().sin()  # halves that differ, as no family has them
    ours, truth = fused._rotated(query, key, cos, sin), modeling_llama.apply_rotary_pos_emb(query, key, cos, sin)
    for a, b, leaf in zip(ours, truth, (query, key), strict=True):
        torch.testing.assert_close(a, b)
        upstream = torch.randn_like(b)
        slopes = [torch.autograd.grad(y, leaf, upstream)[0] for y in (a, b)]
        torch.testing.assert_close(*slopes)


@pytest.mark.parametrize("in_place", [True, False])
def test_an_adapter_is_added_with_slopes(in_place: bool) -> None:
    base, x, down, up = _leaves((1, 9, 12), (1, 9, 8), (3, 8), (12, 3))
    ours = fused.add_adapter(base * 1.0, x, down, up, 0.5, in_place=in_place)
    truth = base + 0.5 * (x @ down.T) @ up.T
    torch.testing.assert_close(ours, truth)
    upstream = torch.randn_like(truth)
    for a, b in zip(*(torch.autograd.grad(y, (base, x, down, up), upstream) for y in (ours, truth)), strict=True):
        torch.testing.assert_close(a, b)


# --- whole models ------------------------------------------------------------------------------------------------


def _model(family: str = "llama", *, lora: bool, layers: int = 2, **changes: Any) -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        family, vocab_size=99, hidden_size=32, intermediate_size=64, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=2, eos_token_id=1, bos_token_id=None, pad_token_id=2, **changes,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).eval()
    if lora:
        model = trainable.attach_lora(model, rank=4, alpha=8.0)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(parameter, std=0.1)
    return model


IDS = torch.arange(3, 24)[None]


def _gradients(model: Any, fusion: Fusion | None) -> tuple[float, dict[str, Tensor]]:
    """Of two passes, into `.grad` that is there already, as an optimizer leaves it."""
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    with ExitStack() as stack:
        if fusion is not None:
            stack.enter_context(matmul.faster_linears())
            stack.enter_context(fusion.active())
        for _ in range(2):
            loss = model(input_ids=IDS, labels=IDS).loss
            loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("lora", [False, True], ids=["full", "LoRA"])
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_a_model_gives_the_same_loss_and_gradients(family: str, lora: bool) -> None:
    model = _model(family, lora=lora)
    fusion = Fusion.of(model)
    kinds = {type(module).__name__.removeprefix("Llama").removeprefix("Qwen3") for module, _ in fusion.forwards}
    assert kinds == {"RMSNorm", "MLP", "Linear"}
    (ours, our_gradients), (truth, true_gradients) = _gradients(model, fusion), _gradients(model, None)
    assert ours == pytest.approx(truth, rel=1e-6)
    assert our_gradients.keys() == true_gradients.keys()
    for name, gradient in our_gradients.items():
        torch.testing.assert_close(gradient, true_gradients[name], atol=1e-6, rtol=1e-4)


def test_modules_are_left_as_they_were() -> None:
    model, rotate = _model(lora=True), modeling_llama.apply_rotary_pos_emb
    with Fusion.of(model).active():
        assert any("forward" in vars(module) for module in model.modules())
        assert modeling_llama.apply_rotary_pos_emb is not rotate
    assert not any("forward" in vars(module) for module in model.modules())
    assert modeling_llama.apply_rotary_pos_emb is rotate


@pytest.mark.parametrize("family", ["glm", "gpt_neox"])
def test_rotations_of_neighbours_or_of_a_part_stay_as_they_are(family: str) -> None:
    small = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    config = AutoConfig.for_model(family, num_attention_heads=2, pad_token_id=1, **small)
    model = AutoModelForCausalLM.from_config(config).eval()
    truth = model(input_ids=IDS).logits
    with Fusion.of(model).active():
        torch.testing.assert_close(model(input_ids=IDS).logits, truth)


def test_other_gates_and_norms_do_not_qualify() -> None:
    model = _model(lora=False, hidden_act="gelu")
    assert not any(hasattr(module, "gate_proj") for module, _ in Fusion.of(model).forwards)

    class OddRMSNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.eps = nn.Parameter(torch.ones(8)), 1e-6

        def forward(self, x: Tensor) -> Tensor:  # with weights of one, as fresh models have them, a plain norm
            return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight**2

    assert not Fusion.of(OddRMSNorm()).forwards


@pytest.mark.parametrize("spoil", ["disabled", "two adapters", "dropout"])
def test_other_adapters_compute_as_peft_has_them(spoil: str) -> None:
    model = _model(lora=True)
    fusion = Fusion.of(model)
    if spoil == "two adapters":
        model.add_adapter("other", model.peft_config["default"])
        model.base_model.set_adapter(["default", "other"])
    if spoil == "dropout":
        for module in model.modules():
            if hasattr(module, "lora_dropout"):
                module.lora_dropout["default"] = nn.Dropout(0.5).train()

    def logits() -> Tensor:
        torch.manual_seed(1)
        with torch.no_grad():
            if spoil == "disabled":
                with model.disable_adapter():
                    return model(input_ids=IDS).logits
            return model(input_ids=IDS).logits

    truth = logits()
    with fusion.active():
        torch.testing.assert_close(logits(), truth)


def _kept(model: Any, work: Callable[[], Any]) -> int:
    """Numbers that one pass keeps for its backward pass, parameters left out, each storage once."""
    sizes: dict[int, int] = {}
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def pack(x: Tensor) -> Tensor:
        if x.untyped_storage().data_ptr() not in parameters:
            sizes[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes() // x.element_size()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        work()
    return sum(sizes.values())


@pytest.mark.parametrize("lora", [False, True], ids=["full", "LoRA"])
def test_what_a_layer_keeps(lora: bool) -> None:
    """A token of a layer, in numbers: x before each norm, queries, keys, values, the attention's result, gate and up:
    4·32 + 2·16 + 2·64; the norms' two scales and attention's 4 normalisers; 7 times LoRA's inner 4."""

    def kept(layers: int) -> int:
        model, outs = _model(lora=lora, layers=layers), []
        with matmul.faster_linears(), Fusion.of(model).active():
            return _kept(model, lambda: outs.append(model(input_ids=IDS, use_cache=False)))

    assert (kept(3) - kept(2)) / IDS.numel() == 4 * 32 + 2 * 16 + 2 * 64 + 2 + 4 + (28 if lora else 0)
