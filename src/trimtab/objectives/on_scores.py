"""Bradley–Terry on scores: what a reward model is trained with.

Shape suffix: P pairs. What `LogRatios` calls the policy's sums are here the scores of a classifier with one output, in
nats of log-odds; nothing stands beside them as a reference, and lengths play no part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trimtab.objectives.objective import SMOOTHING, Objective, parameter
from trimtab.objectives.pairwise import LN2, label_smoothed_loss

if TYPE_CHECKING:
    from torch import Tensor

    from trimtab.objectives.log_ratios import LogRatios


@dataclass(frozen=True, kw_only=True)
class BradleyTerry(Objective):
    """P(chosen over rejected) = σ(s_w − s_l). A reward is the score itself."""

    label_smoothing: float = parameter(0.0, SMOOTHING)

    name = "bradley_terry"
    formula = "(1−ε)·ℓ+ + ε·ℓ−   with ℓ± = −ln σ(±(s_w − s_l)), s the score of a response"
    source = "Bradley and Terry 1952; arXiv 2203.02155 Eq. 1; ε as in dpo"
    needs_reference = False
    on_scores = True

    def loss(self, log_ratios: LogRatios) -> Tensor:
        return label_smoothed_loss(self.reward_gap(log_ratios), self.label_smoothing)

    def step_zero(self) -> float:
        """The head begins at zero, and so do all scores."""
        return LN2
