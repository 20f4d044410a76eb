"""Which pairs numbers that are not finite come from.

While a batch is computed, a log-probability, a loss or a coefficient that is not finite is found pair by pair
(`gradient`). A gradient is not: it is a sum, and looking at it after every pack would cost each step a pass over all
weights. So only its norm is looked at. Once something is found the step is lost and the weights have not moved: there
is time to compute every pair of the batch once more, alone. That finds all pairs at fault, and only them: what one
masked sequence leaves in a shared pack is 0 · NaN to its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from trimtab.engine.batch_result import BatchResult
from trimtab.engine.finite import name_list, not_finite
from trimtab.engine.gradient import accumulate
from trimtab.engine.packing import Group
from trimtab.engine.scoring import Scorer
from trimtab.errors import NumericsError
from trimtab.objectives import LogRatios, Objective
from trimtab.records import TokenPair

_BEFORE = "The weights were not updated, and the run goes on from its last checkpoint."
_LOWER = "lower train.learning_rate, lengthen train.warmup, or use --engine.dtype float32"
_LOOK = f"{_BEFORE} Look at these pairs in the data; if they are in order, {_LOWER}."
_BROKEN_WEIGHTS = f"{_BEFORE} An earlier update made them so: {_LOWER}."


def of_forward(
    error: NumericsError, scorer: Scorer, pairs: Sequence[TokenPair], *, step: int, pack_tokens: int
) -> NumericsError:
    """`error` (raised by `gradient.accumulate` on these pairs) with all pairs at fault, the weights too if they are."""
    bad = []
    for pair in pairs:
        rows = scorer.by_key([Group.of_pair(pair, 0)], pack_tokens=pack_tokens)
        if not all(bool(row.isfinite().all()) for _, row in rows):
            bad.append(pair.id)
    fault = f"a log-probability is not finite for {name_list(bad)}" if bad else error.message
    weights = not_finite(scorer.model.named_parameters())
    if weights:
        return NumericsError(
            f"step {step}: {fault}; nor are the weights of {name_list(weights)}", remedy=_BROKEN_WEIGHTS
        )
    return NumericsError(f"step {step}: {fault}", remedy=_LOOK if bad else error.remedy)


def of_gradient(
    scorer: Scorer,
    pairs: Sequence[TokenPair],
    result: BatchResult,
    *,
    objective: Objective,
    step: int,
    pack_tokens: int,
    tensors: Sequence[str],
) -> NumericsError:
    """What to say of a batch whose gradient has no finite norm, and is not finite in `tensors`; the gradients are of no
    use afterwards.

    Names the pairs whose own gradient is not finite. Where there is none, the sum overflowed, or the fault did not come
    again (faulty memory, a kernel that is not deterministic): then the whole batch is named, and that is said.
    """
    place = f" (in {name_list(tensors)})" if tensors else " (its numbers are, their norm is not)"
    bad = [
        pair.id
        for pair, own_R in zip(pairs, result.coefficients_R.reshape(-1, 2), strict=True)
        if bool(own_R.any()) and not _is_finite(scorer, pair, own_R, objective=objective, pack_tokens=pack_tokens)
    ]
    if bad:
        return NumericsError(f"step {step}: the gradient is not finite for {name_list(bad)}{place}", remedy=_LOOK)
    names = name_list([pair.id for pair in pairs])
    return NumericsError(
        f"step {step}: the gradient is not finite{place}, though that of each pair alone is; the batch was {names}",
        remedy=f"{_BEFORE} If that comes again, {_LOWER}; if it does not, this machine's memory is at fault.",
    )


def _is_finite(scorer: Scorer, pair: TokenPair, own_R: Tensor, *, objective: Objective, pack_tokens: int) -> bool:
    """Whether one pair's gradient is, with the coefficients that it had in its batch."""
    for parameter in scorer.model.parameters():
        if parameter.grad is not None:
            parameter.grad.zero_()
    chosen, rejected = own_R.tolist()
    alone = _FixedCoefficients(chosen, rejected, objective.ld_alpha)
    try:
        accumulate(scorer, [pair], objective=alone, reference_logps_R=None, pack_tokens=pack_tokens)
    except NumericsError:
        return False
    return not not_finite((name, p.grad) for name, p in scorer.model.named_parameters() if p.grad is not None)


@dataclass(frozen=True)
class _FixedCoefficients(Objective):
    """Coefficients that were solved before, as a loss that is linear in the log-probabilities."""

    chosen: float
    rejected: float
    ld_alpha: float | None = None

    name = "known coefficients"
    formula = "g_w · logp_w + g_l · logp_l"
    source = "the chain rule"
    needs_reference = False

    def loss(self, log_ratios: LogRatios) -> Tensor:
        return self.chosen * log_ratios.policy_chosen + self.rejected * log_ratios.policy_rejected
