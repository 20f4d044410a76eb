"""Attention in blocks of products against torch's own with a mask, numbers and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from trimtab.engine import blockwise, matmul


def _tensors(L: int, S: int, A: int, G: int, D: int) -> tuple[Tensor, ...]:
    """Query, key, value as models hand them over: heads turned to the front."""
    generator = torch.Generator().manual_seed(L + S)
    rows = ((L, A), (S, G), (S, G))
    return tuple(
        torch.randn(1, n, h, D, generator=generator).transpose(1, 2).double().requires_grad_() for n, h in rows
    )


def _by_mask(q: Tensor, k: Tensor, v: Tensor, *, scale: float, window: int | None) -> Tensor:
    L, S = q.shape[2], k.shape[2]
    distance = torch.arange(S - L, S)[:, None] - torch.arange(S)[None]
    seen = (distance >= 0) & (distance < (S if window is None else window))
    return scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scale, enable_gqa=True)


@pytest.mark.parametrize("scores", [1, 900, 1 << 20], ids=["a row a block", "some blocks", "one block"])
@pytest.mark.parametrize("window", [None, 1, 7, 40])
@pytest.mark.parametrize(("L", "S", "A", "G"), [(33, 33, 6, 2), (20, 41, 3, 3), (1, 9, 4, 1)])
def test_equals_a_mask(
    L: int, S: int, A: int, G: int, window: int | None, scores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blockwise, "SCORES", scores)
    leaves = _tensors(L, S, A, G, 8)
    upstream = torch.randn(1, A, L, 8, dtype=torch.float64)
    truth = _by_mask(*leaves, scale=0.4, window=window)
    ours = blockwise.attend(*leaves, scale=0.4, window=window)
    torch.testing.assert_close(ours, truth)
    for a, b in zip(*(torch.autograd.grad(x, leaves, upstream) for x in (ours, truth)), strict=True):
        torch.testing.assert_close(a, b)


def test_slopes_by_differences() -> None:
    q, k, v = _tensors(5, 8, 4, 2, 3)
    assert torch.autograd.gradcheck(lambda *x: blockwise.attend(*x, scale=0.7, window=4), (q, k, v))


def test_in_single_precision_through_the_faster_products(monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.skip("torch without oneDNN")
    monkeypatch.setattr(matmul, "onednn_is_faster", lambda: True)
    leaves = [x.detach().float().requires_grad_() for x in _tensors(250, 380, 6, 2, 64)]
    assert blockwise.suits(*leaves)
    upstream = torch.randn(1, 6, 250, 64)
    both = [way(*leaves, scale=0.1, window=None) for way in (blockwise.attend, _by_mask)]
    torch.testing.assert_close(*both, atol=1e-5, rtol=1e-5)
    for a, b in zip(*(torch.autograd.grad(x, leaves, upstream) for x in both), strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-5)


def test_small_or_double_or_unequal_heads_are_not_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matmul, "onednn_is_faster", lambda: True)
    wide = [torch.randn(1, h, 400, 64) for h in (4, 2, 2)]
    assert blockwise.suits(*wide) == bool(torch.backends.mkldnn.enabled)
    assert not blockwise.suits(*(x[:, :, :50] for x in wide))
    assert not blockwise.suits(*(x.double() for x in wide))
    assert not blockwise.suits(wide[0], wide[1], wide[2][..., :32])
    monkeypatch.setattr(matmul, "onednn_is_faster", lambda: False)
    assert not blockwise.suits(*wide)
