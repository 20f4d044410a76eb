"""Which pairs make up the batch of step t: a pure function of (seed, epoch, position), with no state to save.

An epoch shows every pair exactly once, in the order of 64-bit keys drawn from Philox, a counter-based generator whose
stream numpy keeps fixed between releases (`Generator.permutation` is not: its algorithm may change). The epoch is cut
into `ceil(pairs / batch_pairs)` batches of nearly equal size, so no batch is larger than `batch_pairs` and none is a
stray remainder in which a single pair weighs as much as a whole batch elsewhere. Resuming is asking for the batch of
the next step; the world size does not enter.
"""

from __future__ import annotations

import math
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
    """The order of a whole run. `pairs` and `batch_pairs` are at least 1; `epochs` may be a fraction."""

    pairs: int
    batch_pairs: int
    epochs: float
    seed: int
    max_steps: int | None = None

    def __post_init__(self) -> None:
        assert self.pairs >= 1, "an order of no pairs"
        assert self.batch_pairs >= 1, "an empty batch"

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
        start, stop = (self.pairs * (position + at) // self.steps_per_epoch for at in (0, 1))
        return Batch(epoch, tuple(int(i) for i in permutation(self.pairs, seed=self.seed, epoch=epoch)[start:stop]))

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


@lru_cache(maxsize=2)  # a step asks for its epoch's order again
def permutation(n: int, *, seed: int, epoch: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The order of `n` pairs in one epoch, int64 [n], not to be written to."""
    key = np.array([seed % 2**64, epoch], dtype=np.uint64)
    keys: np.ndarray[Any, np.dtype[np.uint64]] = np.random.Philox(key=key).random_raw(n)
    order = np.argsort(keys, kind="stable")
    order.setflags(write=False)
    return order
