"""Token sequences that share their beginnings: every distinct beginning has one row. Pure Python.

    sequences     a b c d e      a b c x y      a b c x z
    rows          0 1 2 3 4      5 6            7
    branches      [a b c d e]    [x y] continues 3 rows of the first    [z] continues 1 row of the second

A branch is consecutive rows, each behind the one before, and stands behind some row of an earlier branch or begins
anew. So a sequence has one branch of its own at most, however much it shares, and attention costs one call a branch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

LEAST_SHARED = 16
"""Tokens of a beginning that sequences of different prompts must have in common to share it. Within a prompt one token
is enough; across prompts a few (a header of the chat template) would tie groups together that are otherwise computed
side by side. Chosen, not measured."""


class Branch(NamedTuple):
    """`n_rows` rows behind the first `n_shared` (≥ 1) of `parent`'s own rows, and so behind all that these continue.

    `parent` is an index among all branches, an earlier pack's first; None where a sequence begins.
    """

    n_rows: int
    parent: int | None = None
    n_shared: int = 0


def path(branches: Sequence[Branch], number: int) -> list[tuple[int, int]]:
    """What a branch continues, from the beginning of the sequence: (branch, how many of its rows)."""
    stretches = []
    branch = branches[number]
    while branch.parent is not None:
        stretches.append((branch.parent, branch.n_shared))
        branch = branches[branch.parent]
    return stretches[::-1]


class Trie:
    """Grows by `add`; a pure function of what was added, in that order. `ids`, `positions`: of each row."""

    def __init__(self) -> None:
        self.branches: list[Branch] = []
        self.ids: list[int] = []
        self.positions: list[int] = []
        self._starts: list[int] = []
        self._roots: dict[tuple[int, ...], int] = {}
        self._next: dict[tuple[int, int, int], int] = {}  # (branch, rows of it, token behind them) → branch

    def add(self, ids: tuple[int, ...], *, n_prompt: int) -> list[int]:
        """The row of each token of a sequence whose first `n_prompt` tokens are its prompt."""
        stretches, depth = self._walk(ids, n_prompt)
        rows = [row for number, n in stretches for row in range(self._starts[number], self._starts[number] + n)]
        if depth < len(ids):
            number, start = len(self.branches), len(self.ids)
            parent, n_shared = stretches[-1] if stretches else (None, 0)
            if parent is None:
                self._roots[_beginning(ids, n_prompt)] = number
            else:
                self._next[parent, n_shared, ids[depth]] = number
            self.branches.append(Branch(len(ids) - depth, parent, n_shared))
            self._starts.append(start)
            self.ids += ids[depth:]
            self.positions += range(depth, len(ids))
            rows += range(start, len(self.ids))
        return rows

    def n_known(self, prompt_ids: tuple[int, ...]) -> int:
        """Tokens of a prompt that have a row already."""
        return self._walk(prompt_ids, len(prompt_ids))[1]

    def _walk(self, ids: tuple[int, ...], n_prompt: int) -> tuple[list[tuple[int, int]], int]:
        """The rows of a sequence that are there, as (branch, how many of its rows), and how many they are in all."""
        stretches: list[tuple[int, int]] = []
        depth = 0
        number = self._roots.get(_beginning(ids, n_prompt))
        while number is not None:
            start = self._starts[number]
            n = _n_common(self.ids[start : start + self.branches[number].n_rows], ids[depth:])
            stretches.append((number, n))
            depth += n
            number = self._next.get((number, n, ids[depth])) if depth < len(ids) else None
        return stretches, depth


def _beginning(ids: tuple[int, ...], n_prompt: int) -> tuple[int, ...]:
    return ids[: min(n_prompt, LEAST_SHARED)]


def _n_common(a: Sequence[int], b: Sequence[int]) -> int:
    differs = (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y)
    return next(differs, min(len(a), len(b)))
