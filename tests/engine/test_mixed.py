"""Linear layers in mixed precision: operands rounded to bfloat16, everything else as in fp32."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from trimtab import objectives
from trimtab.engine import gradient, mixed
from trimtab.engine.mixed import mixed_linears, rounded_weight
from trimtab.engine.noise import Noise, in_fp32, widened
from trimtab.engine.optim import AdamW
from trimtab.engine.packing import Group
from trimtab.engine.scoring import Scorer
from trimtab.engine.trainable import attach_lora
from trimtab.records import TokenPair

units = pytest.mark.skipif(not mixed.has_units("cpu"), reason="a processor without bfloat16 units")
EXACT = {"atol": 2e-5, "rtol": 1e-5}


def rounded(x: Tensor) -> Tensor:
    return x.detach().bfloat16().float()


def operands(rows: int = 300) -> tuple[Tensor, nn.Parameter, Tensor]:
    torch.manual_seed(0)
    return torch.randn(rows, 96, requires_grad=True), nn.Parameter(torch.randn(128, 96)), torch.randn(rows, 128)


def exact_product(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return linear(input, weight, bias)


def rounding_product(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return linear(rounded(input), rounded(weight), bias)


@pytest.mark.parametrize(("product", "rounds"), [(exact_product, False), (rounding_product, True)])
def test_units_that_are_not_used_are_no_units(product: object, rounds: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixed, "_rounding_product", product)
    assert mixed.does_round() == rounds


@units
@pytest.mark.parametrize("bias", [None, torch.arange(128.0)], ids=["no bias", "bias"])
def test_operands_are_rounded_and_the_sum_is_not(bias: Tensor | None) -> None:
    x, weight, _ = operands()
    with mixed_linears():
        y = linear(x, weight, bias)
    exact = rounded(x) @ rounded(weight).T + (0 if bias is None else bias)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y.detach(), exact, **EXACT)
    assert not torch.allclose(y, linear(x, weight, bias), **EXACT)  # another number than fp32's: something was rounded


@units
def test_gradients_come_of_rounded_numbers_and_are_rounded_once_more() -> None:
    x, weight, upstream = operands()
    with mixed_linears():
        linear(x, weight, bias := torch.zeros(128, requires_grad=True)).backward(upstream)
    assert x.grad is not None
    assert weight.grad is not None
    assert bias.grad is not None
    torch.testing.assert_close(x.grad, rounded(rounded(upstream) @ rounded(weight)), atol=1e-3, rtol=2**-7)
    torch.testing.assert_close(weight.grad, rounded(rounded(upstream).T @ rounded(x)), atol=1e-3, rtol=2**-7)
    torch.testing.assert_close(bias.grad, upstream.sum(0), **EXACT)
    assert {x.grad.dtype, weight.grad.dtype} == {torch.float32}


@units
def test_queries_keys_and_values_are_exact_forward_and_rounded_backward() -> None:
    model = attach_lora(llama(), rank=4, alpha=8)
    attention = model.get_base_model().model.layers[0].self_attn
    names = mixed.exact_weights(model)
    assert {id(p.base_layer.weight) for p in (attention.q_proj, attention.k_proj, attention.v_proj)} <= names
    assert len(names) == 9  # of three layers, and none of the adapter's
    x, weight, upstream = operands()
    with mixed_linears(frozenset({id(weight)})):
        y = linear(x, weight)
    torch.testing.assert_close(y, linear(x, weight), **EXACT)
    (to_x,) = torch.autograd.grad(y, x, upstream)
    torch.testing.assert_close(to_x, rounded(rounded(upstream) @ rounded(weight)), atol=1e-3, rtol=2**-7)


@units
def test_the_heads_way_back_takes_the_copy_of_its_weight() -> None:
    weight = nn.Parameter(torch.randn(128, 96))
    assert mixed.for_gradients(weight) is weight
    with mixed_linears():
        assert torch.equal(mixed.for_gradients(weight), weight.bfloat16())


def test_a_narrow_product_is_added_to_a_wide_sum_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trimtab.engine.matmul.BLOCK", 128 * 70)  # 70, 70, 70, 70 and 20 rows
    a, b, into = torch.randn(300, 96).bfloat16(), torch.randn(128, 96).bfloat16(), torch.randn(300, 128)
    total = into.clone()
    mixed.add_product(total, a, b)
    torch.testing.assert_close(total, into + (a @ b.T).float(), **EXACT)
    total = into.clone()
    mixed.add_product(total, a.float(), b.float())
    torch.testing.assert_close(total, into + a.float() @ b.float().T, **EXACT)


@units
def test_what_is_outside_or_too_small_stays_exact() -> None:
    x, weight, _ = operands()
    narrow = torch.randn(16, 96)  # an adapter's way down
    with mixed_linears():
        assert torch.equal(linear(x, narrow), x @ narrow.T)
        assert torch.equal(x @ weight.T, linear(x.double(), weight.double()).float()) or torch.allclose(
            x @ weight.T, linear(x.double(), weight.double()).float(), **EXACT
        )  # the head's products are of this kind
        few = x[:2]
        assert torch.equal(linear(few, weight), few @ weight.T)
    torch.testing.assert_close(linear(x, weight), (x.double() @ weight.double().T).float(), **EXACT)


def test_a_copy_follows_its_weight_through_the_optimizer() -> None:
    """torch's fused step does not tell autograd that it wrote: the optimizer does."""
    model = nn.Linear(4, 4, bias=False)
    optimizer = AdamW(model, weight_decay=0.0)
    first = rounded_weight(model.weight)
    assert rounded_weight(model.weight) is first
    model.weight.grad = torch.ones(4, 4)
    optimizer.step(learning_rate=1.0)
    assert torch.equal(rounded_weight(model.weight), model.weight.bfloat16())
    assert not torch.equal(model.weight.bfloat16(), torch.zeros(4, 4, dtype=torch.bfloat16))
    with torch.no_grad():
        model.weight.fill_(3.0)
    assert torch.equal(rounded_weight(model.weight).float(), torch.full((4, 4), 3.0))


