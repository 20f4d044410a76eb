"""Attention over a pack, through transformers' attention interface: no model code is copied or patched.

A function is registered under `PACKED`; no mask function is registered beside it, so the mask arrives as None and the
layout travels as the keyword `segments=Segments(...)` through the model's own forward. Every response sees its prompt
and itself; nothing sees another group.

Dims: T packed tokens, B groups computed together, L rows of the longest of them, A attention heads, D head width.

How the work is cut (decided once a pack, shared by all layers):
- short groups (≤ `SHORT` rows): groups of like length are gathered into one [B, A, L, D] call with a mask a group;
  for packs of many short groups the number of Python calls decides the speed, not the arithmetic;
- long groups: one call for prompt + first response (causal), one for every further response against its own keys;
- CUDA in half precision: one variable-length flash call for the whole pack, with unequal query and key lengths.

Sliding windows, score soft-capping and attention sinks are honoured; anything else a family passes that would change
the numbers (a position bias, dropout, a ready-made mask) is refused by name.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers.modeling_utils import AttentionInterface

from trimtab.engine.packing import Segment

PACKED = "trimtab_packed"
SHORT = 256
_LIKE_LENGTH = 0.7


class PackedAttentionError(NotImplementedError):
    """The packed path cannot compute what this model asks for; the caller falls back to the padded path."""


class _Call(NamedTuple):
    """One attention call: which packed rows ask, which rows answer, and what each of them may see.

    rows_BL, keys_BS: row numbers. Where a group is shorter than L its first row is repeated; nobody reads those.
    *_position, *_branch: position in the sequence; 0 for what all rows of the group see, else the response's number.
    causal: rows and keys are the same and every row sees all before it, so that no mask is needed without a window.
    """

    rows_BL: Tensor
    keys_BS: Tensor
    row_position_BL: Tensor
    key_position_BS: Tensor
    row_branch_BL: Tensor
    key_branch_BS: Tensor
    causal: bool

    def visible_BLS(self, window: int | None) -> Tensor:
        distance_BLS = self.row_position_BL[:, :, None] - self.key_position_BS[:, None, :]
        other_BLS = self.row_branch_BL[:, :, None] != self.key_branch_BS[:, None, :]
        seen_BLS = (distance_BLS >= 0) & ~(other_BLS & (self.key_branch_BS[:, None, :] != 0))
        return seen_BLS if window is None else seen_BLS & (distance_BLS < window)

    def to(self, device: torch.device) -> _Call:
        *parts, causal = self
        rows, keys, row_position, key_position, row_branch, key_branch = (part.to(device) for part in parts)
        return _Call(rows, keys, row_position, key_position, row_branch, key_branch, causal)

    def needs_mask(self, window: int | None) -> bool:
        return not self.causal or (window is not None and self.keys_BS.shape[1] > window)


class Segments:
    """The layout of one pack as attention needs it. Built once a pack, then shared by every layer."""

    def __init__(self, segments: Sequence[Segment], *, device: torch.device | str) -> None:
        self.segments = tuple(segments)
        self.device = torch.device(device)
        self._masks: dict[tuple[int, int | None, torch.dtype], Tensor] = {}

    @cached_property
    def calls(self) -> tuple[_Call, ...]:
        return tuple(call.to(self.device) for call in _plan(self.segments))

    @cached_property
    def place_T(self) -> Tensor:
        """For every packed row, where its output stands among the concatenated outputs of all calls."""
        order = torch.cat([call.rows_BL.flatten() for call in self.calls]).cpu()
        n_tokens = sum(prompt + sum(lengths) for prompt, lengths in self.segments)
        # The smallest place is the row's own; later ones are its repetitions as padding.
        place_T = torch.full((n_tokens,), len(order)).scatter_reduce_(0, order, torch.arange(len(order)), "amin")
        return place_T.to(self.device)

    @cached_property
    def varlen(self) -> _Varlen:
        return _Varlen.of(self.segments, self.device)

    def mask(self, number: int, *, window: int | None, dtype: torch.dtype) -> Tensor:
        """Additive mask [B, 1, L, S] of call `number`: 0 where a row may look, −inf elsewhere."""
        key = (number, window, dtype)
        if key not in self._masks:
            hidden = ~self.calls[number].visible_BLS(window)[:, None]
            self._masks[key] = torch.zeros(hidden.shape, dtype=dtype, device=self.device).masked_fill_(
                hidden, float("-inf")
            )
        return self._masks[key]


# --- what a pack is cut into -------------------------------------------------------------------------------------


def _plan(segments: Sequence[Segment]) -> Iterator[_Call]:
    starts = [0, *itertools.accumulate(prompt + sum(lengths) for prompt, lengths in segments)]
    length = {i: starts[i + 1] - starts[i] for i in range(len(segments))}
    for members in _like_length([i for i in length if length[i] <= SHORT], length):
        yield _together([(starts[i], *segments[i]) for i in members], longest=length[members[0]])
    for i, (prompt, lengths) in enumerate(segments):
        if length[i] > SHORT:
            yield from _alone(starts[i], prompt, lengths)


def _like_length(members: Sequence[int], length: dict[int, int]) -> Iterator[list[int]]:
    """Longest first; a new bucket where a group would be padded to more than 1 / `_LIKE_LENGTH` of its length."""
    bucket: list[int] = []
    for member in sorted(members, key=lambda i: (-length[i], i)):
        if bucket and length[member] < _LIKE_LENGTH * length[bucket[0]]:
            yield bucket
            bucket = []
        bucket.append(member)
    if bucket:
        yield bucket


def _together(groups: Sequence[tuple[int, int, tuple[int, ...]]], *, longest: int) -> _Call:
    """Short groups (start, prompt length, response lengths) side by side in one call."""
    rows, positions, branches = [], [], []
    for start, prompt, lengths in groups:
        position, branch = list(range(prompt)), [0] * prompt
        for number, length in enumerate(lengths, start=1):
            position += range(prompt, prompt + length)
            branch += [number] * length
        n, spare = len(position), longest - len(position)
        rows.append([*range(start, start + n), *[start] * spare])
        positions.append(position + [0] * spare)
        branches.append(branch + [-1] * spare)  # hidden from all real rows; sees its like, so its softmax is finite
    r, p, b = torch.tensor(rows), torch.tensor(positions), torch.tensor(branches)
    return _Call(r, r, p, p, b, b, causal=False)


def _alone(start: int, prompt: int, lengths: Sequence[int]) -> Iterator[_Call]:
    """A long group: prompt and first response are one causal row; the others are short rows against long keys."""
    stop = start + prompt + lengths[0]
    rows, position = torch.arange(start, stop)[None], torch.arange(stop - start)[None]
    branch = torch.zeros_like(position)
    yield _Call(rows, rows, position, position, branch, branch, causal=True)
    for length in lengths[1:]:
        answer = torch.arange(stop, stop + length)[None]
        keys = torch.cat([rows[:, :prompt], answer], dim=1)
        position = torch.arange(prompt + length)[None]
        branch = torch.zeros_like(position)
        yield _Call(answer, keys, position[:, prompt:], position, branch[:, prompt:], branch, causal=False)
        stop += length


# --- the function that every layer calls -------------------------------------------------------------------------


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
    **passed: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface: query [1, A, T, D], key and value [1, A_kv, T, D] → [1, T, A, D].

    Raises PackedAttentionError, naming the argument, for what it does not honour.
    """
    _refuse_unknown(module, attention_mask, segments, dropout, passed)
    assert segments is not None
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if softcap is None and s_aux is None and _flash_can(query, value):
        return segments.varlen.attend(query, key, value, scale=scale, window=sliding_window), None
    q_T, k_T, v_T = (x[0].transpose(0, 1) for x in (query, key, value))
    out = []
    for number, call in enumerate(segments.calls):
        q, k, v = _rows(q_T, call.rows_BL), _rows(k_T, call.keys_BS), _rows(v_T, call.keys_BS)
        plain = softcap is None and s_aux is None
        masked = not plain or call.needs_mask(sliding_window)
        mask = segments.mask(number, window=sliding_window, dtype=query.dtype) if masked else None
        attended = _fused(q, k, v, mask, scale) if plain else _spelled_out(q, k, v, mask, scale, softcap, s_aux)
        out.append(attended.transpose(1, 2).flatten(0, 1))
    if len(out) == 1 and segments.calls[0].causal:
        return out[0][None], None
    return torch.cat(out).index_select(0, segments.place_T)[None], None


