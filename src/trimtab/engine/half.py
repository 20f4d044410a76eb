"""Linear layers whose products are of float16 numbers while every tensor stays fp32: `engine.dtype float16`, for GPUs
that multiply float16 numbers fast and bfloat16 ones not (T4, V100).

float16 has eleven significant bits, three more than bfloat16, but ends at 65,504 and loses what is below 6e-8, as most
gradients are. So each operand is scaled by a power of two that brings its largest number to 2¹⁰ at most, and the fp32
sum is scaled back: exact but for what lies 2³⁴ below the largest. Where one scale for the whole loss (Micikevicius et
al. 2018, §3.2) has to be found by steps that overflow and kept in checkpoints, a scale a tensor follows from it.

Weights, gradients, moments, queries, keys and values, norms, attention, the output head, log-softmax and log-ratios
stay fp32. Written after torch's documentation; on a GPU it has not been run, and on a CPU it is tested by its sums.

Dims: M rows, N columns, K summed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

from trimtab.engine.mixed import LEAST_WIDTH

LARGEST = 10.0  # log2 of an operand's largest number, once it is scaled


def has_units(device_type: str) -> bool:
    """Whether the processor has units for float16: CUDA GPUs from Volta on."""
    return device_type == "cuda" and torch.cuda.is_available() and torch.cuda.get_device_capability() >= (7, 0)


class Operand(NamedTuple):
    """`numbers` (float16) are those of a tensor times `scale` (fp32, a power of two, one number on the device)."""

    numbers: Tensor
    scale: Tensor

    @classmethod
    def of(cls, tensor: Tensor) -> Operand:
        """No number of it overflows; zero, and what is not finite, stays what it is."""
        largest = tensor.detach().abs().amax().clamp_min(torch.finfo(torch.float32).tiny)
        scale = torch.exp2((LARGEST - torch.log2(largest).ceil()).clamp(-100.0, 100.0)).nan_to_num(1.0)
        return cls((tensor.detach() * scale).half(), scale)


def product(a_MK: Operand, b_KN: Operand) -> Tensor:
    """a · b [M, N] in fp32."""
    if a_MK.numbers.device.type == "cuda":
        out_MN = torch.mm(a_MK.numbers, b_KN.numbers, out_dtype=torch.float32)
    else:
        out_MN = a_MK.numbers.float() @ b_KN.numbers.float()
    return out_MN / (a_MK.scale * b_KN.scale)


@contextmanager
def half_linears(exact: frozenset[int] = frozenset(), *, least_width: int = LEAST_WIDTH) -> Iterator[None]:
    """Within, `torch.nn.functional.linear` multiplies fp32 tensors in float16, forward and backward; backward alone
    with the weights of these `id`s. Narrower layers compute as they do without."""
    with _HalfLinears(exact, least_width):
        yield


class _HalfLinears(TorchFunctionMode):
    def __init__(self, exact: frozenset[int], least_width: int) -> None:
        super().__init__()
        self._exact, self._least_width = exact, least_width

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],  # torch's signature
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if function is linear and self._suits(*args, **(kwargs or {})):
            return self._linear(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))

    def _suits(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:  # noqa: ARG002  # torch's names
        plain = type(weight) in (Tensor, nn.Parameter) and weight.dim() == 2 and min(weight.shape) >= self._least_width
        return plain and weight.dtype == input.dtype == torch.float32 and weight.device == input.device

    def _linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:  # torch's names
        apply: Callable[..., Tensor] = _Linear.apply
        return apply(input, weight, bias, id(weight) in self._exact)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None, is_exact: bool) -> Tensor:
        ctx.save_for_backward(input, weight)
        rows_MK = input.flatten(0, -2)
        out = rows_MK @ weight.T if is_exact else product(Operand.of(rows_MK), _transpose(Operand.of(weight)))
        out = out if bias is None else out + bias
        return out.view(*input.shape[:-1], len(weight))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        wants_input, wants_weight, wants_bias, _ = ctx.needs_input_grad
        input, weight = ctx.saved_tensors
        grad_MN = grads[0].flatten(0, -2)
        narrow = Operand.of(grad_MN)
        to_input = product(narrow, Operand.of(weight)).view(input.shape) if wants_input else None
        to_weight = product(_transpose(narrow), Operand.of(input.flatten(0, -2))) if wants_weight else None
        return to_input, to_weight, grad_MN.sum(0) if wants_bias else None, None


def _transpose(operand: Operand) -> Operand:
    return Operand(operand.numbers.T, operand.scale)
