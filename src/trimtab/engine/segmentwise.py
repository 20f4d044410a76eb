"""Attention segment by segment through torch's scaled_dot_product_attention: on every device, for all that is asked.

How the work is cut (decided once a pack, shared by all layers):
- short groups (≤ `SHORT` rows): groups of like length are gathered into one [B, A, L, D] call with a mask a group;
  for packs of many short groups the number of Python calls decides the speed, not the arithmetic;
- long groups: one call for prompt + first response (causal), one for every further response against its own keys; on a
  CPU in blocks of products (`engine.blockwise`) where those are the faster way.

Dims: T packed tokens, K rows kept of an earlier pack, B groups computed together, L rows of the longest of them,
S keys, A heads, D head width.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from trimtab.engine import blockwise, matmul
from trimtab.engine.packing import Segment
from trimtab.engine.segments import AttentionOptions, Segments

SHORT = 112
"""Rows of a group up to which it shares a call with its like; measured on a CPU, where the two ways cross near 110."""

_LIKE_LENGTH = 0.7  # of the longest in a call: shorter ones would be padding for a third and more


class Segmentwise:
    """The way that is always there."""

    @property
    def name(self) -> str:
        return "SDPA per segment, long ones in blocks of oneDNN products" if matmul.in_use() else "SDPA per segment"

    def can(self, query: Tensor, value: Tensor, options: AttentionOptions) -> bool:  # noqa: ARG002  # the others have limits
        return True

    def attend(
        self, segments: Segments, query: Tensor, key: Tensor, value: Tensor, options: AttentionOptions
    ) -> Tensor:
        plan = segments.layout_for(AttentionCalls)
        q_row = _Row(query, plan.pieces, 0)
        k_row, v_row = (_Row(x, plan.pieces, segments.n_kept) for x in (key, value))
        out = []
        for number, call in enumerate(plan.calls):
            q, k, v = call.queries(q_row), call.keys(k_row), call.keys(v_row)
            out.append(_attend_call(plan, number, q, k, v, options).transpose(1, 2).flatten(0, 1))
        out_TAD = torch.cat(out)
        if plan.place_T is not None:
            out_TAD = out_TAD.index_select(0, plan.place_T)
        return out_TAD[None]


class AttentionCalls:
    """A pack's layout as calls."""

    def __init__(self, segments: Segments) -> None:
        self.device = segments.device
        self.calls = tuple(_plan(segments.segments, segments.n_kept, segments.device))
        # rows of the consecutive pieces that calls about long groups read whole: prompt + first response, others
        self.pieces = [
            n
            for segment in segments.segments
            for n in (segment.n_own_prompt + segment.lengths[0], *segment.lengths[1:])
        ]
        self._masks: dict[tuple[int, int | None, torch.dtype], Tensor] = {}

    @cached_property
    def place_T(self) -> Tensor | None:
        """For every packed row, where its output stands among the outputs of all calls; None if it is in order."""
        if all(isinstance(call, _Behind) for call in self.calls):
            return None
        order = torch.tensor([row for call in self.calls for row in call.rows])
        # The smallest place is the row's own; later ones are its repetitions as padding.
        places = torch.full((sum(self.pieces),), len(order))
        return places.scatter_reduce_(0, order, torch.arange(len(order)), "amin").to(self.device)

    def mask(self, number: int, *, window: int | None, dtype: torch.dtype) -> Tensor:
        """Additive mask [B or 1, 1, L, S] of call `number`: 0 where a row may look, −inf elsewhere."""
        key = (number, window, dtype)
        if key not in self._masks:
            invisible = ~self.calls[number].visible(window)[:, None]
            mask = torch.zeros(invisible.shape, dtype=dtype, device=self.device)
            self._masks[key] = mask.masked_fill_(invisible, float("-inf"))
        return self._masks[key]


def _attend_call(
    plan: AttentionCalls, number: int, q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions
) -> Tensor:
    call, plain = plan.calls[number], options.softcap is None and options.sinks_A is None
    if plain and isinstance(call, _Behind) and blockwise.suits(q, k, v):
        return blockwise.attend(q, k, v, scale=options.scale, window=options.window)
    use_mask = not plain or call.needs_mask(options.window)
    mask = plan.mask(number, window=options.window, dtype=q.dtype) if use_mask else None
    if plain:
        return _fused_attention(q, k, v, mask, options.scale)
    return _spelled_out(q, k, v, mask, options)


