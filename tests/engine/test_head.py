"""The head in chunks gives the log-probabilities and gradients of the whole, whatever the chunk and the head."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from trimtab.engine import head as head_module
from trimtab.engine.head import Head, chunk_rows

N, H, V = 37, 8, 29


def _whole(head: Head, hidden_NH: Tensor, targets_N: Tensor) -> Tensor:
    """Written out once more, in fp64: linear, scale, soft-cap, log-softmax, gather."""
    module = head.module
    bias = 0 if module.bias is None else module.bias.double()
    logits = (hidden_NH.double() @ module.weight.double().T + bias) * head.scale
    if head.softcap is not None:
        logits = head.softcap * (logits / head.softcap).tanh()
    return logits.log_softmax(-1).gather(1, targets_N[:, None])[:, 0]


def _problem(*, bias: bool = True, seed: int = 0) -> tuple[nn.Linear, Tensor, Tensor, Tensor]:
    torch.manual_seed(seed)
    linear = nn.Linear(H, V, bias=bias)
    upstream_N = torch.randn(N)
    upstream_N[5:11] = 0.0  # a response in the dead zone
    return linear, torch.randn(N, H, requires_grad=True), torch.randint(V, (N,)), upstream_N


def _gradients(logps_N: Tensor, upstream_N: Tensor, *leaves: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(logps_N, leaves, upstream_N.to(logps_N.dtype)))


@pytest.mark.parametrize("rows", [1, 7, 16, N, 100])
@pytest.mark.parametrize(("scale", "softcap"), [(1.0, None), (0.3, None), (1.0, 2.0), (0.7, 1.5)])
@pytest.mark.parametrize("bias", [True, False])
def test_any_chunk_gives_the_whole(rows: int, scale: float, softcap: float | None, bias: bool) -> None:
    linear, hidden, targets, upstream = _problem(bias=bias)
    leaves = [hidden, linear.weight] + ([linear.bias] if bias else [])
    head = Head(linear, scale, softcap, rows_a_chunk=rows)
    logps, truth = head.logps(hidden, targets), _whole(head, hidden, targets)
    assert logps.dtype == torch.float32
    torch.testing.assert_close(logps.double(), truth, atol=2e-6, rtol=0)
    for ours, theirs in zip(_gradients(logps, upstream, *leaves), _gradients(truth, upstream, *leaves), strict=True):
        torch.testing.assert_close(ours, theirs, atol=3e-6, rtol=1e-5)


@pytest.mark.parametrize(("scale", "softcap"), [(1.0, None), (0.7, 1.5)])
def test_a_frozen_head_passes_the_gradient_on_and_takes_none(scale: float, softcap: float | None) -> None:
    linear, hidden, targets, upstream = _problem()
    linear.requires_grad_(False)
    head = Head(linear, scale, softcap, rows_a_chunk=5)
    (ours,) = _gradients(head.logps(hidden, targets), upstream, hidden)
    (truth,) = _gradients(_whole(head, hidden, targets), upstream, hidden)
    torch.testing.assert_close(ours, truth, atol=3e-6, rtol=1e-5)
    assert not head.logps(hidden.detach(), targets).requires_grad


def test_a_learning_head_under_frozen_states() -> None:
    linear, hidden, targets, upstream = _problem()
    frozen = hidden.detach()
    head = Head(linear, rows_a_chunk=5)
    ours = _gradients(head.logps(frozen, targets), upstream, linear.weight, linear.bias)
    truth = _gradients(_whole(head, frozen, targets), upstream, linear.weight, linear.bias)
    for a, b in zip(ours, truth, strict=True):
        torch.testing.assert_close(a, b, atol=3e-6, rtol=1e-5)


def test_derivative_against_finite_differences() -> None:
    linear, hidden, targets, _ = _problem()
    head = Head(linear, 0.7, 1.5, rows_a_chunk=4)
    with torch.no_grad():
        step, direction = 1e-2, torch.randn_like(hidden)
        up = _whole(head, hidden + step * direction, targets)
        down = _whole(head, hidden - step * direction, targets)
    slope = torch.autograd.grad(head.logps(hidden, targets).sum(), hidden)[0]
    assert float((slope * direction).sum()) == pytest.approx(float((up - down).sum() / (2 * step)), rel=1e-3)


class _Wrapped(nn.Module):
    """A head that is not a plain linear layer: base and low-rank part, as an adapter on the head makes it."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base, self.down, self.up = base, nn.Linear(H, 2, bias=False), nn.Linear(2, V, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        out: Tensor = self.base(hidden) + self.up(self.down(hidden))
        return out


def test_a_head_of_another_kind_is_chunked_too() -> None:
    linear, hidden, targets, upstream = _problem()
    wrapped = _Wrapped(linear)
    merged = nn.Linear(H, V)
    with torch.no_grad():
        merged.weight.copy_(linear.weight + wrapped.up.weight @ wrapped.down.weight)
        merged.bias.copy_(linear.bias)
    logps = Head(wrapped, rows_a_chunk=6).logps(hidden, targets)
    truth = _whole(Head(merged), hidden, targets)
    torch.testing.assert_close(logps.double(), truth, atol=2e-6, rtol=0)
    (ours,), (theirs,) = _gradients(logps, upstream, hidden), _gradients(truth, upstream, hidden)
    torch.testing.assert_close(ours, theirs, atol=3e-6, rtol=1e-5)
    assert _gradients(Head(wrapped, rows_a_chunk=6).logps(hidden, targets), upstream, wrapped.up.weight)[0].any()


def test_bfloat16_weights_keep_fp32_log_softmax() -> None:
    linear, hidden, targets, upstream = _problem()
    linear = linear.bfloat16()
    hidden = hidden.detach().bfloat16().requires_grad_()
    logits = linear(hidden).float().log_softmax(-1).gather(1, targets[:, None])[:, 0]
    (truth,) = _gradients(logits, upstream, hidden)
    ours = Head(linear, rows_a_chunk=5).logps(hidden, targets)
    torch.testing.assert_close(ours, logits, atol=1e-5, rtol=0)
    torch.testing.assert_close(_gradients(ours, upstream, hidden)[0], truth, atol=0.02, rtol=0.02)


def test_rows_without_a_coefficient_cost_no_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    linear, hidden, targets, _ = _problem()
    logps = Head(linear, rows_a_chunk=4).logps(hidden, targets)
    seen: list[int] = []
    real = head_module._logits
    monkeypatch.setattr(head_module, "_logits", lambda h, *rest: (seen.append(len(h)), real(h, *rest))[1])
    upstream = torch.zeros(N)
    upstream[[3, 20, 21]] = 1.0
    _gradients(logps, upstream, hidden, linear.weight)
    assert sum(seen) == 3


def test_the_logits_are_never_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    linear, hidden, targets, upstream = _problem()
    monkeypatch.setattr(head_module, "SMALL", 0)
    monkeypatch.setattr(head_module, "CHUNK_LOGITS", {"cpu": 16 * V})
    seen: list[int] = []
    real = head_module._logits
    monkeypatch.setattr(head_module, "_logits", lambda h, *rest: (seen.append(len(h)), real(h, *rest))[1])
    assert chunk_rows(V, "cpu") == 16
    _gradients(Head(linear).logps(hidden, targets), upstream, hidden, linear.weight)
    assert max(seen) == 16
    assert sum(seen) == N + (N - 6)  # all rows forward, the live ones backward
