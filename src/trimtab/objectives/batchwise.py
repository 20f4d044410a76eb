"""Objectives that need the whole optimizer batch at once: the loss of one row depends on the others.

Shape suffix: P pairs. Splitting such a batch and averaging gives another number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trimtab.objectives.objective import POSITIVE, SMOOTHING, Objective, parameter
from trimtab.objectives.pairwise import LN2, label_smoothed_loss

if TYPE_CHECKING:
    from torch import Tensor

    from trimtab.objectives.log_ratios import LogRatios


@dataclass(frozen=True, kw_only=True)
class Aot(Objective):
    """AOT, paired: sorted policy gaps against sorted reference gaps. Row i is the i-th smallest, not pair i."""

    beta: float = parameter(0.1, POSITIVE)
    label_smoothing: float = parameter(0.0, SMOOTHING)

    name = "aot"
    formula = "(1−ε)·ℓ+ + ε·ℓ− at z = β(sort(ln π_w − ln π_l) − sort(ln ref_w − ln ref_l))"
    source = "arXiv 2406.05882, as TRL 1.16"
    batch_coupled = True

    def loss(self, log_ratios: LogRatios) -> Tensor:
        policy_P = (log_ratios.policy_chosen - log_ratios.policy_rejected).sort().values
        reference_P = (log_ratios.reference_chosen - log_ratios.reference_rejected).sort().values
        return label_smoothed_loss(self.beta * (policy_P - reference_P), self.label_smoothing)

    def step_zero(self) -> float:
        return LN2


@dataclass(frozen=True, kw_only=True)
class AotUnpaired(Objective):
    """AOT, unpaired: sorted chosen log-ratios against sorted rejected ones. Row i is a rank, not pair i."""

    beta: float = parameter(0.1, POSITIVE)
    label_smoothing: float = parameter(0.0, SMOOTHING)

    name = "aot_unpaired"
    formula = "(1−ε)·ℓ+ + ε·ℓ− at z = β(sort(r_w) − sort(r_l))"
    source = "arXiv 2406.05882, as TRL 1.16"
    batch_coupled = True

    def loss(self, log_ratios: LogRatios) -> Tensor:
        r_w, r_l = self.ratios(log_ratios)
        return label_smoothed_loss(self.beta * (r_w.sort().values - r_l.sort().values), self.label_smoothing)

    def step_zero(self) -> float:
        return LN2


@dataclass(frozen=True, kw_only=True)
class Sft(Objective):
    """Negative log-likelihood of the chosen responses, averaged over all their tokens in the batch, as TRL does.

    Row i is its share of that mean: −ln π_w over the batch's mean length, so that the mean of the rows is TRL's number.
    """

    name = "sft"
    formula = "−ln π_w / mean |y_w| of the batch"
    source = "as TRL 1.16"
    needs_reference = False
    batch_coupled = True
    imitates = True

    def loss(self, log_ratios: LogRatios) -> Tensor:
        return -log_ratios.policy_chosen / log_ratios.chosen_lengths.to(log_ratios.policy_chosen.dtype).mean()

    @property
    def dead_zone(self) -> str:
        return "none on the chosen side; the rejected response is not read"