class _Table(NamedTuple):
    """Rows of some groups side by side, [B, L]. Shorter groups repeat their first row.

    Branch 0 is a prompt, seen by all rows of its group behind it, b ≥ 1 a response, −1 a repetition that nobody reads.
    """

    row_BL: Tensor
    position_BL: Tensor
    branch_BL: Tensor

    @classmethod
    def of(cls, groups: Sequence[_Columns], device: torch.device) -> _Table:
        longest = max(len(rows) for rows, _, _ in groups)

        def table(column: int, spare: Callable[[list[int]], int]) -> Tensor:
            padded_rows = [group[column] + [spare(group[column])] * (longest - len(group[column])) for group in groups]
            return torch.tensor(padded_rows, device=device)

        return cls(table(0, lambda rows: rows[0]), table(1, lambda _: 0), table(2, lambda _: -1))


@dataclass(frozen=True, slots=True)
class _Together:
    """Short groups side by side: every row that asks, asks all rows of its group."""

    asks: _Table
    answers: _Table

    @property
    def rows(self) -> list[int]:
        rows: list[int] = self.asks.row_BL.flatten().tolist()
        return rows

    def visible(self, window: int | None) -> Tensor:
        distance_BLS = self.asks.position_BL[:, :, None] - self.answers.position_BL[:, None, :]
        asks, answers = self.asks.branch_BL[:, :, None], self.answers.branch_BL[:, None, :]
        visible_BLS = (distance_BLS >= 0) & ((asks == answers) | (answers == 0))
        if window is not None:
            visible_BLS &= distance_BLS < window
        return visible_BLS | (asks == -1)  # a repetition sees everything, so that its softmax is finite

    def needs_mask(self, window: int | None) -> bool:  # noqa: ARG002  # one way to ask both kinds of call
        return True

    def queries(self, row: _Row) -> Tensor:
        return _gather(row.own_TAD, self.asks.row_BL)

    def keys(self, row: _Row) -> Tensor:
        return _gather(row.all_SAD, self.answers.row_BL)


def _gather(x_TAD: Tensor, row_BL: Tensor) -> Tensor:
    return x_TAD.index_select(0, row_BL.flatten()).view(*row_BL.shape, *x_TAD.shape[1:]).transpose(1, 2)


@dataclass(frozen=True, slots=True)
class _Behind:
    """One piece of a long group: prompt + first response among themselves, or a further response behind its prompt.

    `prompt_piece` is the piece that the prompt begins; None where it stands in the earlier pack, from `prompt_row` on.
    """

    piece: int
    first_row: int
    n_rows: int
    prompt_piece: int | None
    prompt_row: int
    n_prompt: int
    device: torch.device

    @property
    def rows(self) -> range:
        return range(self.first_row, self.first_row + self.n_rows)

    @property
    def opens(self) -> bool:
        return self.piece == self.prompt_piece

    def visible(self, window: int | None) -> Tensor:
        n_keys = self.n_rows if self.opens else self.n_prompt + self.n_rows
        asks = torch.arange(n_keys - self.n_rows, n_keys, device=self.device)
        distance = (asks[:, None] - torch.arange(n_keys, device=self.device)[None, :])[None]
        return (distance >= 0) if window is None else (distance >= 0) & (distance < window)

    def needs_mask(self, window: int | None) -> bool:
        return not self.opens or (window is not None and self.n_rows > window)

    def queries(self, row: _Row) -> Tensor:
        return row.pieces[self.piece].transpose(0, 1)[None]

    def keys(self, row: _Row) -> Tensor:
        if self.opens:
            return self.queries(row)
        holder = row.kept_KAD if self.prompt_piece is None else row.pieces[self.prompt_piece]
        prompt = holder[self.prompt_row : self.prompt_row + self.n_prompt]
        return torch.cat([prompt, row.pieces[self.piece]]).transpose(0, 1)[None]


