"""The head in chunks gives the log-probabilities and gradients of the whole, whatever the chunk and the head."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from trimtab.engine import head as head_module
from trimtab.engine.head import Head, OwnLogits, chunk_rows, kept_rows

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


UNITS = [slice(0, 3), slice(3, 20), slice(20, 21), slice(21, N)]


def _ours(
    head: Head | OwnLogits, hidden: Tensor, targets: Tensor, upstream: Tensor, *leaves: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """(logps, gradients) by `gradient`, whose `solve` sees every row once, in order, and answers with `upstream`."""
    for leaf in leaves:
        leaf.grad = None
    seen: list[int] = []
    found: list[Tensor] = []

    def solve(rows: slice, logps: Tensor) -> Tensor:
        assert len(logps) == rows.stop - rows.start
        assert not logps.requires_grad
        seen.extend(range(rows.start, rows.stop))
        found.append(logps)
        return upstream[rows]

    head_module.backward([head.gradient(hidden, targets, units=UNITS, solve=solve)])
    assert seen == list(range(N))
    return torch.cat(found), [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad.clone() for leaf in leaves]


@pytest.mark.parametrize("kept", [1, 6, N])
@pytest.mark.parametrize(("rows", "columns"), [(1, 8), (7, 1), (7, V), (100, 10)])
@pytest.mark.parametrize(("scale", "softcap"), [(1.0, None), (0.3, None), (1.0, 2.0), (0.7, 1.5)])
@pytest.mark.parametrize("bias", [True, False])
def test_any_chunk_gives_the_whole(
    kept: int, rows: int, columns: int, scale: float, softcap: float | None, bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head_module, "BLOCK_LOGITS", 1)
    monkeypatch.setattr(head_module, "LEAST_COLUMNS", columns)
    linear, hidden, targets, upstream = _problem(bias=bias)
    leaves = [hidden, linear.weight] + ([linear.bias] if bias else [])
    head = Head(linear, scale, softcap, rows_a_chunk=rows, rows_kept=kept)
    truth = _whole(head, hidden, targets)
    wanted = _gradients(truth, upstream, *leaves)
    logps, found = _ours(head, hidden, targets, upstream, *leaves)
    assert logps.dtype == torch.float32
    torch.testing.assert_close(logps.double(), truth, atol=2e-6, rtol=0)
    with torch.no_grad():
        torch.testing.assert_close(head.logps(hidden, targets), logps, atol=1e-6, rtol=0)
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, atol=3e-6, rtol=1e-5)
    differentiable = _gradients(head.logps(hidden, targets), upstream, *leaves)
    for ours, theirs in zip(differentiable, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, atol=3e-6, rtol=1e-5)


def test_gradients_are_added_to_what_is_there() -> None:
    linear, hidden, targets, upstream = _problem()
    head = Head(linear, rows_kept=5)
    _, (once,) = _ours(head, hidden, targets, upstream, linear.weight)
    head_module.backward([head.gradient(hidden, targets, units=UNITS, solve=lambda rows, _: upstream[rows])])
    torch.testing.assert_close(linear.weight.grad, 2 * once)


@pytest.mark.parametrize(("scale", "softcap"), [(1.0, None), (0.7, 1.5)])
def test_a_frozen_head_passes_the_gradient_on_and_takes_none(scale: float, softcap: float | None) -> None:
    linear, hidden, targets, upstream = _problem()
    linear.requires_grad_(False)
    head = Head(linear, scale, softcap, rows_a_chunk=5)
    assert head.unit_rows is None
    _, (ours,) = _ours(head, hidden, targets, upstream, hidden)
    (truth,) = _gradients(_whole(head, hidden, targets), upstream, hidden)
    torch.testing.assert_close(ours, truth, atol=3e-6, rtol=1e-5)
    assert linear.weight.grad is None


def test_a_learning_head_under_frozen_states() -> None:
    linear, hidden, targets, upstream = _problem()
    frozen = hidden.detach()
    head = Head(linear, rows_a_chunk=5, rows_kept=9)
    truth = _gradients(_whole(head, frozen, targets), upstream, linear.weight, linear.bias)
    _, ours = _ours(head, frozen, targets, upstream, linear.weight, linear.bias)
    for a, b in zip(ours, truth, strict=True):
        torch.testing.assert_close(a, b, atol=3e-6, rtol=1e-5)


def test_derivative_against_finite_differences() -> None:
    linear, hidden, targets, _ = _problem()
    head = Head(linear, 0.7, 1.5, rows_kept=4)
    with torch.no_grad():
        step, direction = 1e-2, torch.randn_like(hidden)
        up = _whole(head, hidden + step * direction, targets)
        down = _whole(head, hidden - step * direction, targets)
    _, (slope,) = _ours(head, hidden, targets, torch.ones(N), hidden)
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
    truth = _whole(Head(merged), hidden, targets)
    (theirs,) = _gradients(truth, upstream, hidden)
    logps, (ours, up) = _ours(Head(wrapped, rows_a_chunk=6), hidden, targets, upstream, hidden, wrapped.up.weight)
    torch.testing.assert_close(logps.double(), truth, atol=2e-6, rtol=0)
    torch.testing.assert_close(ours, theirs, atol=3e-6, rtol=1e-5)
    assert up.any()


def test_logits_of_the_models_own_making() -> None:
    linear, hidden, targets, upstream = _problem()
    truth = _whole(Head(linear), hidden, targets)
    wanted = _gradients(truth, upstream, hidden)
    logps, found = _ours(OwnLogits(), linear(hidden), targets, upstream, hidden)
    torch.testing.assert_close(logps.double(), truth, atol=2e-6, rtol=0)
    torch.testing.assert_close(found, wanted, atol=3e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", ["learning", "learning, kept", "frozen", "wrapped", "own logits"])
@pytest.mark.parametrize(("scale", "softcap"), [(1.0, None), (0.7, 1.5)])
def test_collisions_stand_there_before_a_unit_is_solved(
    kind: str, scale: float, softcap: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ln Σ p² of every row, whatever the head, its chunks and its blocks; the gradient stays what it was."""
    monkeypatch.setattr(head_module, "BLOCK_LOGITS", 1)
    monkeypatch.setattr(head_module, "LEAST_COLUMNS", 10)
    linear, hidden, targets, upstream = _problem()
    hidden = (3 * hidden).detach().requires_grad_()
    linear.requires_grad_(kind != "frozen")
    module: nn.Module = nn.Sequential(linear) if kind == "wrapped" else linear
    head = Head(module, scale, softcap, rows_a_chunk=7, rows_kept=N if kind == "learning, kept" else 6)
    logits = head.logits(hidden.detach()).double()
    truth = logits.softmax(-1).square().sum(1).log()
    inputs = hidden
    if kind == "own logits":
        inputs = scale * linear(hidden)
        inputs = inputs if softcap is None else softcap * (inputs / softcap).tanh()
    ours = OwnLogits() if kind == "own logits" else head
    collisions = torch.full((N,), torch.nan)

    def solve(rows: slice, logps: Tensor) -> Tensor:
        torch.testing.assert_close(collisions[rows].double(), truth[rows], atol=2e-6, rtol=0)
        torch.testing.assert_close(logps.double(), logits.log_softmax(-1).gather(1, targets[:, None])[rows, 0])
        return upstream[rows]

    root = ours.gradient(inputs, targets, units=UNITS, solve=solve, collisions_N=collisions)
    assert not collisions.isnan().any()
    (slope,) = torch.autograd.grad(root.tensor, hidden, root.gradient, retain_graph=True)
    plain = ours.gradient(inputs, targets, units=UNITS, solve=lambda rows, _: upstream[rows])
    torch.testing.assert_close(slope, torch.autograd.grad(plain.tensor, hidden, plain.gradient)[0], atol=0, rtol=0)
    without_gradient = torch.full((N,), torch.nan)
    with torch.no_grad():
        ours.logps(inputs, targets, without_gradient)
    torch.testing.assert_close(without_gradient.double(), truth, atol=2e-6, rtol=0)


