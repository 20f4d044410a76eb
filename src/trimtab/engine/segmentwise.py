"""Attention branch by branch through torch's scaled_dot_product_attention: on every device, for all that is asked.

How the work is cut (decided once a pack, shared by all layers):
- short trees (a branch with all that continues it and all that it continues, ≤ `SHORT` rows): those of like length are
  gathered into one [B, A, L, D] call with a mask a tree; for packs of many short groups the number of Python calls
  decides the speed, not the arithmetic;
- other branches: one call each, against what it continues and itself; on a CPU in blocks of products
  (`engine.blockwise`) where those are the faster way.

Dims: T packed tokens, K rows kept of an earlier pack, B trees computed together, L rows of the longest of them,
S keys, A heads, D head width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from trimtab.engine import blockwise, matmul
from trimtab.engine.segments import AttentionOptions, Segments

SHORT = 112
"""Rows of a tree up to which it shares a call with its like; measured on a CPU, where the two ways cross near 110."""

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
        self.calls = tuple(_plan(segments))
        self.pieces = [segments.branches[number].n_rows for number in segments.own]
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
    """Rows of some trees side by side, [B, L], with the branch and the position of each. Shorter trees repeat a row
    under branch −1, which nobody reads."""

    row_BL: Tensor
    branch_BL: Tensor
    position_BL: Tensor

    @classmethod
    def of(cls, trees: Sequence[_Columns], device: torch.device) -> _Table:
        longest = max(map(len, trees))
        padded_trees = [[*rows, *[(rows[0][0], -1, 0)] * (longest - len(rows))] for rows in trees]
        return cls(*torch.tensor(padded_trees, device=device).unbind(2))


_Columns = list[tuple[int, int, int]]  # row, branch, position


@dataclass(frozen=True, slots=True)
class _Together:
    """Short trees side by side: every row that asks, asks all rows of its tree and all that this continues."""

    asks: _Table
    answers: _Table
    below: Tensor  # `Segments.seen_below`

    @property
    def rows(self) -> list[int]:
        rows: list[int] = self.asks.row_BL.flatten().tolist()
        return rows

    def visible(self, window: int | None) -> Tensor:
        asks, answers = self.asks.branch_BL[:, :, None], self.answers.branch_BL[:, None, :]
        position_B1S = self.answers.position_BL[:, None, :]
        distance_BLS = self.asks.position_BL[:, :, None] - position_B1S
        visible_BLS = (position_B1S < self.below[asks, answers]) & (distance_BLS >= 0) & (answers >= 0)
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
    """One branch of a long tree: rows among themselves, behind what they continue.

    `before`: (piece, how many of its rows), or rows of the earlier pack, in the order of the sequence.
    """

    piece: int
    rows: range
    before: tuple[tuple[int, int] | range, ...]
    device: torch.device

    @property
    def opens(self) -> bool:
        return not self.before

    @property
    def n_before(self) -> int:
        return sum(len(part) if isinstance(part, range) else part[1] for part in self.before)

    def visible(self, window: int | None) -> Tensor:
        n_keys = self.n_before + len(self.rows)
        asks = torch.arange(self.n_before, n_keys, device=self.device)
        distance = (asks[:, None] - torch.arange(n_keys, device=self.device)[None, :])[None]
        return (distance >= 0) if window is None else (distance >= 0) & (distance < window)

    def needs_mask(self, window: int | None) -> bool:
        return not self.opens or (window is not None and len(self.rows) > window)

    def queries(self, row: _Row) -> Tensor:
        return row.pieces[self.piece].transpose(0, 1)[None]

    def keys(self, row: _Row) -> Tensor:
        if self.opens:
            return self.queries(row)
        before = [row.part(part) for part in self.before]
        return torch.cat([*before, row.pieces[self.piece]]).transpose(0, 1)[None]


class _Row:
    """Queries, keys or values of a whole pack; cut into pieces once, so that the way back is one concatenation."""

    def __init__(self, x_1ASD: Tensor, sizes: list[int], n_kept: int) -> None:
        self.all_SAD = x_1ASD[0].transpose(0, 1)  # the rows of the earlier pack, then the pack's own
        self.kept_KAD, self.own_TAD = self.all_SAD[:n_kept], self.all_SAD[n_kept:]
        self.sizes = sizes

    @cached_property
    def pieces(self) -> tuple[Tensor, ...]:
        return torch.functional.split(self.own_TAD, self.sizes)

    def part(self, part: tuple[int, int] | range) -> Tensor:
        """Rows of the earlier pack, or the first so many of a piece."""
        if isinstance(part, range):
            return self.kept_KAD[part.start : part.stop]
        piece, n = part
        return self.pieces[piece][:n] if n < self.sizes[piece] else self.pieces[piece]


def _plan(segments: Segments) -> Iterator[_Together | _Behind]:
    short_trees, branches, n_kept = _short_trees(segments), segments.branches, segments.n_kept
    length = {
        root: segments.positions[root] + sum(branches[number].n_rows for number in tree)
        for root, tree in short_trees.items()
    }
    below = segments.seen_below() if short_trees else None
    for roots in _like_length(list(length), length):
        own = [_columns(segments, [(number, segments.rows(number)) for number in short_trees[root]]) for root in roots]
        first = [_columns(segments, segments.before(root)) for root in roots]
        asks = _Table.of(own, segments.device)
        answers = _Table.of([a + b for a, b in zip(first, own, strict=True)], segments.device)
        assert below is not None
        yield _Together(asks._replace(row_BL=asks.row_BL - n_kept), answers, below)
    inside = {number for tree in short_trees.values() for number in tree}
    for piece, number in enumerate(segments.own):
        if number not in inside:
            rows = segments.rows(number)
            own_rows = range(rows.start - n_kept, rows.stop - n_kept)
            before = tuple(
                part if earlier < segments.own.start else (earlier - segments.own.start, len(part))
                for earlier, part in segments.before(number)
            )
            yield _Behind(piece, own_rows, before, segments.device)


def _short_trees(segments: Segments) -> dict[int, list[int]]:
    """Branches that are short with all that continues them and all that they continue → these and what continues them;
    of nested ones the outermost."""
    branches, n_rows = segments.branches, dict.fromkeys(segments.own, 0)
    for number in reversed(segments.own):
        branch = branches[number]
        n_rows[number] += branch.n_rows
        if branch.parent in n_rows:
            n_rows[branch.parent] += n_rows[number]
    root_of: dict[int, int] = {}
    for number in segments.own:
        parent = branches[number].parent
        if parent in root_of:
            root_of[number] = root_of[parent]
        elif segments.positions[number] + n_rows[number] <= SHORT:
            root_of[number] = number
    trees: dict[int, list[int]] = {}
    for number, root in root_of.items():
        trees.setdefault(root, []).append(number)
    return trees


def _columns(segments: Segments, parts: Sequence[tuple[int, range]]) -> _Columns:
    """Row among the keys, branch and position of rows that are given branch by branch."""
    return [
        (row, number, segments.positions[number] + row - segments.starts[number])
        for number, rows in parts
        for row in rows
    ]


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
