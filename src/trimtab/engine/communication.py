"""What several processes send each other, keep, and take, by arithmetic.

Once a step, whatever was computed, screened or left out (Rajbhandari et al. 2020, ZeRO, §7.2; N processes):

    none       all-reduce of the gradients                               2 (N − 1)/N · G bytes sent by each
    optimizer  that, and each parameter stepped goes to the others       2 (N − 1)/N · G + (N − 1)/N · W
    gradients  reduce-scatter of the gradients, all-gather of weights    (N − 1)/N · (G + W)

G and W are bytes of gradients and of trainable weights. What is kept between steps: moments (and fp32 copies) whole or
an Nth of them. Under `gradients` weights and gradients are whole while a batch is computed, and a slice is kept beside.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, assert_never

from trimtab.engine.processes import Shard


@dataclass(frozen=True, slots=True)
class ProcessPlan:
    """Of each of `size` processes: tokens a step, bytes sent a step, bytes at the peak; and seconds of all training
    without what links take."""

    size: int
    shard: Shard
    tokens_a_step: float
    bytes_a_step: int
    peak_bytes: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def sent_bytes(shard: Shard, *, gradients: int, weights: int, size: int) -> int:
    """Bytes that each process sends in a step; the fp32 of narrow gradients is up to the caller."""
    share = (size - 1) / size
    match shard:
        case "none":
            return round(2 * share * gradients)
        case "optimizer":
            return round(share * (2 * gradients + weights))
        case "gradients":
            return round(share * (gradients + weights))
        case _:
            assert_never(shard)


def saved_bytes(shard: Shard, *, optimizer: int, gradients: int, weights: int, size: int) -> int:
    """Bytes that a process holds less at its peak than one that trains alone; below zero where slices and the buffer of
    a reduce-scatter take more than the moments free."""
    if shard == "none":
        return 0
    moments = optimizer - optimizer // size
    return moments if shard == "optimizer" else moments - weights // size - gradients


def seconds_a_step(*, compute: float, imbalance: float, traffic: int, link: float, size: int) -> float:
    """`compute`: of one process alone; `imbalance`: by how much the fullest share exceeds the mean; `link`: bytes that
    a process sends a second. Nothing is sent while the batch is computed, so the two add up."""
    return compute / size * (1 + imbalance) + traffic / link
