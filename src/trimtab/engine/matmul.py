"""Single-precision matrix products on a CPU, by the one of torch's two libraries that has the better kernels there.

torch sends them to MKL, which keeps its AVX-512 kernels for Intel's processors; on others that have AVX-512, oneDNN,
which is in the same torch, takes half of the time. Both compute in fp32 and differ by rounding alone. `LOG.md` has the
figures. oneDNN wants operands that are contiguous or the transpose of that, and a call that is worth its overhead;
everything else stays with torch, and so does all of it where `torch.backends.mkldnn.enabled` is False.

Dims: M rows, N columns, K summed over.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import local
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

WORTHWHILE = 1 << 20
"""Multiplications from which oneDNN's call (10 µs more than MKL's) pays."""

BLOCK = 1 << 21
"""Numbers of a temporary product: small enough to stay in a cache, and to be had without new pages from the system."""


def product(a_MK: Tensor, b_NK: Tensor) -> Tensor:
    """a · bᵀ [M, N], a fresh tensor."""
    return _onednn(a_MK, b_NK) if _suits(a_MK, b_NK) else a_MK @ b_NK.T


def affine(a_MK: Tensor, b_NK: Tensor, bias_N: Tensor | None) -> Tensor:
    """a · bᵀ + bias [M, N], a fresh tensor."""
    return _onednn(a_MK, b_NK, bias_N) if _suits(a_MK, b_NK) else linear(a_MK, b_NK, bias_N)


def add_product(into_MN: Tensor, a_MK: Tensor, b_NK: Tensor) -> None:
    """into += a · bᵀ, without a temporary of the size of `into`."""
    if not _suits(a_MK, b_NK):
        into_MN.addmm_(a_MK, b_NK.T)
        return
    rows = max(1, BLOCK // len(b_NK))
    for at in range(0, len(a_MK), rows):
        into_MN[at : at + rows] += _onednn(a_MK[at : at + rows], b_NK)


@contextmanager
def faster_linears() -> Iterator[None]:
    """Within, `torch.nn.functional.linear`, which every nn.Linear calls, computes forward and backward as `product`.

    Backward passes need not run within, but for layers that are run again there (activation checkpointing).
    """
    if getattr(_state, "inside", False) or not in_use():
        yield
        return
    _state.inside = True
    try:
        with _FasterLinears():
            yield
    finally:
        _state.inside = False


@cache
def onednn_is_faster() -> bool:
    """Whether this processor has AVX-512 and MKL will not use it."""
    return (
        torch._C.has_mkl
        and torch._C._has_mkldnn
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and torch.backends.cpu.get_cpu_capability().startswith("AVX512")
        and "GenuineIntel" not in _processor()
    )


def in_use() -> bool:
    """Whether products that suit go to oneDNN."""
    return onednn_is_faster() and bool(torch.backends.mkldnn.enabled)


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.read_text(encoding="utf-8") if cpuinfo.exists() else platform.processor()


_state = local()


def _suits(a_MK: Tensor, b_NK: Tensor) -> bool:
    return (
        a_MK.dtype == b_NK.dtype == torch.float32
        and a_MK.device.type == b_NK.device.type == "cpu"
        and a_MK.numel() * len(b_NK) >= WORTHWHILE
        and (b_NK.is_contiguous() or b_NK.T.is_contiguous())
        and in_use()
    )


def _onednn(a: Tensor, b_NK: Tensor, bias_N: Tensor | None = None) -> Tensor:
    out: Tensor = torch.ops.mkldnn._linear_pointwise(a, b_NK, bias_N, "none", [], "")
    return out


class _FasterLinears(TorchFunctionMode):
    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],  # torch's signature
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if function is linear:
            return _faster_linear(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))


def _faster_linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:  # torch's names
    plain = type(weight) in (Tensor, torch.nn.Parameter) and weight.dim() == 2 and input.dim() > 1
    if not plain or not _suits(input.flatten(0, -2), weight) or torch.is_autocast_enabled("cpu"):
        return linear(input, weight, bias)
    if torch.is_grad_enabled():
        apply: Callable[..., Tensor] = _Linear.apply
        return apply(input, weight, bias)
    return _onednn(input, weight, bias)


def _to_weight(grad_MN: Tensor, input_MK: Tensor) -> Tensor:
    """gradᵀ · input [N, K]. oneDNN's product copies a transposed first operand: let it be the narrower of the two."""
    if grad_MN.shape[1] > 2 * input_MK.shape[1]:
        return product(input_MK.T, grad_MN.T).T
    return product(grad_MN.T, input_MK.T)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # torch's names
        ctx.save_for_backward(input, weight)
        return _onednn(input, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        wants_input, wants_weight, wants_bias = ctx.needs_input_grad
        input, weight = ctx.saved_tensors  # torch's names
        grad = grads[0].flatten(0, -2).contiguous()
        to_input = product(grad, weight.T).view(input.shape) if wants_input else None
        to_weight = _to_weight(grad, input.flatten(0, -2).contiguous()) if wants_weight else None
        return to_input, to_weight, grad.sum(0) if wants_bias else None
