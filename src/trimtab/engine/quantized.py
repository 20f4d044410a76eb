"""The extra `[qlora]`, by bitsandbytes: frozen matrices in 4 bit (NF4, QLoRA, Dettmers et al. 2023), moments in 8 bit.

A run with quantized matrices trains its adapter against the rounded weights. What it saves is right only with them, so
a saved adapter carries `quantization.json`, and a base that it is merged into is rounded in the same way before.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from trimtab.errors import ModelError, UserError

MARK = "quantization.json"
KIND = "nf4"
BYTES = 0.5 + 1 / 64 + 4 / 64 / 256
"""Of one weight: half a byte, a byte a block of 64 for its scale, and a float for 256 of those scales."""


def library() -> Any:
    """bitsandbytes; UserError with the remedy where it is not installed."""
    try:
        return import_module("bitsandbytes")
    except ImportError as error:
        raise UserError(
            "8-bit optimizers and 4-bit weights need bitsandbytes, which is not installed",
            remedy="pip install trimtab[qlora]",
        ) from error


def matrices(model: Any) -> dict[str, nn.Linear]:
    """The linear modules that are quantized: all but the output head. Raises ModelError where there are none."""
    head = model.get_output_embeddings()
    linears = {
        name: module for name, module in model.named_modules() if type(module) is nn.Linear and module is not head
    }
    if not linears:
        raise ModelError(
            f"{type(model).__name__} has no linear modules that could be quantized",
            remedy="Set adapter.quantize = none.",
        )
    return linears


class FourBitLinear(nn.Linear):
    """A frozen linear module whose weights are rounded to 4 bit and widened for each product.

    bitsandbytes' own computes forward passes without gradient by other kernels, on some CPUs in bfloat16. A response
    that is looked at without gradient first must get the very number that it gets with one.
    """

    def __init__(self, module: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = module.in_features, module.out_features
        packed, self.state = library().functional.quantize_4bit(
            module.weight.detach(), quant_type=KIND, compress_statistics=True
        )
        self.weight = nn.Parameter(packed, requires_grad=False)
        self.bias = module.bias

    def forward(self, x: Tensor) -> Tensor:
        apply: Callable[..., Tensor] = _Product.apply
        return apply(x, self.weight, self.state, self.bias)


class _Product(torch.autograd.Function):
    """x Wᵀ + b with W widened again in the backward pass, rather than kept until then."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, packed: Tensor, state: Any, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(packed)
        ctx.state = state
        return linear(x, _dequantize(packed, state), bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (packed,) = ctx.saved_tensors
        return linear(grads[0], _dequantize(packed, ctx.state).T), None, None, None


def _dequantize(packed: Tensor, state: Any) -> Tensor:
    weight: Tensor = library().functional.dequantize_4bit(packed, state)
    return weight


def quantize(model: Any) -> None:
    """Puts 4-bit modules in the place of `matrices(model)`, one after the other, on the device where they are."""
    for name, module in matrices(model).items():
        parent, _, last = name.rpartition(".")
        module.requires_grad_(False)
        setattr(model.get_submodule(parent), last, FourBitLinear(module))


@torch.no_grad()
def round_like(model: Any) -> None:
    """Gives `matrices(model)` the values that `quantize` would compute with, in the width they have."""
    functional = library().functional
    for module in matrices(model).values():
        packed, state = functional.quantize_4bit(module.weight, quant_type=KIND, compress_statistics=True)
        module.weight.copy_(functional.dequantize_4bit(packed, state))


def is_quantized(model: nn.Module) -> bool:
    return any(isinstance(module, FourBitLinear) for module in model.modules())


def is_quantized_adapter(folder: Path) -> bool:
    """Whether the adapter in `folder` was trained against quantized matrices. Raises ModelError for a kind unknown."""
    path = folder / MARK
    if not path.is_file():
        return False
    tree = json.loads(path.read_text(encoding="utf-8"))
    if tree != {"quantize": KIND}:
        raise ModelError(
            f"{path}: a kind of quantization that this version does not know",
            remedy="Use the version of trimtab that the adapter was trained with.",
        )
    return True
