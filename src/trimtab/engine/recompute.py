"""Activation checkpointing: decoder layers that run once more in the backward pass, so that less is kept until then.

    off         everything that autograd wants is kept
    selective   the results of matrix products and of attention are kept; elementwise work, norms, rotations are redone
    on          only what a layer was given is kept; the whole layer is redone

`on` costs about a quarter more time for nearly all of the memory, `selective` a tenth for a third (60M shape, LOG.md);
on a CPU in fp32, where `engine.fused` keeps as little, `selective` saves nothing more. Both give the gradient of `off`
bit for bit on a CPU: the same kernels see the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any, Literal

from torch import nn
from torch.overrides import _get_current_function_mode_stack
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from trimtab.errors import ModelError

Mode = Literal["off", "selective", "on"]
MODES: tuple[Mode, ...] = ("off", "selective", "on")

NARROW = 64
"""Products over so few numbers (an adapter's way up) are cheaper to redo than to keep."""

_PRODUCTS = {
    "aten::mm": 0,
    "aten::mm.dtype": 0,
    "aten::addmm": 1,
    "aten::bmm": 0,
    "aten::baddbmm": 1,
    "mkldnn::_linear_pointwise": 0,
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
        "trimtab::blockwise_attention",
    }
)


def possible(model: nn.Module) -> bool:
    """Whether the architecture has layers of transformers' checkpointing kind."""
    return bool(_layers(model))


def switch(base: Any, mode: Mode) -> tuple[nn.Module, ...]:
    """Sets the layers of `base` (a transformers model) to `mode`; returns those that will run again.

    A layer runs again only in a pass in which it is marked as training (`layer.training`). Raises ModelError where the
    architecture has no layers of transformers' checkpointing kind.
    """
    layers = _layers(base)
    if mode != "off" and not layers:
        raise ModelError(
            f"{type(base).__name__} does not support activation checkpointing",
            remedy="Set engine.checkpointing = off and, if memory is short, a smaller engine.pack_tokens.",
        )
    func = partial(checkpoint, use_reentrant=False, context_fn=partial(_contexts, mode))
    for layer in layers:
        # what transformers' own switch sets; that one would also make the embedding's output ask for a gradient
        layer.gradient_checkpointing = mode != "off"
        layer._gradient_checkpointing_func = func
    return layers if mode != "off" else ()


def _contexts(mode: Mode) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """Around a layer's two runs. The second has torch's function modes of the first, which a backward pass called
    within such a mode runs without: the same products have to be computed by the same library."""
    first, second = _selective(_checkpoint_policy) if mode == "selective" else (nullcontext(), nullcontext())
    return first, _with_modes(second, function_modes())


# torch has no hints for these
_selective: Callable[..., Any] = create_selective_checkpoint_contexts
function_modes: Callable[[], list[Any]] = _get_current_function_mode_stack


@contextmanager
def _with_modes(inner: AbstractContextManager[Any], modes: Sequence[Any]) -> Iterator[None]:
    with ExitStack() as stack:
        for mode in modes:
            stack.enter_context(mode)
        stack.enter_context(inner)
        yield


def _layers(model: nn.Module) -> tuple[Any, ...]:
    from transformers.modeling_layers import GradientCheckpointingLayer

    return tuple(module for module in model.modules() if isinstance(module, GradientCheckpointingLayer))


def _checkpoint_policy(_context: Any, operation: Any, *arguments: Any, **_named: Any) -> CheckpointPolicy:
    name = operation.name() if hasattr(operation, "name") else ""
    if name in _ATTENTION:
        return CheckpointPolicy.MUST_SAVE
    if name in _PRODUCTS and arguments[_PRODUCTS[name]].shape[-1] > NARROW:
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE
