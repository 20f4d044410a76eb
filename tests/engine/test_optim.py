"""The optimizer against torch's own, the schedule against arithmetic."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from trimtab.engine import optim
from trimtab.engine.optim import AdamW, decays, learning_rate


class Net(nn.Module):
    """An embedding tied to a head, a norm, a linear layer with a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.norm = nn.LayerNorm(6)
        self.inner = nn.Linear(6, 6)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(torch.tanh(self.inner(self.norm(self.embed(ids)))))
        return logits


def net(dtype: torch.dtype = torch.float32) -> Net:
    torch.manual_seed(3)
    return Net().to(dtype)


def backward(model: nn.Module, step: int) -> None:
    ids = torch.randint(0, 11, (5,), generator=torch.Generator().manual_seed(step))
    nn.functional.cross_entropy(model(ids).float(), ids.roll(1)).backward()


def test_decay_spares_norms_biases_and_embeddings() -> None:
    assert decays(net()) == {
        "embed.weight": False,
        "norm.weight": False,
        "norm.bias": False,
        "inner.weight": True,
        "inner.bias": False,
    }


def test_frozen_parameters_are_left_alone() -> None:
    model = net()
    model.embed.weight.requires_grad_(False)
    assert "embed.weight" not in AdamW(model, weight_decay=0.1).parameters


def test_same_updates_as_torch() -> None:
    ours, theirs = net(), net()
    optimizer = AdamW(ours, weight_decay=0.1)
    decayed = [theirs.inner.weight]
    rest = [p for p in theirs.parameters() if p is not theirs.inner.weight]
    reference = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}], lr=1e-2, fused=False
    )
    for step in range(20):
        optimizer.zero_gradients()
        backward(ours, step)
        reference.zero_grad()
        backward(theirs, step)
        norm = optimizer.clip(0.05)
        expected = torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.05)
        assert norm == pytest.approx(float(expected), rel=1e-5)
        optimizer.step(learning_rate=1e-2)
        reference.step()
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6, msg=name)


def test_one_step_by_hand() -> None:
    """The first AdamW step: the bias-corrected moments are g and g², so w ← w(1 − lr·wd) − lr·g/(|g| + ε)."""
    model = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, -2.0]]))
    optimizer = AdamW(model, weight_decay=0.5)
    model(torch.tensor([0.3, -4.0])).sum().backward()
    optimizer.step(learning_rate=0.1)
    assert model.weight.tolist()[0] == pytest.approx([1.0 * 0.95 - 0.1, -2.0 * 0.95 + 0.1], abs=1e-6)


def test_a_step_with_zero_gradients_still_decays_and_keeps_momentum() -> None:
    """What a batch in the dead zone must do; torch would pass over gradients that are None."""
    model = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, -2.0]]))
    optimizer = AdamW(model, weight_decay=0.5)
    model(torch.tensor([1.0, 1.0])).sum().backward()
    optimizer.step(learning_rate=0.1)
    before = model.weight.detach().clone()
    optimizer.zero_gradients()
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())
    assert optimizer.clip(1.0) == 0.0
    optimizer.step(learning_rate=0.1)
    # by hand: m = .9·.1, m̂ = .09/.19; v = .999·.001, v̂ = .000999/.001999
    moved = 0.1 * (0.09 / 0.19) / math.sqrt(0.000999 / 0.001999)
    torch.testing.assert_close(model.weight.detach(), before * 0.95 - moved, rtol=1e-6, atol=1e-7)


def test_clip_scales_to_the_limit_and_leaves_small_ones() -> None:
    model = nn.Linear(2, 1, bias=False)
    optimizer = AdamW(model, weight_decay=0.0)
    model.weight.grad = torch.tensor([[3.0, 4.0]])
    assert optimizer.clip(10.0) == 5.0
    assert model.weight.grad.tolist() == [[3.0, 4.0]]
    assert optimizer.clip(1.0) == 5.0
    torch.testing.assert_close(model.weight.grad, torch.tensor([[0.6, 0.8]]), rtol=1e-5, atol=1e-6)


def test_a_norm_that_is_not_finite_is_told_and_nothing_is_scaled() -> None:
    model = nn.Linear(2, 1, bias=False)
    optimizer = AdamW(model, weight_decay=0.0)
    model.weight.grad = torch.tensor([[math.nan, 4.0]])
    assert math.isnan(optimizer.clip(1.0))
    assert model.weight.grad[0, 1] == 4.0


