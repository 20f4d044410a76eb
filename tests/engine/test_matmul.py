"""Products through oneDNN against torch's own: the same numbers to rounding, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from trimtab.engine import matmul

pytestmark = pytest.mark.skipif(not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="torch without oneDNN")


@pytest.fixture(autouse=True)
def _as_if_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matmul, "onednn_is_faster", lambda: True)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of the left operands that went to oneDNN."""
    seen: list[tuple[int, ...]] = []
    real = matmul._onednn

    def watched(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
        seen.append(tuple(a.shape))
        return real(a, b, bias)

    monkeypatch.setattr(matmul, "_onednn", watched)
    return seen


@pytest.mark.parametrize("turned", ["neither", "first", "second", "both"])
def test_a_product_of_any_orientation(turned: str, calls: list[tuple[int, ...]]) -> None:
    a, b = torch.randn(150, 90), torch.randn(170, 90)
    a = a.T.contiguous().T if turned in ("first", "both") else a
    b = b.T.contiguous().T if turned in ("second", "both") else b
    torch.testing.assert_close(matmul.product(a, b), a @ b.T, atol=2e-5, rtol=1e-5)
    bias = torch.randn(170)
    torch.testing.assert_close(matmul.affine(a, b, bias), a @ b.T + bias, atol=2e-5, rtol=1e-5)
    assert len(calls) == 2


def test_a_product_is_added_block_by_block(monkeypatch: pytest.MonkeyPatch, calls: list[tuple[int, ...]]) -> None:
    monkeypatch.setattr(matmul, "BLOCK", 170 * 64)
    a, b, into = torch.randn(90, 150).T, torch.randn(90, 170).T, torch.randn(150, 170)
    wanted = into + a @ b.T
    matmul.add_product(into, a, b)
    torch.testing.assert_close(into, wanted, atol=2e-5, rtol=1e-5)
    assert [rows for rows, _ in calls] == [64, 64, 22]


@pytest.mark.parametrize(
    "operands",
    [
        (torch.randn(4, 5), torch.randn(6, 5)),
        (torch.randn(150, 90, dtype=torch.float64), torch.randn(170, 90, dtype=torch.float64)),
        (torch.randn(150, 90), torch.randn(170, 2, 90)[:, 0]),
    ],
    ids=["small", "double", "rows with gaps"],
)
def test_what_does_not_suit_stays_with_torch(operands: tuple[Tensor, Tensor], calls: list[tuple[int, ...]]) -> None:
    a, b = operands
    assert torch.equal(matmul.product(a, b), a @ b.T)
    assert torch.equal(matmul.affine(a, b, None), linear(a, b))
    into = torch.zeros(len(a), len(b), dtype=a.dtype)
    matmul.add_product(into, a, b)
    torch.testing.assert_close(into, a @ b.T)
    assert not calls


def test_torchs_own_switch_turns_it_off(calls: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = torch.randn(150, 90), torch.randn(170, 90)
    matmul.product(a, b)
    assert len(calls) == 1
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    matmul.product(a, b)
    assert len(calls) == 1


def _module() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(80, 200), nn.SiLU(), nn.Linear(200, 80, bias=False))


@pytest.mark.parametrize("frozen", [False, True], ids=["learning", "frozen"])
def test_a_module_learns_the_same_within(frozen: bool, calls: list[tuple[int, ...]]) -> None:
    x, upstream = torch.randn(1, 130, 80), torch.randn(1, 130, 80)
    results = []
    for within in (False, True):
        module = _module().requires_grad_(not frozen)
        leaf = x.clone().requires_grad_()
        if within:
            with matmul.faster_linears(), matmul.faster_linears():
                out = module(leaf)
        else:
            out = module(leaf)
        out.backward(upstream)
        results.append([out.detach(), leaf.grad, *(p.grad for p in module.parameters() if not frozen)])
    for ours, theirs in zip(*reversed(results), strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)
    assert len(calls) == (4 if frozen else 6)  # forward, to the input and, where they learn, to the weights
    before = len(calls)
    _module()(x)
    assert len(calls) == before, "outside, torch's own"


def test_without_a_graph_nothing_is_kept() -> None:
    with torch.no_grad(), matmul.faster_linears():
        assert _module()(torch.randn(1, 130, 80)).grad_fn is None


def test_autocast_and_half_precision_are_torchs_own(calls: list[tuple[int, ...]]) -> None:
    with matmul.faster_linears():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert _module()(torch.randn(1, 130, 80)).dtype == torch.bfloat16
        assert _module().bfloat16()(torch.randn(1, 130, 80, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert not calls
