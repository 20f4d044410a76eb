"""One optimizer step as a row of `metrics.jsonl`: plain numbers, fractions in [0, 1], log-probabilities in nats."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor

from trimtab.engine.batch_result import BatchResult
from trimtab.objectives import Objective
from trimtab.objectives.pull import pull


def row(
    result: BatchResult,
    *,
    objective: Objective,
    step: int,
    epoch: float,
    seconds: float,
    step_seconds: float,
    grad_norm: float,
    learning_rate: float,
    tokens: int,
    peak_memory_bytes: int,
) -> dict[str, float | int]:
    """The row of step `step` (1-based). `epoch`: data seen so far in epochs; `seconds`: training time so far, of which
    `step_seconds` in this step; `tokens`: prompt and response tokens of the batch, each prompt once; `active/pair`:
    pairs with either side active.

    `skipped_backward`, `skipped_forward`, `promoted`: shares of response tokens without a backward pass, not computed
    at all (shrinking), and computed twice because their screening found them active.

    `pull/*` is the mean of min(1, |g| / |g while policy = reference|): how hard each side still pulls, for objectives
    whose coefficients fade instead of vanishing. Only where there is a reference.
    """
    chosen_P, rejected_P = (side.double() for side in objective.rewards(result.log_ratios))
    of_chosen, of_rejected = (partial(_mean_of, present_P=result.present_R[side::2]) for side in (0, 1))
    chosen_reward, rejected_reward = of_chosen(chosen_P), of_rejected(rejected_P)
    active_R = result.active_R
    chosen_active, rejected_active = active_R[0::2], active_R[1::2]
    row: dict[str, float | int] = {
        "step": step,
        "epoch": epoch,
        "seconds": seconds,
        "step_seconds": step_seconds,
        "loss": result.loss,
        "grad_norm": grad_norm,
        "learning_rate": learning_rate,
        "rewards/chosen": chosen_reward,
        "rewards/rejected": rejected_reward,
        "rewards/accuracies": _mean(chosen_P > rejected_P),
        "rewards/margins": chosen_reward - rejected_reward,
        "logps/chosen": of_chosen(result.logps_R[0::2]),
        "logps/rejected": of_rejected(result.logps_R[1::2]),
        "active/chosen": of_chosen(chosen_active),
        "active/rejected": of_rejected(rejected_active),
        "active/pair": _mean(chosen_active | rejected_active),
        "skipped_backward": result.skipped_backward,
        "skipped_forward": result.skipped_forward,
        "promoted": result.promoted,
        "tokens": tokens,
        "tokens_per_second": tokens / step_seconds,
        "peak_memory_bytes": peak_memory_bytes,
    }
    if objective.on_scores:
        del row["logps/chosen"], row["logps/rejected"]  # the scores, which are the rewards
    if objective.needs_reference:
        pull_R = pull(objective, result.log_ratios, result.coefficients_R)
        row |= {"pull/chosen": of_chosen(pull_R[0::2]), "pull/rejected": of_rejected(pull_R[1::2])}
    return row


def visit(result: BatchResult, *, step: int, indices: Sequence[int]) -> dict[str, Any]:
    """The row of step `step` in `visits.jsonl`: the pairs of the batch, by their line in `data/train.jsonl` from 0, and
    what the objective saw of each: log-ratios in nats, or log-probabilities where it needs no reference.

    Sums are weighted as the objective weighs tokens, and in single precision. A response that shrinking passed over has
    the value of its last visit, and stands in `stale` (2 x place in the batch, + 1 for the rejected one).
    """
    ratios = result.log_ratios
    row = {
        "step": step,
        "pairs": list(indices),
        "chosen": [_single(value) for value in ratios.chosen.tolist()],
        "rejected": [_single(value) for value in ratios.rejected.tolist()],
    }
    stale = result.stale_R.nonzero().flatten().tolist()
    return row | ({"held": stale} if stale else {})


def _single(value: float) -> float:
    """Nine significant digits name a single-precision number."""
    return float(f"{value:.9g}")


def _mean_of(values_P: Tensor, present_P: Tensor) -> float:
    """Over the rows that have such a response; 0 where none has."""
    return _mean(values_P[present_P]) if present_P.any() else 0.0


def _mean(values: Tensor) -> float:
    return float(values.double().mean())
