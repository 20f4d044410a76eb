"""What a pack's attention is told: the layout, what the layer asks for, and the shape of a way to compute it.

Dims: T packed tokens, K rows kept of an earlier pack, A heads, G key heads, D head width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from trimtab.engine.packing import Segment

T = TypeVar("T")


class KeyValues:
    """Keys and values of a pack, one entry an attention call, for responses that are computed behind its prompts.

    They are the very tensors that the backward pass keeps, and part of its graph: what is computed behind them with
    gradients enabled teaches the earlier pack too.
    """

    def __init__(self, n_rows: int) -> None:
        self.n_rows = n_rows
        self.calls: list[tuple[Tensor, Tensor]] = []


class Segments:
    """The layout of one pack as attention needs it. Built once a pack, then shared by every layer.

    `behind`: where the prompts stand of segments that bring none. While `keeping` is set, keys and values are kept in
    it. `ways`: in what order ways to compute it are asked; all that there are, if empty. Such an object serves one
    forward pass: it counts the attention calls.
    """

    def __init__(
        self,
        segments: Sequence[Segment],
        *,
        device: torch.device | str,
        behind: KeyValues | None = None,
        ways: Sequence[Way] = (),
    ) -> None:
        self.segments = tuple(segments)
        self.device = torch.device(device)
        self.keeping: KeyValues | None = None
        self.ways = tuple(ways)
        self._behind = behind
        self._calls_done = 0
        self._derived: dict[Callable[[Segments], Any], Any] = {}

    @property
    def n_kept(self) -> int:
        """Rows of the earlier pack: they come before this pack's own among the keys."""
        return 0 if self._behind is None else self._behind.n_rows

    def earlier_key_values(self) -> tuple[Tensor, Tensor] | None:
        """Keys and values of the earlier pack in the attention call that is being made; counts the call."""
        if self._behind is None:
            return None
        self._calls_done += 1
        return self._behind.calls[self._calls_done - 1]

    def layout_for(self, make: Callable[[Segments], T]) -> T:
        """What a way makes of the layout, made once."""
        if make not in self._derived:
            self._derived[make] = make(self)
        value: T = self._derived[make]
        return value


@dataclass(frozen=True, slots=True)
class AttentionOptions:
    """What a layer asks of its attention: scores · `scale`, softcap · tanh(score / softcap), no look further back than
    `window` rows (the row itself counts), and a sink a head that takes part of the weight."""

    scale: float
    window: int | None = None
    softcap: float | None = None
    sinks_A: Tensor | None = None


class Way(Protocol):
    """One way to compute attention over a pack."""

    @property
    def name(self) -> str:
        """For people: in `plan`, in notices and in a run's versions."""

    def can(self, query: Tensor, value: Tensor, options: AttentionOptions) -> bool:
        """Whether it computes what is asked."""

    def attend(
        self, segments: Segments, query: Tensor, key: Tensor, value: Tensor, options: AttentionOptions
    ) -> Tensor:
        """Query [1, A, T, D], key and value [1, G, K + T, D], those of the earlier pack first → [1, T, A, D]."""
