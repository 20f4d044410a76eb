"""Linear layers whose products are of bfloat16 numbers while every tensor stays fp32: `engine.dtype mixed`.

    forward     y = x·Wᵀ     x and W rounded to bfloat16 (8 significant bits), summed and handed on in fp32;
                             of queries, keys and values neither is rounded
    backward    ∂x = ∂y·W, ∂W = ∂yᵀ·x     all three rounded, so are ∂x and ∂W once they are summed

Weights, gradients, moments, the residual stream, norms, attention, the output head, log-softmax and log-ratios stay
fp32. A result that is rounded once more, as torch's autocast does it, adds noise of its own. Of all roundings those of
queries, keys and values, which go through a softmax, cost most for the arithmetic that they save
(`benchmarks/noise_parts.py` measures each). In a gradient none of this matters.

A copy of a weight in bfloat16 serves its backward pass: of a frozen one it is made once, of one that learns again
after each update (`tensor._version`, which whoever writes past autograd has to raise).

Dims: M rows, N columns, K summed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from functools import cache
from threading import local
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from trimtab.engine import matmul

EXACT = frozenset({"q_proj", "k_proj", "v_proj", "qkv_proj", "query_key_value", "c_attn", "Wqkv"})
"""What transformers' families call the layers that make queries, keys and values."""

LEAST_WIDTH = 64
"""Of what is summed over and of the result: products with an adapter's few columns are bound by memory."""


@cache
def has_units(device_type: str) -> bool:
    """Whether the processor multiplies bfloat16 numbers faster than fp32 ones, in a way that torch uses."""
    match device_type:
        case "cuda":
            return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
        case "cpu":
            return bool(
                torch._C._has_mkldnn
                and hasattr(torch.ops.mkldnn, "_linear_pointwise")
                and (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())
                and does_round()
            )
        case _:
            return False


def does_round() -> bool:
    """Whether oneDNN does on this CPU what it is asked. On an AMD EPYC with AVX-512 BF16 and no AMX (torch 2.13) it
    multiplies fp32 operands as they are, and says nothing."""
    number = 1 + 2**-9  # to be told from 1 it takes one bit more than bfloat16 has
    sums = _rounding_product(torch.full((256, 256), number), torch.full((256, 256), number), None)
    return bool((sums == 256.0).all())


def exact_weights(model: nn.Module) -> frozenset[int]:
    """`id` of the weights whose forward products stay fp32."""
    return frozenset(
        id(parameter)
        for name, parameter in model.named_parameters()
        if not EXACT.isdisjoint(name.split(".")) and "lora_" not in name
    )


@contextmanager
def mixed_linears(exact: frozenset[int] = frozenset()) -> Iterator[None]:
    """Within, `torch.nn.functional.linear`, which every nn.Linear calls, multiplies in bfloat16, forward and backward;
    backward alone with the weights that `exact_weights` named.

    Tensors go in and come out in fp32. What does not suit (a small product, another dtype, a processor without the
    units) is computed as `matmul.faster_linears` does. Backward passes need not run within, but for layers that are
    run again there (activation checkpointing).
    """
    if is_active():
        yield
        return
    _state.inside = True
    try:
        with matmul.faster_linears(), _MixedLinears(exact):
            yield
    finally:
        _state.inside = False


_state = local()
_Forward = Callable[[Tensor, Tensor, "Tensor | None"], Tensor]


def for_gradients(weight: Tensor) -> Tensor:
    """The weight as products of a backward pass take it: in bfloat16 within `mixed_linears`, else as it is."""
    is_mixed = is_active() and weight.dtype == torch.float32 and has_units(weight.device.type)
    return rounded_weight(weight) if is_mixed else weight


