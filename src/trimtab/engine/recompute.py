"""Activation checkpointing: decoder layers that run once more in the backward pass, so that less is kept until then.

    off         everything that autograd wants is kept
    selective   the results of matrix products and of attention are kept; norms, rotations and elementwise work are redone
    on          only what a layer was given is kept; the whole layer is redone

`selective` costs a few per cent of time for about half of the memory, `on` a quarter of the time for nearly all of it.
Both give the gradient of `off` bit for bit on a CPU: the same kernels see the same numbers.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from trimtab.errors import ModelError

Mode = Literal["off", "selective", "on"]
MODES: tuple[Mode, ...] = ("off", "selective", "on")

NARROW = 64
"""Products over so few numbers (an adapter's way up) are cheaper to redo than to keep."""

_PRODUCTS = {
    "aten::mm": 0,
    "aten::addmm": 1,
    "aten::bmm": 0,
    "aten::baddbmm": 1,
}  # → which argument has the inner width
_ATTENTION = frozenset(
    {
        "aten::_scaled_dot_product_flash_attention_for_cpu",
        "aten::_scaled_dot_product_flash_attention",
        "aten::_scaled_dot_product_efficient_attention",
        "aten::_scaled_dot_product_cudnn_attention",
        "aten::_flash_attention_forward",
        "aten::_efficient_attention_forward",
        "flash_attn::_flash_attn_varlen_forward",
    }
)


def switch(base: Any, mode: Mode) -> tuple[nn.Module, ...]:
    """Sets the layers of `base` (a transformers model) to `mode`; returns those that will run again.

    A layer runs again only in a pass in which it is marked as training (`layer.training`). Raises ModelError where the
    architecture has no layers of transformers' checkpointing kind.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = tuple(module for module in base.modules() if isinstance(module, GradientCheckpointingLayer))
    if mode != "off" and not layers:
        raise ModelError(
            f"{type(base).__name__} does not support activation checkpointing",
            remedy="Set engine.checkpointing = off and, if memory is short, a smaller engine.pack_tokens.",
        )
    options: dict[str, Any] = {"use_reentrant": False}
    if mode == "selective":
        options["context_fn"] = partial(create_selective_checkpoint_contexts, _kept)
    for layer in layers:
        # what transformers' own switch sets; that one would also make the embedding's output ask for a gradient
        layer.gradient_checkpointing = mode != "off"
        layer._gradient_checkpointing_func = partial(checkpoint, **options)
    return layers if mode != "off" else ()


def _kept(_context: Any, operation: Any, *arguments: Any, **_named: Any) -> CheckpointPolicy:
    name = operation.name() if hasattr(operation, "name") else ""
    if name in _ATTENTION:
        return CheckpointPolicy.MUST_SAVE
    if name in _PRODUCTS and arguments[_PRODUCTS[name]].shape[-1] > NARROW:
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE
