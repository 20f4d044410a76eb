"""What screening and shrinking saved: measured shares of work left out, and an estimate of the time a dense run takes.

No run is done twice, so the time of the dense run is always an estimate, and says what it is made from:
  measured     steps of this same run that left nothing out and did nothing twice give seconds a token; the median of
               them, times all tokens, is the dense time. The first step of a run warms up and counts only where it is
               the only one.
  cost model   no step was dense. Counted on response tokens alone, a pass forward costs 1 and one backward 2, so a
               token costs 3 − 2·(backward skipped) − (not computed at all) + (computed twice) where dense costs 3.
               Prompts are left out of the count, and they are skipped less: an upper bound of what was saved.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

Method = Literal["measured", "cost model", "unknown"]
SHARES = ("skipped_backward", "skipped_forward", "promoted")


@dataclass(frozen=True, slots=True)
class Saving:
    """`seconds`: the steps as they were, saving and evaluating left out; `dense_seconds`: the estimate of the same
    steps dense, None where the rows cannot tell; `tokens_per_second` and `dense_tokens_per_second`: the steps' speeds,
    the latter only where it was measured, on `n_dense_steps` steps.
    """

    method: Method
    seconds: float | None
    dense_seconds: float | None
    tokens_per_second: float | None
    dense_tokens_per_second: float | None
    n_dense_steps: int

    @property
    def share(self) -> float | None:
        """Of the dense time; negative where screening cost more than it saved."""
        if self.seconds is None or not self.dense_seconds:
            return None
        return 1 - self.seconds / self.dense_seconds

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"share": self.share}


def saving(metrics_rows: Sequence[Mapping[str, Any]]) -> Saving:
    """The estimate from `metrics.jsonl` rows, one an optimizer step, in step order. A missing share counts as 0."""
    if not metrics_rows or not all(
        _positive(row, "tokens") and _positive(row, "tokens_per_second") for row in metrics_rows
    ):
        return Saving("unknown", None, None, None, None, 0)
    tokens_S = np.array([row["tokens"] for row in metrics_rows], dtype=np.float64)
    seconds_S = tokens_S / np.array([row["tokens_per_second"] for row in metrics_rows], dtype=np.float64)
    backward_S, forward_S, twice_S = (np.array([row.get(name) or 0.0 for row in metrics_rows]) for name in SHARES)
    tokens, seconds = float(tokens_S.sum()), float(seconds_S.sum())
    dense = np.flatnonzero((backward_S == 0) & (forward_S == 0) & (twice_S == 0))
    warm = dense[dense > 0] if len(dense) > 1 else dense
    if len(warm):
        speed = 1 / float(np.median(seconds_S[warm] / tokens_S[warm]))
        return Saving("measured", seconds, tokens / speed, tokens / seconds, speed, len(warm))
    cost = float(np.average(3 - 2 * backward_S - forward_S + twice_S, weights=tokens_S))
    return Saving("cost model", seconds, 3 * seconds / cost if cost > 0 else None, tokens / seconds, None, 0)


def _positive(row: Mapping[str, Any], name: str) -> bool:
    value = row.get(name)
    return isinstance(value, int | float) and math.isfinite(value) and value > 0
