"""Attention over a pack, through transformers' attention interface: no model code is copied or patched.

A function is registered under `PACKED`; no mask function is registered beside it, so the mask arrives as None and the
layout travels as the keyword `segments=Segments(...)` through the model's own forward. Every row sees what its branch
continues and its branch up to itself, and nothing else. What it continues may stand in a pack that was computed before
(`KeyValues`): then only what is new costs rows.

There are several ways to compute it (`ways_for`), all to the same numbers; the scorer's self-check tries them in order.
Sliding windows, score soft-capping and attention sinks are honoured; anything else a family passes that would change
the numbers (a position bias, dropout, a ready-made mask) is refused by name.

Dims: T packed tokens, K rows kept of an earlier pack, A heads, G key heads, D head width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_utils import AttentionInterface

from trimtab.engine.flex import Flex
from trimtab.engine.fused import Fusion
from trimtab.engine.segments import AttentionOptions, KeyValues, Segments, Way
from trimtab.engine.segmentwise import Segmentwise
from trimtab.engine.trie import Branch
from trimtab.engine.varlen import FlashAttention, TorchVarlen

__all__ = [
    "PACKED",
    "KeyValues",
    "PackedAttentionError",
    "Segments",
    "Way",
    "first_line",
    "packed_attention",
    "packed_attention_in",
    "ways_for",
    "why_no_gradient",
]

PACKED = "trimtab_packed"

_GRADIENT_GAP = 0.03
"""Of a gradient's size; two half-precision kernels differ by less than 0.01."""


class PackedAttentionError(NotImplementedError):
    """The packed path cannot compute what this model asks for; the caller falls back to the padded path."""


def ways_for(device: torch.device, dtype: torch.dtype) -> tuple[Way, ...]:
    """The ways that this machine has, the fastest first. The last one computes whatever is asked."""
    if device.type == "cuda" and dtype in (torch.float16, torch.bfloat16):
        faster: tuple[FlashAttention | TorchVarlen | Flex, ...] = (FlashAttention(), TorchVarlen(), Flex())
        return (*(way for way in faster if way.is_installed), Segmentwise())
    return (Segmentwise(),)


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    segments: Segments | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **extra: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface: query [1, A, T, D], key and value [1, G, T, D] → [1, T, A, D].

    Raises PackedAttentionError, naming the argument, for what it does not honour.
    """
    _refuse_unknown(module, attention_mask, segments, dropout, extra)
    assert segments is not None
    options = AttentionOptions(query.shape[-1] ** -0.5 if scaling is None else scaling, sliding_window, softcap, s_aux)
    if segments.keeping is not None:
        segments.keeping.calls.append((key, value))
    if (earlier := segments.earlier_key_values()) is not None:
        key, value = torch.cat([earlier[0], key], dim=2), torch.cat([earlier[1], value], dim=2)
    ways = segments.ways or ways_for(query.device, query.dtype)
    way = next(way for way in ways if way.can(query, value, options))
    return way.attend(segments, query, key, value, options), None


def why_no_gradient(way: Way, config: Any, *, device: torch.device, dtype: torch.dtype) -> str:
    """Why a way's gradients cannot be used, in one line; empty where they are those of `Segmentwise`.

    `config`: of a transformers text model, for its heads. The scorer's self-check compares numbers alone, and a kernel
    may still fail, or fail to agree, on the way back.
    """
    heads = int(config.num_attention_heads)
    width = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    key_heads = int(getattr(config, "num_key_value_heads", None) or heads)
    try:
        gradients = _gradients(way, heads, key_heads, width, device, dtype)
        plain_gradients = _gradients(Segmentwise(), heads, key_heads, width, device, dtype)
    except Exception as error:  # whatever a kernel raises, another way still works
        return first_line(error)
    gap = max(float((a - b).norm() / b.norm()) for a, b in zip(gradients, plain_gradients, strict=True))
    return "" if gap <= _GRADIENT_GAP else f"its gradients are off by {gap:.1e} of their size"


def _gradients(
    way: Way, heads: int, key_heads: int, width: int, device: torch.device, dtype: torch.dtype
) -> list[Tensor]:
    """Of random queries, keys and values of a small pack."""
    layout = [Branch(160), Branch(40, 0, 70), Branch(33, 1, 20), Branch(90)]
    rows = sum(branch.n_rows for branch in layout)
    draw = partial(torch.randn, generator=torch.Generator().manual_seed(0))
    q, k, v = (draw(1, n, rows, width).to(device, dtype).requires_grad_() for n in (heads, key_heads, key_heads))
    upstream = draw(1, rows, heads, width).to(device, dtype)
    with torch.enable_grad():
        out = way.attend(Segments(layout, device=device), q, k, v, AttentionOptions(width**-0.5))
        return [x.float() for x in torch.autograd.grad(out, (q, k, v), upstream)]


def first_line(error: Exception) -> str:
    """Of what it says, or its name."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _refuse_unknown(
    module: torch.nn.Module,
    attention_mask: Tensor | None,
    segments: Segments | None,
    dropout: float,
    extra: dict[str, Any],
) -> None:
    layer = type(module).__name__
    if segments is None:
        raise PackedAttentionError(f"{layer} does not hand the segment layout to its attention")
    if attention_mask is not None:
        raise PackedAttentionError(f"{layer} brings an attention mask of its own")
    if dropout:
        raise PackedAttentionError(f"{layer} asks for attention dropout {dropout}")
    if extra.get("position_bias") is not None:
        raise PackedAttentionError(f"{layer} adds a position bias to its scores")
    if extra.get("is_causal") is False or getattr(module, "is_causal", True) is False:
        raise PackedAttentionError(f"{layer} is not causal")


# --- switching a model over and back -----------------------------------------------------------------------------


@contextmanager
def packed_attention_in(model: Any, fusion: Fusion | None = None) -> Iterator[None]:
    """Within, `model` (a transformers model, not a PEFT wrapper) attends through `PACKED`; after, as it did before.

    What lies between its products is computed by `fusion`, if there is one.
    Raises PackedAttentionError where the model's attention does not go through transformers' interface.
    """
    before = model.config._attn_implementation
    if before == PACKED:
        yield
        return
    AttentionInterface.register(PACKED, packed_attention)
    with _without_advice():
        model.set_attn_implementation(PACKED)
    if model.config._attn_implementation != PACKED:
        raise PackedAttentionError(f"{type(model).__name__} does not use transformers' attention interface")
    try:
        with fusion.active() if fusion else nullcontext():
            yield
    finally:
        model.set_attn_implementation(before)


@contextmanager
def _without_advice() -> Iterator[None]:
    """transformers logs a warning where a model cannot switch; we say it in our own words."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
