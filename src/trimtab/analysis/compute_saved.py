"""What screening and shrinking saved: measured shares of work left out, and an estimate of the time a dense run takes.

No run is done twice, so the time of the dense run is always an estimate, and says what it is made from. Only steps that
left something out or did something twice can have saved or cost time; all others count as they were, on both sides, and
so does the first, which warms up.
  measured     the other steps of this same run give seconds a token; their median, times the tokens of the steps that
               left something out, is the dense time of those. The interval resamples the steps of both kinds.
  cost model   no step was dense. Counted on response tokens alone, a pass forward costs 1 and one backward 2, so a
               token costs 3 − 2·(backward skipped) − (not computed at all) + (computed twice) where dense costs 3.
               Prompts are left out of the count, and they are skipped less: an upper bound of what was saved.
  nothing left out    no step left anything out: there is nothing to estimate, whatever the steps' times were.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from trimtab.analysis.intervals import FloatArray

Method = Literal["measured", "cost model", "nothing left out", "unknown"]
SHARES = ("skipped_backward", "skipped_forward", "promoted")
LEAST_STEPS = 5  # of each kind, below which resampling them says nothing of their spread
DRAWS = 2_000  # 50 in either tail


@dataclass(frozen=True, slots=True)
class Saving:
    """`seconds`: the steps as they were, saving and evaluating left out; `dense_seconds`: the estimate of the same
    steps dense, None where the rows cannot tell; `tokens_per_second` and `dense_tokens_per_second`: the steps' speeds,
    the latter only where it was measured, on `n_dense_steps` steps. `ci95`: of `share`, where it was measured on enough
    steps.
    """

    method: Method
    seconds: float | None
    dense_seconds: float | None
    tokens_per_second: float | None
    dense_tokens_per_second: float | None
    n_dense_steps: int
    ci95: tuple[float, float] | None = None

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
    acted_S = (backward_S > 0) | (forward_S > 0) | (twice_S > 0)
    if not acted_S.any():
        return Saving("nothing left out", seconds, None, tokens / seconds, None, 0)
    dense, acted = (np.flatnonzero(mask_S[1:]) + 1 for mask_S in (~acted_S, acted_S))
    if len(dense) and len(acted):
        pace_D = seconds_S[dense] / tokens_S[dense]
        median = float(np.median(pace_D))
        dense_seconds = seconds - float(seconds_S[acted].sum()) + median * float(tokens_S[acted].sum())
        ci95 = _interval(
            pace_D, tokens_S[acted], seconds_S[acted], fixed_seconds=seconds - float(seconds_S[acted].sum())
        )
        return Saving("measured", seconds, dense_seconds, tokens / seconds, 1 / median, len(dense), ci95)
    cost = float(np.average(3 - 2 * backward_S - forward_S + twice_S, weights=tokens_S))
    return Saving("cost model", seconds, 3 * seconds / cost if cost > 0 else None, tokens / seconds, None, 0)


def _interval(
    pace_D: FloatArray, tokens_A: FloatArray, seconds_A: FloatArray, *, fixed_seconds: float
) -> tuple[float, float] | None:
    """Percentile bootstrap of the share saved, over dense steps D and steps that left something out A.

    `fixed_seconds`: seconds of all steps that are not of A, the same on both sides.
    """
    if min(len(pace_D), len(tokens_A)) < LEAST_STEPS:
        return None
    draw = np.random.default_rng(0)
    shares = []
    for _ in range(DRAWS):  # one at a time: all at once would be a gigabyte for a run of fifty thousand steps
        pace = float(np.median(draw.choice(pace_D, len(pace_D))))
        rows_A = draw.integers(len(tokens_A), size=len(tokens_A))
        dense_seconds = pace * float(tokens_A[rows_A].sum())
        shares.append((dense_seconds - float(seconds_A[rows_A].sum())) / (fixed_seconds + dense_seconds))
    low, high = np.quantile(shares, (0.025, 0.975))
    return float(low), float(high)


def _positive(row: Mapping[str, Any], name: str) -> bool:
    value = row.get(name)
    return isinstance(value, int | float) and math.isfinite(value) and value > 0