def test_small_updates_of_bf16_weights_are_not_lost() -> None:
    """1,000 steps of 1e-5 on a weight of 1: bf16's spacing there is 2^-8, so each alone would round away."""
    model = nn.Linear(1, 1, bias=False).to(torch.bfloat16)
    with torch.no_grad():
        model.weight.fill_(1.0)
    optimizer = AdamW(model, weight_decay=0.0)
    for _ in range(1000):
        optimizer.zero_gradients()
        model(torch.ones(1, dtype=torch.bfloat16)).sum().backward()
        optimizer.step(learning_rate=1e-5)
    assert optimizer.masters["weight"].item() == pytest.approx(0.99, abs=1e-4)
    assert model.weight.item() == pytest.approx(0.99, abs=2**-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_state_goes_through_tensors_bit_for_bit(dtype: torch.dtype) -> None:
    straight, stopped = net(dtype), net(dtype)
    one, two = AdamW(straight, weight_decay=0.1), AdamW(stopped, weight_decay=0.1)
    for step in range(3):
        for model, optimizer in ((straight, one), (stopped, two)):
            optimizer.zero_gradients()
            backward(model, step)
            optimizer.step(learning_rate=1e-3)
    held = {name: tensor.clone() for name, tensor in two.state().items()}
    weights = {name: tensor.detach().clone() for name, tensor in two.parameters.items()}
    fresh = net(dtype)
    three = AdamW(fresh, weight_decay=0.1)
    with torch.no_grad():
        for name, parameter in three.parameters.items():
            parameter.copy_(weights[name])
    three.load_state(held)
    for step in range(3, 6):
        for model, optimizer in ((straight, one), (fresh, three)):
            optimizer.zero_gradients()
            backward(model, step)
            optimizer.step(learning_rate=1e-3)
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), fresh.parameters(), strict=True))
    assert all(torch.equal(value, three.state()[name]) for name, value in one.state().items())


def test_linear_schedule_by_hand() -> None:
    """10 steps, a fifth of warm-up: 1/3, 2/3, then 8 steps from 1 down to 1/8."""
    rates = [learning_rate(t, total=10, peak=1.0, schedule="linear", warmup=0.2) for t in range(10)]
    assert rates == pytest.approx([1 / 3, 2 / 3, *(1 - t / 8 for t in range(8))])


def test_cosine_and_constant_by_hand() -> None:
    assert learning_rate(5, total=10, peak=2.0, schedule="cosine", warmup=0.0) == pytest.approx(1.0)
    assert learning_rate(0, total=10, peak=2.0, schedule="cosine", warmup=0.0) == 2.0
    assert learning_rate(9, total=10, peak=2.0, schedule="constant", warmup=0.1) == 2.0


@given(
    total=st.integers(1, 500),
    warmup=st.floats(0, 0.99),
    schedule=st.sampled_from(["constant", "linear", "cosine"]),
)
@settings(max_examples=200, deadline=None)
def test_no_step_is_wasted_at_a_rate_of_zero(total: int, warmup: float, schedule: str) -> None:
    rates = [learning_rate(t, total=total, peak=1e-3, schedule=schedule, warmup=warmup) for t in range(total)]  # type: ignore[arg-type]  # drawn from the literals
    assert all(0 < rate <= 1e-3 for rate in rates)
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)


def test_copies_are_stepped_in_bundles_and_fp32_parameters_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of both widths, one bundle a copy, against one bundle for all and against torch on fp32 copies."""

    def run(at_once: int) -> dict[str, torch.Tensor]:
        monkeypatch.setattr(optim, "AT_ONCE", at_once)
        model = net(torch.bfloat16)
        model.norm.float()
        optimizer = AdamW(model, weight_decay=0.1)
        assert set(optimizer.masters) == {"embed.weight", "inner.weight", "inner.bias"}
        for step in range(3):
            optimizer.zero_gradients()
            for i, parameter in enumerate(model.parameters()):
                parameter.grad = torch.full_like(parameter, 0.25 + i + step)
            optimizer.clip(1e9)
            optimizer.step(learning_rate=1e-2)
        return optimizer.state()

    whole, split = run(1 << 20), run(1)
    assert whole.keys() == split.keys()
    for name, value in whole.items():
        assert torch.equal(value, split[name]), name
    assert {float(value) for name, value in whole.items() if name.endswith(".step")} == {3.0}


def test_the_norm_of_low_precision_gradients_is_taken_in_fp32() -> None:
    model = net(torch.bfloat16)
    optimizer = AdamW(model, weight_decay=0.0)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 1e-3)
    count = sum(p.numel() for p in model.parameters())
    assert optimizer.clip(10.0) == pytest.approx(float(torch.tensor(1e-3).bfloat16()) * count**0.5, rel=1e-5)
