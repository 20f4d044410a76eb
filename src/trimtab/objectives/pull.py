"""How hard each response of a batch pulls: its coefficient, alone and against the one that it had at the reference.

Shape suffixes: P pairs, R = 2P responses, chosen of pair p at 2p and rejected at 2p + 1.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from trimtab.objectives.log_ratios import LogRatios
    from trimtab.objectives.objective import Objective


def coefficients(objective: Objective, ratios: LogRatios) -> Tensor:
    """[R]: d(mean loss)/d(logps) of every response, exactly zero in a dead zone. `ratios` is the whole batch."""
    import torch

    leaf_R = torch.stack([ratios.policy_chosen, ratios.policy_rejected], 1).flatten().detach().requires_grad_()
    loss_P = objective.loss(replace(ratios, policy_chosen=leaf_R[0::2], policy_rejected=leaf_R[1::2]))
    if not loss_P.requires_grad:
        return torch.zeros_like(leaf_R)
    (slope_R,) = torch.autograd.grad(loss_P.sum() / len(loss_P), leaf_R)
    return slope_R


def pull(objective: Objective, ratios: LogRatios, coefficients_R: Tensor) -> Tensor:
    """[R] in [0, 1]: min(1, |g| / |g while policy = reference|), for objectives that need a reference."""
    import torch

    at_start = replace(ratios, policy_chosen=ratios.reference_chosen, policy_rejected=ratios.reference_rejected)
    start_R = coefficients(objective.with_kl(0.0), at_start)
    ratio_R = coefficients_R.abs() / start_R.abs().clamp_min(torch.finfo(torch.float32).tiny)
    return ratio_R.clamp_max(1.0)
