"""What a pack's attention is told: the layout, what the layer asks for, and the shape of a way to compute it.

Dims: T packed tokens, K rows kept of an earlier pack, A heads, G key heads, D head width.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from trimtab.engine.trie import Branch, path

T = TypeVar("T")


class KeyValues:
    """Keys and values of a pack, one entry an attention call, for responses that are computed behind its rows.

    They are the very tensors that the backward pass keeps, and part of its graph: what is computed behind them with
    gradients enabled teaches the earlier pack too.
    """

    def __init__(self, branches: Sequence[Branch]) -> None:
        self.branches = tuple(branches)
        self.calls: list[tuple[Tensor, Tensor]] = []


class Segments:
    """The layout of one pack as attention needs it. Built once a pack, then shared by every layer.

    `branches`: the pack's own; `behind`: of the earlier pack that they may continue. While `keeping` is set, keys and
    values are kept in it. `ways`: in what order ways to compute it are asked; all that there are, if empty. Such an
    object serves one forward pass: it counts the attention calls.
    """

    def __init__(
        self,
        branches: Sequence[Branch],
        *,
        device: torch.device | str,
        behind: KeyValues | None = None,
        ways: Sequence[Way] = (),
    ) -> None:
        earlier = () if behind is None else behind.branches
        self.branches = (*earlier, *branches)
        self.own = range(len(earlier), len(self.branches))
        self.device = torch.device(device)
        self.keeping: KeyValues | None = None
        self.ways = tuple(ways)
        self._behind = behind
        self._calls_done = 0
        self._derived: dict[Callable[[Segments], Any], Any] = {}
        # of each branch: its first row among the keys, the earlier pack's first, and the position of that row
        self.starts = tuple(itertools.accumulate((branch.n_rows for branch in self.branches), initial=0))[:-1]
        positions: list[int] = []
        for branch in self.branches:
            positions.append(0 if branch.parent is None else positions[branch.parent] + branch.n_shared)
        self.positions = tuple(positions)

    @property
    def n_kept(self) -> int:
        """Rows of the earlier pack: they come before this pack's own among the keys."""
        return sum(branch.n_rows for branch in self.branches[: self.own.start])

    def rows(self, number: int) -> range:
        """The rows of a branch among the keys."""
        return range(self.starts[number], self.starts[number] + self.branches[number].n_rows)

    def before(self, number: int) -> list[tuple[int, range]]:
        """What a branch continues, from the beginning of the sequence: (branch, its rows among the keys)."""
        return [(earlier, self.rows(earlier)[:n]) for earlier, n in path(self.branches, number)]

    def seen_below(self) -> Tensor:
        """[b, c]: below which position a row of branch b sees rows of branch c, if they are not behind it; int64, all
        branches, of which the earlier pack's ask nothing."""
        below = torch.zeros(len(self.branches), len(self.branches), dtype=torch.int64)
        for number in self.own:
            for earlier, rows in self.before(number):
                below[number, earlier] = self.positions[earlier] + len(rows)
            below[number, number] = torch.iinfo(torch.int64).max
        return below.to(self.device)

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