def add_product(into_MN: Tensor, a_MK: Tensor, b_NK: Tensor) -> None:
    """into += a · bᵀ, without a temporary of the size of `into`, which may be wider than both."""
    if into_MN.dtype == a_MK.dtype:
        matmul.add_product(into_MN, a_MK, b_NK)
        return
    rows = max(1, matmul.BLOCK // len(b_NK))
    for at in range(0, len(a_MK), rows):
        into_MN[at : at + rows] += a_MK[at : at + rows] @ b_NK.T


def is_active() -> bool:
    """Whether this thread is within `mixed_linears`."""
    return bool(getattr(_state, "inside", False))


class _MixedLinears(TorchFunctionMode):
    def __init__(self, exact: frozenset[int]) -> None:
        super().__init__()
        self._exact = exact
        self._operand = _LastOperand()

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],  # torch's signature
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if function is linear and _suits(*args, **(kwargs or {})):
            return self._linear(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))

    def _linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:  # torch's names
        forward = _exact_forward if id(weight) in self._exact else _forward
        if not torch.is_grad_enabled():
            return forward(input, weight, bias)
        operand = self._operand.rounded(input) if weight.requires_grad else None
        apply: Callable[..., Tensor] = _Linear.apply
        return apply(input, weight, bias, operand, forward)


class _LastOperand:
    """The last activations in bfloat16: several layers in a row multiply the same ones."""

    def __init__(self) -> None:
        self._of: Callable[[], Tensor | None] = lambda: None
        self._version = -1
        self._rounded: Tensor | None = None

    def rounded(self, x: Tensor) -> Tensor:
        if self._rounded is None or self._of() is not x or self._version != x._version:
            self._of, self._version, self._rounded = ref(x), x._version, x.detach().bfloat16()
        return self._rounded


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None, operand: Tensor | None, forward: _Forward
    ) -> Tensor:
        ctx.save_for_backward(weight, operand)
        return forward(input, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        wants_input, wants_weight, wants_bias, *_ = ctx.needs_input_grad
        weight, operand = ctx.saved_tensors
        grad = grads[0].flatten(0, -2)
        narrow = grad.bfloat16()
        to_input = to_weight = None
        if wants_input:
            to_input = (narrow @ rounded_weight(weight)).float().view(*grads[0].shape[:-1], weight.shape[1])
        if wants_weight:
            to_weight = (narrow.T @ operand.flatten(0, -2)).float()
        return to_input, to_weight, grad.sum(0) if wants_bias else None, None, None


_copies: MutableMapping[Tensor, tuple[tuple[int, int], Tensor]] = WeakIdKeyDictionary()


def rounded_weight(weight: Tensor) -> Tensor:
    """The weight in bfloat16; the same tensor as long as the weight is not written to."""
    state = weight.data_ptr(), weight._version
    entry = _copies.get(weight)
    if entry is not None and entry[0] == state:
        return entry[1]
    with torch.no_grad():
        copy = weight.bfloat16() if entry is None else entry[1].copy_(weight)
    _copies[weight] = state, copy
    return copy


def _exact_forward(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return matmul.affine(input.flatten(0, -2), weight, bias).view(*input.shape[:-1], len(weight))


def _forward(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if input.device.type == "cpu":
        return _rounding_product(input, weight, bias)
    rows = input.flatten(0, -2).bfloat16()
    out = torch.mm(rows, rounded_weight(weight).T, out_dtype=torch.float32).view(*input.shape[:-1], len(weight))
    return out if bias is None else out + bias


def _rounding_product(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """By oneDNN, which rounds fp32 operands on the way into its bfloat16 units: the sum is never rounded."""
    settings: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]  # torch's hints lack it
    before = settings.fp32_precision
    settings.fp32_precision = "bf16"
    try:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "")
    finally:
        settings.fp32_precision = before
    return out


def _suits(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:  # noqa: ARG001  # torch's names
    return (
        type(weight) in (Tensor, nn.Parameter)
        and weight.dtype == input.dtype == torch.float32
        and weight.dim() == 2
        and input.dim() > 1
        and weight.device == input.device
        and min(weight.shape) >= LEAST_WIDTH
        and input.numel() * len(weight) >= matmul.WORTHWHILE
        and has_units(input.device.type)
    )