def test_collisions_of_a_row_that_is_certain_and_of_one_that_is_not() -> None:
    """Eight tokens alike: ln 8·(1/8)² = −ln 8. One at 200 nats above the others: 0, without overflow."""
    logits = torch.tensor([[0.0] * 8, [200.0] + [0.0] * 7])
    identity = nn.Linear(8, 8, bias=False)
    with torch.no_grad():
        identity.weight.copy_(torch.eye(8))
        for head in (Head(identity), OwnLogits()):
            collisions = torch.empty(2)
            head.logps(logits, torch.zeros(2, dtype=torch.long), collisions)
            assert collisions.tolist() == pytest.approx([-2.0794415, 0.0], abs=1e-6)


def test_bfloat16_weights_keep_fp32_log_softmax() -> None:
    linear, hidden, targets, upstream = _problem()
    linear = linear.bfloat16()
    hidden = hidden.detach().bfloat16().requires_grad_()
    logits = linear(hidden).float().log_softmax(-1).gather(1, targets[:, None])[:, 0]
    (truth,) = _gradients(logits, upstream, hidden)
    logps, (ours,) = _ours(Head(linear, rows_kept=5), hidden, targets, upstream, hidden)
    torch.testing.assert_close(logps, logits, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours, truth, atol=0.02, rtol=0.02)


def _count_logits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    seen: list[int] = []
    real = Head._logits
    monkeypatch.setattr(Head, "_logits", lambda self, hidden: (seen.append(len(hidden)), real(self, hidden))[1])
    return seen


def test_no_logits_are_made_twice_where_a_unit_may_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    linear, hidden, targets, upstream = _problem()
    seen = _count_logits(monkeypatch)
    _ours(Head(linear), hidden, targets, upstream, hidden, linear.weight)
    assert seen == [unit.stop - unit.start for unit in UNITS]


def test_of_a_longer_unit_the_rest_is_made_twice_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    linear, hidden, targets, _ = _problem()
    seen = _count_logits(monkeypatch)
    upstream = torch.zeros(N)
    upstream[[4, 30]] = 1.0
    _ours(Head(linear, rows_kept=6, rows_a_chunk=8), hidden, targets, upstream, hidden, linear.weight)
    #             3 | 17 = 11 + 6, row 4 again | 1 | 16 = 10 + 6, row 30 again
    assert seen == [3, 8, 3, 6, 1, 1, 8, 2, 6, 1]


def test_a_chunk_and_a_kept_unit_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_module, "CHUNK_LOGITS", {"cpu": 16 * V})
    assert chunk_rows(V, "cpu") == 16
    assert kept_rows(V, 8, "cpu") == 16
    assert kept_rows(V, 20, "cpu") == 20  # as many logits as the head has weights
