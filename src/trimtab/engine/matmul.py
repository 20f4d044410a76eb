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
from typing import Any, NamedTuple

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
    """a · bᵀ + bias [M, N], a fresh tensor; M may be several dimensions."""
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


class Recipe(NamedTuple):
    """How a tensor is made again: `make(*parts)`, from tensors that are kept anyway."""

    make: Callable[..., Tensor]
    parts: tuple[Tensor, ...]


def remember(x: Tensor, make: Callable[..., Tensor], *parts: Tensor) -> Tensor:
    """`x`, with its recipe: a product that needs it for weight gradients alone keeps the parts in its place."""
    x.recipe = Recipe(make, parts)  # type: ignore[attr-defined]
    return x


def recipe_of(x: Tensor) -> Recipe:
    """As `remember` has it, or x itself."""
    recipe: Recipe = getattr(x, "recipe", None) or Recipe(_itself, (x,))
    return recipe


def _itself(x: Tensor) -> Tensor:
    return x


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
            return faster_linear(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))


def faster_linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:  # torch's names
    """`torch.nn.functional.linear` by the better library.

    In the backward pass a weight's gradient is added to its `.grad` where that is there already; inputs that can be
    made again (`remember`) are not kept.
    """
    plain = (
        type(weight) in (Tensor, torch.nn.Parameter)
        and weight.dim() == 2
        and input.dim() > 1
        and input.dtype == weight.dtype == torch.float32
        and input.device.type == weight.device.type == "cpu"
    )
    if not plain or torch.is_autocast_enabled("cpu"):
        return linear(input, weight, bias)
    learns = torch.is_grad_enabled() and weight.requires_grad
    if learns or (torch.is_grad_enabled() and _suits(input.flatten(0, -2), weight)):
        make, parts = recipe_of(input) if learns else Recipe(_itself, ())
        apply: Callable[..., Tensor] = _Linear.apply
        return apply(input, weight, bias, make, *(part.detach() for part in parts))
    return affine(input, weight, bias)


def _to_weight(grad_MN: Tensor, input_MK: Tensor) -> Tensor:
    """gradᵀ · input [N, K]. oneDNN's product copies a transposed first operand: let it be the narrower of the two."""
    if grad_MN.shape[1] > 2 * input_MK.shape[1]:
        return product(input_MK.T, grad_MN.T).T
    return product(grad_MN.T, input_MK.T)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None, make: Callable[..., Tensor], *parts: Tensor
    ) -> Tensor:
        ctx.save_for_backward(weight, *parts)
        ctx.make = make
        ctx.leaf = weight if weight.is_leaf else None  # what is saved may come back as another tensor, without `.grad`
        return affine(input, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        wants_input, wants_weight, wants_bias, *others = ctx.needs_input_grad
        weight, *parts = ctx.saved_tensors
        grad = grads[0].flatten(0, -2).contiguous()
        to_input = product(grad, weight.T).view(*grads[0].shape[:-1], weight.shape[1]) if wants_input else None
        to_weight = None
        if wants_weight:
            input_MK = ctx.make(*parts).flatten(0, -2).contiguous()
            if ctx.leaf is not None and ctx.leaf.grad is not None:
                _add_to_weight(ctx.leaf.grad, grad, input_MK)
            else:
                to_weight = _to_weight(grad, input_MK)
        return to_input, to_weight, grad.sum(0) if wants_bias else None, *[None for _ in others]


def _add_to_weight(gradient_NK: Tensor, grad_MN: Tensor, input_MK: Tensor) -> None:
    if _suits(grad_MN.T, input_MK.T):
        gradient_NK += _to_weight(grad_MN, input_MK)
    else:
        gradient_NK.addmm_(grad_MN.T, input_MK)
