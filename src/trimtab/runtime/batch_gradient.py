"""The gradient of one optimizer batch, of however many processes: dealt out, computed, and summed once.

Each process computes its share of the pairs pack by pack, whatever it screens, skips or promotes, and nothing is sent
meanwhile. Then all learn what each found (a few numbers a pair, and whether a signal, bad numbers or a lack of memory
ended it there), and only then are gradients summed: what stops one process stops all, before the weights move.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from trimtab.engine import evaluation, gradient, nonfinite_pairs
from trimtab.engine.batch_result import BatchResult
from trimtab.engine.share import Share
from trimtab.errors import NumericsError
from trimtab.objectives import Objective
from trimtab.records import TokenPair, digest
from trimtab.runtime.signals import Stop
from trimtab.runtime.training_state import TrainingState


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch whose gradient is in the parameters, clipped; `norm` is from before the clip. `kl`: see
    `Objective.with_kl`."""

    indices: tuple[int, ...]
    pairs: list[TokenPair]
    objective: Objective
    result: BatchResult
    norm: float
    kl: float | None


def batch_gradient(training: TrainingState, stop: Stop) -> Batch:
    """The next batch's gradient; at the first step, with the guard.

    Each process computes its share and learns what all found; their gradients are summed once. May leave by
    `Interruption`. Raises NumericsError, naming the pairs, when any number is not finite. Both leave all processes.
    """
    indices, objective = training.order.batch(training.step).indices, training.objective
    processes = training.setup.processes
    pairs, scorer, pack_tokens = [training.pairs[i] for i in indices], training.scorer, training.pack_tokens
    divergence = training.kl([training.kl_rows[i] for i in indices] if training.kl_rows else [])
    if divergence is not None:
        objective = objective.with_kl(divergence)
    reference_R = training.reference_sums(pairs)
    stale_sums_R = None
    if training.shrinking is not None:
        without_policy = evaluation.log_ratios(torch.zeros(2 * len(pairs)), reference_R, pairs)
        stale_sums_R = training.shrinking.stale_sums_R(indices, without_policy, objective=objective)
    screen_R = None if training.forecast is None else training.forecast.screen_R(indices, pairs)
    share = Share.of(processes, pairs, _costs(training, indices, pairs, screen_R))
    if scorer.has_dropout and not processes.alone:  # of its own on each process, and the same after a resume
        torch.manual_seed(int(digest([training.setup.config.seed, training.step, processes.rank])[:15], 16))
    training.optimizer.zero_gradients()  # zero and not None, so that a batch without any active response steps too

    def accumulate() -> tuple[BatchResult, int | None]:
        own = share.pick(pairs)
        try:
            result = gradient.accumulate(
                scorer,
                own,
                objective=objective,
                reference_logps_R=share.pick_R(reference_R),
                pack_tokens=pack_tokens,
                screen_R=share.pick_R(screen_R),
                stale_sums_R=share.pick_R(stale_sums_R),
                share=share,
                # dropout has drawn from its generator by then: such a step is finished, not left
                on_pack=(lambda: None) if scorer.has_dropout else stop.check,
            )
        except NumericsError as error:
            at = training.step + 1
            raise nonfinite_pairs.of_forward(error, scorer, own, step=at, pack_tokens=pack_tokens) from error
        return result, stop.signal

    parts = processes.together(accumulate)
    stop.agree(signal for _, signal in parts)
    result = share.join([result for result, _ in parts], pairs)
    if training.step == 0 and training.setup.begins_at_reference:
        evaluation.guard_first_batch(
            scorer, result, objective=objective, reference_R=reference_R, pairs=pairs, pack_tokens=pack_tokens
        )
    training.optimizer.sum_gradients()
    norm = training.optimizer.clip(training.setup.config.train.max_grad_norm)
    if not math.isfinite(norm):
        raise nonfinite_pairs.of_gradient(
            scorer,
            pairs,
            result,
            objective=objective,
            step=training.step + 1,
            pack_tokens=pack_tokens,
            tensors=training.optimizer.not_finite_gradients(),
        )
    return Batch(indices, pairs, objective, result, norm, divergence)


def _costs(
    training: TrainingState, indices: Sequence[int], pairs: Sequence[TokenPair], screen_R: torch.Tensor | None
) -> list[float]:
    """What each pair is expected to take; pairs are dealt to processes by it."""
    if training.forecast is None:
        return [pair.n_tokens for pair in pairs]
    return training.forecast.costs(indices, pairs, screen_R)