def _refuse_unknown(
    module: torch.nn.Module,
    attention_mask: Tensor | None,
    segments: Segments | None,
    dropout: float,
    passed: dict[str, Any],
) -> None:
    layer = type(module).__name__
    if segments is None:
        raise PackedAttentionError(f"{layer} does not hand the segment layout to its attention")
    if attention_mask is not None:
        raise PackedAttentionError(f"{layer} brings an attention mask of its own")
    if dropout:
        raise PackedAttentionError(f"{layer} asks for attention dropout {dropout}")
    if passed.get("position_bias") is not None:
        raise PackedAttentionError(f"{layer} adds a position bias to its scores")
    if passed.get("is_causal") is False or getattr(module, "is_causal", True) is False:
        raise PackedAttentionError(f"{layer} is not causal")


def _rows(x_TAD: Tensor, rows_BL: Tensor) -> Tensor:
    """[B, A, L, D] of the numbered rows; a view where they are one whole range."""
    B, L = rows_BL.shape
    if B == 1 and len(x_TAD) == L:
        return x_TAD.transpose(0, 1)[None]
    return x_TAD.index_select(0, rows_BL.flatten()).view(B, L, *x_TAD.shape[1:]).transpose(1, 2)


def _fused(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    grouped = q.shape[1] != k.shape[1]
    if grouped and q.device.type != "cpu":  # a mask and grouped heads together leave the fast kernels there
        k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
        grouped = False
    return scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=grouped
    )


