"""A whole pack in one call of torch's variable-length flash attention, with unequal query and key lengths. CUDA only.

Dims: T packed tokens, A attention heads, D head width.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from trimtab.engine.packing import Segment


def flash_can(query: Tensor, value: Tensor) -> bool:
    """Whether torch's variable-length flash attention takes these (half precision, heads of one width up to 256)."""
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


class Varlen(NamedTuple):
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
    def of(cls, segments: Sequence[Segment], n_kept: int, device: torch.device) -> Varlen:
        """`n_kept` rows of an earlier pack come before this pack's own among the keys."""
        keys: list[Tensor] = []
        n_q: list[int] = []
        row = 0
        for segment in segments:
            if segment.prompt_at is None:
                prompt = torch.arange(n_kept + row, n_kept + row + segment.n_prompt)
            else:
                prompt = torch.arange(segment.prompt_at, segment.prompt_at + segment.n_prompt)
            row += segment.n_own_prompt
            for number, length in enumerate(segment.lengths):
                keys.append(torch.cat([prompt, torch.arange(n_kept + row, n_kept + row + length)]))
                n_q.append(length + (segment.n_own_prompt if number == 0 else 0))
                row += length
        n_k = [len(rows) for rows in keys]
        cu_q, cu_k = (torch.tensor([0, *itertools.accumulate(n)], dtype=torch.int32, device=device) for n in (n_q, n_k))
        return cls(torch.cat(keys).to(device), cu_q, cu_k, max(n_q), max(n_k))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, *, scale: float, window: int | None) -> Tensor:
        """Query [1, A, T, D], key and value [1, A_kv, T, D] → [1, T, A, D]; `window` counts the row itself."""
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
