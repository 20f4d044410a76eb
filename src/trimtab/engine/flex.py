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
    """Who sees whom: a group, a branch (0 the prompt, seen by all of its group behind it) and a position a row."""

    def __init__(self, segments: Segments) -> None:
        own: list[list[int]] = [[], [], []]
        key_columns: list[list[int]] = [[-1] * segments.n_kept, [0] * segments.n_kept, [0] * segments.n_kept]
        for group, segment in enumerate(segments.segments):
            prompt = ([group] * segment.n_prompt, [0] * segment.n_prompt, list(range(segment.n_prompt)))
            for column, value in enumerate(prompt):
                if segment.prompt_at is None:
                    own[column] += value
                else:
                    key_columns[column][segment.prompt_at : segment.prompt_at + segment.n_prompt] = value
            for branch, n in enumerate(segment.lengths, start=1):
                own[0] += [group] * n
                own[1] += [branch] * n
                own[2] += range(segment.n_prompt, segment.n_prompt + n)
        self.device = segments.device
        self.asks = tuple(torch.tensor(column, device=self.device) for column in own)
        self.answers = tuple(
            torch.tensor(before + column, device=self.device) for before, column in zip(key_columns, own, strict=True)
        )
        self._blocks: dict[int | None, Any] = {}

    def blocks(self, window: int | None) -> Any:
        """The BlockMask, made once for all layers of one window."""
        if window not in self._blocks:
            from torch.nn.attention.flex_attention import create_block_mask

            shape = (None, None, len(self.asks[0]), len(self.answers[0]))
            self._blocks[window] = create_block_mask(self.sees(window), *shape, device=str(self.device))
        return self._blocks[window]

    def sees(self, window: int | None) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
        """FlexAttention's mask_mod."""
        (group_q, branch_q, position_q), (group_k, branch_k, position_k) = self.asks, self.answers

        def rule(_batch: Tensor, _head: Tensor, q: Tensor, k: Tensor) -> Tensor:
            distance = position_q[q] - position_k[k]
            visible = (group_q[q] == group_k[k]) & ((branch_k[k] == 0) | (branch_k[k] == branch_q[q])) & (distance >= 0)
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
