"""Which regime a training run was in: did its objective select responses, or did it never leave the start?

Near the reference every objective here has the same gradient up to a constant, and AdamW removes constants. While
nearly all responses pull as hard as at step zero (linear regime) two objectives therefore give nearly the same model;
they differ only once a good share of responses has left (selective); and when almost nothing pulls from before half of
the steps on, the rest of the run was spent on nothing (starved).

The share that is tracked, averaged over both sides, is one of
  active  the fraction of responses with a non-zero coefficient, for objectives with a dead zone;
  pull    mean over responses of min(1, |g| / |g at step zero|), in [0, 1], for objectives without one. For a hinge it
          equals `active`, so the thresholds mean the same. Rows that lack it leave such a run unnamed.

A row is made before its step's update: what the last update did is in none of them. And a share says what the
objective did, not whether that was good: a run that diverges has its responses past the margin, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from trimtab.analysis.intervals import FloatArray
from trimtab.errors import DataError

RegimeName = Literal["linear", "selective", "starved", "no dead zone"]

LINEAR_ABOVE = 0.95  # the regimes' definition: nearly all still pull
STARVED_BELOW = 0.05  # the regimes' definition: next to none still pulls


@dataclass(frozen=True, slots=True)
class Regime:
    """`share_at_end` and both sides are means over the last tenth of the steps; NaN where rows cannot tell."""

    name: RegimeName
    sentence: str
    share_at_end: float
    chosen_at_end: float
    rejected_at_end: float


def name_regime(metrics_rows: Sequence[Mapping[str, Any]], *, has_dead_zone: bool = True) -> Regime:
    """Name the regime from `metrics.jsonl` rows, one an optimizer step, in step order.

    Shares are averaged over a sliding tenth of the run before they are held against 95 % and 5 %, because one batch is
    a small sample. Raises DataError when rows are missing or lack `active/chosen` and `active/rejected`.
    """
    if not metrics_rows:
        raise DataError("no training step was recorded, so there is no regime to name", remedy="train first")
    if has_dead_zone:
        return _from_shares(_columns(metrics_rows, "active"), noun="active")
    if all("pull/chosen" in row and "pull/rejected" in row for row in metrics_rows):
        return _from_shares(_columns(metrics_rows, "pull"), noun="pulling")
    nan = float("nan")
    return Regime(
        "no dead zone",
        "No regime can be named: this objective has no dead zone, and how hard responses pulled is not recorded.",
        nan,
        nan,
        nan,
    )


def _columns(rows: Sequence[Mapping[str, Any]], prefix: str) -> FloatArray:
    """Shape [steps, 2]: chosen, rejected."""
    keys = (f"{prefix}/chosen", f"{prefix}/rejected")
    for number, row in enumerate(rows, start=1):
        if any(row.get(key) is None for key in keys):
            raise DataError(
                f"metrics row {number} lacks {keys[0]} or {keys[1]}", remedy="use the metrics.jsonl of a training run"
            )
    return np.array([[row[key] for key in keys] for row in rows], dtype=np.float64)


def _from_shares(sides: FloatArray, *, noun: Literal["active", "pulling"]) -> Regime:
    n_steps = len(sides)
    window = max(1, n_steps // 10)
    smooth = np.convolve(sides.mean(axis=1), np.full(window, 1 / window), mode="valid")
    chosen, rejected = (float(side) for side in sides[-window:].mean(axis=0))
    share = float(smooth[-1])
    ends = np.arange(window, n_steps + 1)
    early = np.flatnonzero((ends <= n_steps / 2) & (smooth < STARVED_BELOW))
    sides_text = f"(chosen {chosen:.0%}, rejected {rejected:.0%})"
    if noun == "active":
        end_text, threshold_text = (
            f"{share:.0%} of the responses {sides_text} were still active",
            "of the responses were active",
        )
        rest_text = "the others were past the margin"
        linear = "the dead zone let go of next to none, and an objective without one had nearly the same gradient"
    else:
        end_text = f"responses still pulled with {share:.0%} of their first strength {sides_text}"
        threshold_text = "of the first strength was left"
        rest_text = "without a dead zone none is ever let go"
        linear = "another objective with the same gradient at the start would have given nearly the same model"
    name: RegimeName
    if len(early) and float(smooth[early[0] :].mean()) < STARVED_BELOW:  # a dip that passes starves nobody
        name = "starved"
        sentence = (
            f"Starved: less than {STARVED_BELOW:.0%} {threshold_text} by step {ends[early[0]]} of {n_steps}; the steps "
            "after it had next to nothing to learn from."
        )
    elif smooth.min() > LINEAR_ABOVE:
        name = "linear"
        sentence = f"Linear: {end_text} before the last updates, so {linear}."
    else:
        name = "selective"
        sentence = f"Selective: {end_text} before the last updates; {rest_text}."
    return Regime(name, sentence, share, chosen, rejected)
