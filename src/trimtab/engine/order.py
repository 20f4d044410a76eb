"""Which pairs make up the batch of step t: a pure function of (seed, epoch, position), with no state to save.

An epoch shows every pair exactly once, in the order of 64-bit keys drawn from Philox, a counter-based generator whose
stream numpy keeps fixed between releases (`Generator.permutation` is not: its algorithm may change). The epoch is cut
into `ceil(pairs / batch_pairs)` batches of nearly equal size, so no batch is larger than `batch_pairs` and none is a
stray remainder in which a single pair weighs as much as a whole batch elsewhere. Resuming is asking for the batch of
the next step; the world size does not enter.

Where pairs go by prompt, those of a prompt (in the order of their keys) are cut into pieces of a batch, and the pieces
fill the batches of the epoch: the largest first, each into a batch drawn at random among those that it fits best. Only
what fits nowhere is cut again. So a prompt with more pairs than a batch holds is spread over the whole epoch.

Unpaired rows are good or bad, and every batch has both in the proportion of the whole, to one row: each kind in the
order of its keys, row k of n at (k + ½)/n of the epoch.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Batch:
    """The pairs of one optimizer step, as indices into the training set, in the order in which they are visited."""

    epoch: int
    indices: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Order:
    """The order of a whole run. `pairs` and `batch_pairs` are at least 1; `epochs` may be a fraction.

    `prompts`: a number for each pair's prompt, the same for the same prompt; None where pairs do not go by prompt.
    `labels`: whether each row is a good one; None where rows are pairs.
    """

    pairs: int
    batch_pairs: int
    epochs: float
    seed: int
    max_steps: int | None = None
    prompts: tuple[int, ...] | None = None
    labels: tuple[bool, ...] | None = None

    def __post_init__(self) -> None:
        assert self.pairs >= 1, "an order of no pairs"
        assert self.batch_pairs >= 1, "an empty batch"
        assert self.prompts is None or len(self.prompts) == self.pairs, "a prompt for each pair"

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.pairs / self.batch_pairs)

    @property
    def steps(self) -> int:
        """Optimizer steps of the run: a started step is a whole one, and there is at least one."""
        whole = max(1, started_steps(self.epochs, self.steps_per_epoch))
        return whole if self.max_steps is None else min(whole, self.max_steps)

    def batch(self, step: int) -> Batch:
        """The batch of 0-based `step`."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if self.prompts is not None:
            return Batch(epoch, by_prompt(self.prompts, self.steps_per_epoch, seed=self.seed, epoch=epoch)[position])
        start, stop = _bounds(self.pairs, self.steps_per_epoch, position)
        if self.labels is not None:
            return Batch(epoch, tuple(by_label(self.labels, seed=self.seed, epoch=epoch)[start:stop].tolist()))
        return Batch(epoch, tuple(int(i) for i in permutation(self.pairs, seed=self.seed, epoch=epoch)[start:stop]))

    @property
    def is_mixed(self) -> bool:
        """Whether every batch has rows of both kinds; with one seed and epoch it is so with all."""
        labels = self.labels or ()
        return all(len({labels[i] for i in self.batch(step).indices}) == 2 for step in range(self.steps_per_epoch))

    def pairs_seen(self, step: int) -> int:
        """Pairs visited once `step` optimizer steps are done."""
        epochs, position = divmod(step, self.steps_per_epoch)
        return epochs * self.pairs + self.pairs * position // self.steps_per_epoch

    def epochs_done(self, step: int) -> float:
        """Share of the data seen once `step` optimizer steps are done, in epochs."""
        return self.pairs_seen(step) / self.pairs


def started_steps(share: float, steps: int) -> int:
    """⌈share · steps⌉: a started step is a whole one. Of the warm-up, and of epochs.

    Exact in the decimal that the user wrote: .07 of 100 steps are 7, and not ⌈7.000000000000001⌉ = 8.
    """
    return math.ceil(Fraction(repr(share)) * steps)


def _bounds(pairs: int, batches: int, position: int) -> tuple[int, int]:
    """Pairs of an epoch before a batch, and with it."""
    return pairs * position // batches, pairs * (position + 1) // batches


@lru_cache(maxsize=2)  # a step asks for its epoch's order again
def permutation(n: int, *, seed: int, epoch: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The order of `n` pairs in one epoch, int64 [n], not to be written to."""
    order = np.argsort(_draw(n, seed=seed, epoch=epoch), kind="stable")
    order.setflags(write=False)
    return order


def _draw(n: int, *, seed: int, epoch: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
    key = np.array([seed % 2**64, epoch], dtype=np.uint64)
    keys: np.ndarray[Any, np.dtype[np.uint64]] = np.random.Philox(key=key).random_raw(n)
    return keys


@lru_cache(maxsize=2)
def by_label(labels: tuple[bool, ...], *, seed: int, epoch: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The order of one epoch's unpaired rows, good and bad evenly among each other."""
    order = permutation(len(labels), seed=seed, epoch=epoch)
    is_good = np.array(labels)[order]
    place = np.where(is_good, np.cumsum(is_good), np.cumsum(~is_good)) - 0.5
    share = place / np.where(is_good, is_good.sum(), (~is_good).sum())
    return order[np.lexsort((is_good, share))]


@lru_cache(maxsize=2)
def by_prompt(prompts: tuple[int, ...], batches: int, *, seed: int, epoch: int) -> tuple[tuple[int, ...], ...]:
    """The batches of one epoch, pairs of a prompt together; as large as those of `permutation` at each position."""
    n = len(prompts)
    sizes = [stop - start for start, stop in (_bounds(n, batches, position) for position in range(batches))]
    # batches by the pairs that they still hold, each list in an order drawn behind the pairs' keys
    rooms: dict[int, deque[int]] = {room: deque() for room in range(max(sizes) + 1)}
    for position in np.argsort(_draw(n + batches, seed=seed, epoch=epoch)[n:], kind="stable").tolist():
        rooms[sizes[position]].append(position)
    members: list[list[int]] = [[] for _ in range(batches)]
    pieces = deque(_pieces(prompts, min(sizes), permutation(n, seed=seed, epoch=epoch).tolist()))
    while pieces:
        piece = pieces.popleft()
        larger = (room for room in range(len(piece), max(sizes) + 1) if rooms[room])
        smaller = (room for room in range(len(piece) - 1, 0, -1) if rooms[room])
        room = next(larger, None) or next(smaller)
        position = rooms[room].popleft()
        members[position] += piece[:room]
        rooms[max(0, room - len(piece))].append(position)
        if len(piece) > room:
            pieces.appendleft(piece[room:])
    return tuple(map(tuple, members))


def _pieces(prompts: Sequence[int], most: int, order: Sequence[int]) -> list[list[int]]:
    """Pairs of each prompt in this order, at most so many in a piece; the largest pieces first."""
    pieces: list[list[int]] = []
    open_piece: dict[int, list[int]] = {}
    for pair in order:
        piece = open_piece.get(prompts[pair])
        if piece is None or len(piece) == most:
            piece = open_piece[prompts[pair]] = []
            pieces.append(piece)
        piece.append(pair)
    return sorted(pieces, key=len, reverse=True)