@units
def test_activations_are_rounded_once_for_layers_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, _ = operands()
    casts: list[Tensor] = []
    real = mixed._LastOperand.rounded

    def counted(self: Any, x: Tensor) -> Tensor:
        casts.append(real(self, x))
        return casts[-1]

    monkeypatch.setattr(mixed._LastOperand, "rounded", counted)
    with mixed_linears():
        linear(x, weight)
        linear(x, nn.Parameter(weight.detach() + 1))
        with torch.no_grad():
            x.add_(1)
        linear(x, weight)
        linear(x, weight.detach())  # frozen: its gradient is not wanted, so nothing is kept
    assert casts[0] is casts[1]
    assert casts[2] is not casts[0]
    assert torch.equal(casts[2], x.bfloat16())
    assert len(casts) == 3


# --- in a model --------------------------------------------------------------------------------------------------


def llama(**shape: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    settings = {
        "vocab_size": 97, "hidden_size": 128, "intermediate_size": 192, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.15,
    } | shape  # fmt: skip
    return LlamaForCausalLM(LlamaConfig(**settings)).eval()


def pairs(n: int = 3) -> list[TokenPair]:
    torch.manual_seed(1)

    def ids(length: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, 97, (length,)).tolist())

    return [TokenPair(f"p{i}", ids(40), ids(50), ids(45)) for i in range(n)]


def gradients(model: Any, **options: Any) -> dict[str, Tensor]:
    scorer, data = Scorer(model, packed="on", **options), pairs()
    for parameter in model.parameters():
        parameter.grad = None
    gradient.accumulate(
        scorer,
        data,
        objective=objectives.make("apo_hinge_zero"),
        reference_logps_R=torch.full((6,), -250.0),
        pack_tokens=512,
    )
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad and p.grad is not None}


@units
@pytest.mark.parametrize("adapter", [False, True], ids=["full", "lora"])
def test_a_gradient_is_that_of_fp32_within_a_few_per_cent(adapter: bool) -> None:
    model = attach_lora(llama(), rank=4, alpha=8) if adapter else llama()
    exact, mine = gradients(model), gradients(model, mixed=True)
    gap = sum(float((mine[n] - exact[n]).square().sum()) for n in exact) / sum(
        float(exact[n].square().sum()) for n in exact
    )
    assert 1e-8 < gap < 0.05**2
    assert {g.dtype for g in mine.values()} == {torch.float32}


@units
@pytest.mark.parametrize("mode", ["selective", "on"])
def test_layers_that_run_again_give_the_same_gradient(mode: Any) -> None:
    plain, again = gradients(llama(), mixed=True), gradients(llama(), mixed=True, checkpointing=mode)
    assert all(torch.equal(plain[name], again[name]) for name in plain)


@units
def test_noise_grows_with_what_is_rounded() -> None:
    groups = [Group.of_pair(pair, i) for i, pair in enumerate(pairs())]
    noises = []
    for options, dtype in (({}, torch.float32), ({"mixed": True}, torch.float32), ({}, torch.bfloat16)):
        scorer = Scorer(llama().to(dtype), packed="on", **options)
        scorer.prepare(groups)
        noises.append(scorer.noise.per_root_token)
    assert noises[0] < 1e-5
    assert 1e-3 < noises[1] < noises[2] / 1.5


def test_noise_is_the_larger_of_tokens_and_responses() -> None:
    """Two responses of 4 tokens. Alternating ±.2: tokens .2, responses 0. All +.2: a sum of .8, .8/√4 = .4."""
    truth_N = torch.zeros(8)
    apart_N = torch.tensor([0.2, -0.2] * 4)
    together_N = torch.full((8,), 0.2)
    assert Noise.between(truth_N, apart_N, [4, 4]).per_root_token == pytest.approx(0.2)
    assert Noise.between(truth_N, together_N, [4, 4]).per_root_token == pytest.approx(0.4)
    assert Noise(0.01).of_log_ratio(200) == pytest.approx(0.2)  # .01 · √(2 · 200)


def test_widened_weights_come_back_as_they_were() -> None:
    model = nn.Linear(3, 2).to(torch.bfloat16)
    before = model.weight.data
    with widened(model):
        assert model.weight.dtype == torch.float32
        assert torch.equal(model.weight, before.float())
    assert model.weight.data.data_ptr() == before.data_ptr()


def test_without_the_memory_for_fp32_weights_the_other_numbers_stand_in() -> None:
    model, otherwise = nn.Linear(3, 2).to(torch.bfloat16), torch.zeros(1)

    def too_large() -> Tensor:
        raise MemoryError

    assert in_fp32(model, lambda: model(torch.ones(3)), otherwise=otherwise).dtype == torch.float32
    assert in_fp32(model, too_large, otherwise=otherwise) is otherwise
    assert model.weight.dtype == torch.bfloat16
    with pytest.raises(RuntimeError, match="another error"):
        in_fp32(model, lambda: (_ for _ in ()).throw(RuntimeError("another error")), otherwise=otherwise)
