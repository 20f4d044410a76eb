"""Objectives on the policy's own mean log-probs: M = ln π_w/|y_w| − ln π_l/|y_l|, in nats a token.

Shape suffix: P pairs. They need no reference; rewards are β times the mean log-prob.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trimtab.objectives.log_ratios import softplus
from trimtab.objectives.objective import NOT_NEGATIVE, POSITIVE, Objective, parameter

if TYPE_CHECKING:
    from torch import Tensor

    from trimtab.objectives.log_ratios import LogRatios


@dataclass(frozen=True, kw_only=True)
class Simpo(Objective):
    """SimPO. The defaults are its code's: β = 2, γ/β = 0.25."""

    beta: float = parameter(2.0, POSITIVE)
    gamma: float = parameter(0.5, NOT_NEGATIVE)

    name = "simpo"
    formula = "−ln σ(β·M − γ)   with M = ln π_w/|y_w| − ln π_l/|y_l|"
    source = "arXiv 2405.14734 Eq. 6"
    needs_reference = False
    per_token = True

    def loss(self, log_ratios: LogRatios) -> Tensor:
        return softplus(self.gamma - self.reward_gap(log_ratios))


@dataclass(frozen=True, kw_only=True)
class Repo(Objective):
    """RePO: SimPO's limit of large β, a hinge with one parameter. γ = 0.6 is its Llama-3 setting."""

    gamma: float = parameter(0.6, POSITIVE)

    name = "repo"
    formula = "[γ − M]+   with M = ln π_w/|y_w| − ln π_l/|y_l|"
    source = "arXiv 2503.07426"
    needs_reference = False
    per_token = True
    has_dead_zone = True

    def loss(self, log_ratios: LogRatios) -> Tensor:
        # β is 1 here: the reward gap is M itself.
        return (self.gamma - self.reward_gap(log_ratios)).relu()

    @property
    def dead_zone(self) -> str:
        return f"both sides together: M ≥ γ = {self.gamma:g} nats a token"
