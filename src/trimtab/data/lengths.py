"""Lengths of prompts and responses, and how much of the preference they alone explain. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

Lengths = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LengthSummary:
    """Median, mean, 95th percentile (linear interpolation) and maximum of one list of lengths."""

    median: float
    mean: float
    p95: float
    maximum: int

    def to_json(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class LengthBias:
    """How chosen and rejected differ in length.

    `chosen_longer` and `same_length` are shares of pairs, None of unpaired rows, whose good ones count as chosen.
    `cohens_d` is (mean chosen − mean rejected) over the pooled standard deviation √((s₁² + s₂²)/2), ddof 1; `auc` is
    the chance that a chosen response, drawn at random, is longer than a rejected one, ties counted half
    (Mann–Whitney). Without bias: ½ and 0 and ½. `cohens_d` is None where it is not defined (fewer than two responses on
    a side, or no spread in lengths).
    """

    chosen_longer: float | None
    same_length: float | None
    cohens_d: float | None
    auc: float

    def to_json(self) -> dict[str, float | None]:
        return asdict(self)


def summarise(lengths: Sequence[int] | Lengths) -> LengthSummary:
    """Summary of at least one length."""
    values = np.asarray(lengths, dtype=np.int64)
    return LengthSummary(
        float(np.median(values)), float(values.mean()), float(np.percentile(values, 95)), int(values.max())
    )


def length_bias(
    chosen: Sequence[int] | Lengths, rejected: Sequence[int] | Lengths, *, paired: bool = True
) -> LengthBias:
    """Bias of at least one pair, the two lists parallel; or of at least one good and one bad row."""
    c, r = np.asarray(chosen, dtype=np.int64), np.asarray(rejected, dtype=np.int64)
    longer, same = (float((c > r).mean()), float((c == r).mean())) if paired else (None, None)
    return LengthBias(longer, same, _cohens_d(c, r), _auc(c, r))


def _cohens_d(c: Lengths, r: Lengths) -> float | None:
    if min(len(c), len(r)) < 2:
        return None
    pooled_deviation = float(np.sqrt((c.var(ddof=1) + r.var(ddof=1)) / 2))
    return float(c.mean() - r.mean()) / pooled_deviation if pooled_deviation > 0 else None


def _auc(c: Lengths, r: Lengths) -> float:
    sorted_r = np.sort(r)
    below = np.searchsorted(sorted_r, c, side="left")
    not_above = np.searchsorted(sorted_r, c, side="right")
    return float((below + not_above).sum()) / (2 * len(c) * len(r))
