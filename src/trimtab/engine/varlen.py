"""A whole pack in one call of a variable-length flash kernel, with unequal query and key lengths. CUDA only.

Every branch is one query row. Query rows are the packed rows as they stand; keys are gathered, what a branch continues
again for each. Flash kernels align causal masks at the lower right, which is what a branch behind its beginning needs.

Dims: T packed tokens, K rows kept of an earlier pack, A heads, G key heads, D head width.
"""

from __future__ import annotations

import itertools
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from trimtab.engine.segments import AttentionOptions, Segments

WIDEST = 256  # head width that flash attention's kernels take


class Rows:
    """A pack's layout as rows of queries and rows of keys: which keys, and where each row begins among them."""

    def __init__(self, segments: Segments) -> None:
        keys = [[*(rows for _, rows in segments.before(number)), segments.rows(number)] for number in segments.own]
        n_q = [segments.branches[number].n_rows for number in segments.own]
        n_k = [sum(map(len, rows)) for rows in keys]
        self.keys = torch.tensor([row for rows in keys for row in itertools.chain(*rows)], device=segments.device)
        self.cu_q, self.cu_k = (
            torch.tensor([0, *itertools.accumulate(n)], dtype=torch.int32, device=segments.device) for n in (n_q, n_k)
        )
        self.max_q, self.max_k = max(n_q), max(n_k)

    def gather(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[T, A, D] and, a row for each key of each query row, [_, G, D]."""
        k, v = (x[0].transpose(0, 1).index_select(0, self.keys) for x in (key, value))
        return query[0].transpose(0, 1).contiguous(), k, v


def _reach(window: int | None) -> tuple[int, int]:
    """Rows before and behind a row that it sees; −1: all."""
    return (-1, 0) if window is None else (window - 1, 0)


class FlashAttention:
    """The flash-attn package, 2.1 or later (earlier ones align causal masks at the upper left)."""

    name = "flash-attn"

    @property
    def is_installed(self) -> bool:
        return find_spec("flash_attn") is not None

    def can(self, query: Tensor, value: Tensor, options: AttentionOptions) -> bool:
        return options.sinks_A is None and query.shape[-1] == value.shape[-1] <= WIDEST

    def attend(
        self, segments: Segments, query: Tensor, key: Tensor, value: Tensor, options: AttentionOptions
    ) -> Tensor:
        rows = segments.layout_for(Rows)
        softcap = {} if options.softcap is None else {"softcap": options.softcap}  # since 2.6
        out: Tensor = self._kernel()(
            *rows.gather(query, key, value),
            rows.cu_q,
            rows.cu_k,
            rows.max_q,
            rows.max_k,
            softmax_scale=options.scale,
            causal=True,
            window_size=_reach(options.window),
            deterministic=torch.are_deterministic_algorithms_enabled(),
            **softcap,
        )
        return out[None]

    def _kernel(self) -> Any:
        return import_module("flash_attn").flash_attn_varlen_func


class TorchVarlen:
    """torch's own, `torch.nn.attention.varlen`."""

    name = "torch varlen_attn"

    @property
    def is_installed(self) -> bool:
        return find_spec("torch.nn.attention.varlen") is not None

    def can(self, query: Tensor, value: Tensor, options: AttentionOptions) -> bool:
        return options.sinks_A is None and options.softcap is None and query.shape[-1] == value.shape[-1] <= WIDEST

    def attend(
        self, segments: Segments, query: Tensor, key: Tensor, value: Tensor, options: AttentionOptions
    ) -> Tensor:
        rows = segments.layout_for(Rows)
        q, k, v = rows.gather(query, key, value)
        out: Tensor = self._kernel()(
            q,
            k,
            v,
            rows.cu_q,
            rows.cu_k,
            rows.max_q,
            rows.max_k,
            scale=options.scale,
            window_size=_reach(options.window),
            enable_gqa=q.shape[1] != k.shape[1],
        )
        return out[None]

    def _kernel(self) -> Any:
        from torch.nn.attention.varlen import varlen_attn

        return varlen_attn