def _spelled_out(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, softcap: float | None, sinks_A: Tensor | None
) -> Tensor:
    """Scores in the open, for what fused kernels do not take: soft-capping (Gemma-2) and sinks (gpt-oss)."""
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    scores = q @ k.transpose(2, 3) * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if mask is not None:
        scores = scores + mask
    if sinks_A is not None:
        sink = sinks_A.to(scores.dtype).view(1, -1, 1, 1).expand(*scores.shape[:3], 1)
        scores = torch.cat([scores, sink], dim=-1)
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(q.dtype)
    return weights[..., : k.shape[2]] @ v


# --- CUDA --------------------------------------------------------------------------------------------------------


def _flash_can(query: Tensor, value: Tensor) -> bool:
    return (
        query.is_cuda
        and query.dtype in (torch.float16, torch.bfloat16)
        and query.shape[-1] == value.shape[-1] <= 256
        and _varlen_attn() is not None
    )


def _varlen_attn() -> Any:
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:  # an older torch: the SDPA way computes the same
        return None
    return varlen_attn


class _Varlen(NamedTuple):
    """One flash call a pack: prompt + first response is one query row, every further response another.

    Query rows are the packed rows as they stand; keys are gathered, the prompt again for each further response.
    Flash attention aligns causal masks at the lower right, which is what a response behind its prompt needs.
    """

    keys: Tensor
    cu_q: Tensor
    cu_k: Tensor
    max_q: int
    max_k: int

    @classmethod
    def of(cls, segments: Sequence[Segment], device: torch.device) -> _Varlen:
        keys: list[Tensor] = []
        n_q: list[int] = []
        start = 0
        for prompt, lengths in segments:
            stop = start + prompt + lengths[0]
            keys.append(torch.arange(start, stop))
            n_q.append(stop - start)
            for length in lengths[1:]:
                keys.append(torch.cat([torch.arange(start, start + prompt), torch.arange(stop, stop + length)]))
                n_q.append(length)
                stop += length
            start = stop
        n_k = [len(rows) for rows in keys]
        cu_q, cu_k = (torch.tensor([0, *itertools.accumulate(n)], dtype=torch.int32, device=device) for n in (n_q, n_k))
        return cls(torch.cat(keys).to(device), cu_q, cu_k, max(n_q), max(n_k))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, *, scale: float, window: int | None) -> Tensor:
        q_T = query[0].transpose(0, 1).contiguous()
        k_T, v_T = (x[0].transpose(0, 1).index_select(0, self.keys) for x in (key, value))
        reach = (-1, 0) if window is None else (window - 1, 0)
        out: Tensor = _varlen_attn()(
            q_T,
            k_T,
            v_T,
            self.cu_q,
            self.cu_k,
            self.max_q,
            self.max_k,
            scale=scale,
            window_size=reach,
            enable_gqa=q_T.shape[1] != k_T.shape[1],
        )
        return out[None]


# --- switching a model over and back -----------------------------------------------------------------------------


@contextmanager
def packed_attention_in(model: Any) -> Iterator[None]:
    """Within, `model` (a transformers model, not a PEFT wrapper) attends through `PACKED`; after, as it did before.

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