class _Row:
    """Queries, keys or values of a whole pack; cut into pieces once, so that the way back is one concatenation."""

    def __init__(self, x_1ASD: Tensor, sizes: list[int], n_kept: int) -> None:
        self.all_SAD = x_1ASD[0].transpose(0, 1)  # the rows of the earlier pack, then the pack's own
        self.kept_KAD, self.own_TAD = self.all_SAD[:n_kept], self.all_SAD[n_kept:]
        self.sizes = sizes

    @cached_property
    def pieces(self) -> tuple[Tensor, ...]:
        return torch.functional.split(self.own_TAD, self.sizes)


def _plan(segments: Sequence[Segment], n_kept: int, device: torch.device) -> Iterator[_Together | _Behind]:
    starts = [0, *itertools.accumulate(segment.n_rows for segment in segments)]
    length = {i: segment.n_prompt + sum(segment.lengths) for i, segment in enumerate(segments)}
    for members in _like_length([i for i in length if length[i] <= SHORT], length):
        yield _side_by_side([(starts[i], segments[i]) for i in members], n_kept, device)
    piece = 0
    for i, segment in enumerate(segments):
        sizes = (segment.n_own_prompt + segment.lengths[0], *segment.lengths[1:])
        if length[i] > SHORT:
            row = starts[i]
            apart = segment.prompt_at is not None
            for number, n in enumerate(sizes):
                holder = None if apart else piece
                yield _Behind(piece + number, row, n, holder, segment.prompt_at or 0, segment.n_prompt, device)
                row += n
        piece += len(sizes)


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


_Columns = tuple[list[int], list[int], list[int]]


def _side_by_side(groups: Sequence[tuple[int, Segment]], n_kept: int, device: torch.device) -> _Together:
    prompts, responses = zip(*(_columns(start, segment) for start, segment in groups), strict=True)
    apart = [segment.prompt_at is not None for _, segment in groups]
    own = [_concatenate(p, r) if not a else r for p, r, a in zip(prompts, responses, apart, strict=True)]
    columns = [
        _concatenate((p[0] if a else [n_kept + row for row in p[0]], *p[1:]), ([n_kept + row for row in r[0]], *r[1:]))
        for p, r, a in zip(prompts, responses, apart, strict=True)
    ]
    return _Together(_Table.of(own, device), _Table.of(columns, device))


def _columns(start: int, segment: Segment) -> tuple[_Columns, _Columns]:
    """Row, position and branch of a prompt and of its responses. The prompt's rows are the earlier pack's if it is
    there, all others this pack's own."""
    prompt = segment.n_prompt
    at = start if segment.prompt_at is None else segment.prompt_at
    first = start + segment.n_own_prompt
    rows = list(range(first, first + sum(segment.lengths)))
    positions = [prompt + i for n in segment.lengths for i in range(n)]
    branches = [number for number, n in enumerate(segment.lengths, start=1) for _ in range(n)]
    return (list(range(at, at + prompt)), list(range(prompt)), [0] * prompt), (rows, positions, branches)


def _concatenate(first: _Columns, second: _Columns) -> _Columns:
    return first[0] + second[0], first[1] + second[1], first[2] + second[2]


def _fused_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    is_grouped = q.shape[1] != k.shape[1]
    if is_grouped and q.device.type != "cpu":  # a mask and grouped heads together leave the fast kernels there
        k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
        is_grouped = False
    return scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=is_grouped
    )


def _spelled_out(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, options: AttentionOptions) -> Tensor:
    """Scores in the open, for what fused kernels do not take: soft-capping (Gemma-2) and sinks (gpt-oss)."""
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    scores = q @ k.transpose(2, 3) * options.scale
    if options.softcap is not None:
        scores = options.softcap * torch.tanh(scores / options.softcap)
    if mask is not None:
        scores = scores + mask
    if options.sinks_A is not None:
        sink = options.sinks_A.to(scores.dtype).view(1, -1, 1, 1).expand(*scores.shape[:3], 1)
        scores = torch.cat([scores, sink], dim=-1)
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(q.dtype)
    return weights[..., : k.shape[2]] @ v
