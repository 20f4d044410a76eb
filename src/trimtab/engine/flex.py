"""A whole pack in one call of torch's FlexAttention: the layout as a rule about two rows, blocks of which are skipped.

Compiled on CUDA. On a CPU it runs uncompiled, slowly, which is how the rule is tested.

Dims: T packed tokens, K rows kept of an earlier pack, A heads, G key heads, D head width.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from trimtab.engine.segments import AttentionOptions, Segments


class Flex:
    """torch.nn.attention.flex_attention."""

    name = "FlexAttention"

    @property
    def is_installed(self) -> bool:
        return find_spec("torch.nn.attention.flex_attention") is not None and find_spec("triton") is not None

    def can(self, query: Tensor, value: Tensor, options: AttentionOptions) -> bool:
        return options.sinks_A is None and query.shape[-1] == value.shape[-1]

    def attend(
        self, segments: Segments, query: Tensor, key: Tensor, value: Tensor, options: AttentionOptions
    ) -> Tensor:
        out: Tensor = _kernel(query.device.type)(
            query,
            key,
            value,
            score_mod=None if options.softcap is None else _softcap_scores(options.softcap),
            block_mask=segments.layout_for(Rule).blocks(options.window),
            scale=options.scale,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        return out.transpose(1, 2)


class Rule:
    """Who sees whom: a branch and a position a row, and up to which position each branch sees each other."""

    def __init__(self, segments: Segments) -> None:
        self.device = segments.device
        self.below = segments.seen_below()
        columns = [
            (number, position)
            for number, (branch, first) in enumerate(zip(segments.branches, segments.positions, strict=True))
            for position in range(first, first + branch.n_rows)
        ]
        self.branch_S, self.position_S = torch.tensor(columns, device=self.device).unbind(1)
        self.n_kept = segments.n_kept
        self._blocks: dict[int | None, Any] = {}

    def blocks(self, window: int | None) -> Any:
        """The BlockMask, made once for all layers of one window."""
        if window not in self._blocks:
            from torch.nn.attention.flex_attention import create_block_mask

            shape = (None, None, len(self.position_S) - self.n_kept, len(self.position_S))
            self._blocks[window] = create_block_mask(self.sees(window), *shape, device=str(self.device))
        return self._blocks[window]

    def sees(self, window: int | None) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
        """FlexAttention's mask_mod."""
        below, branch_k, position_k = self.below, self.branch_S, self.position_S
        branch_q, position_q = branch_k[self.n_kept :], position_k[self.n_kept :]

        def rule(_batch: Tensor, _head: Tensor, q: Tensor, k: Tensor) -> Tensor:
            distance = position_q[q] - position_k[k]
            visible = (position_k[k] < below[branch_q[q], branch_k[k]]) & (distance >= 0)
            return visible if window is None else visible & (distance < window)

        return rule


@cache
def _softcap_scores(softcap: float) -> Callable[..., Tensor]:
    def cap(score: Tensor, _batch: Tensor, _head: Tensor, _q: Tensor, _k: Tensor) -> Tensor:
        return softcap * torch.tanh(score / softcap)

    return cap


@cache
def _kernel(device_type: str) -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True) if device_type == "cuda" else flex_attention
