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
class Orpo(Objective):
    """ORPO: the chosen response's mean negative log-likelihood, and the odds of the two responses.

    β is the paper's λ. The likelihood is that of the response given its prompt, as the paper has it; TRL 1.16 counts
    the prompt's tokens too.
    """

    beta: float = parameter(0.1, POSITIVE)

    name = "orpo"
    formula = "−M_w − β·ln σ(ln odds_w − ln odds_l)   with M = ln π/|y|, ln odds = M − ln(1 − e^M)"
    source = "arXiv 2403.07691 Eq. 6 and 7"
    needs_reference = False
    per_token = True

    def loss(self, log_ratios: LogRatios) -> Tensor:
        chosen_P, rejected_P = self.ratios(log_ratios)
        return self.beta * softplus(_log_odds(rejected_P) - _log_odds(chosen_P)) - chosen_P


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


_SUREST = -1e-6  # nats a token; a response of probability 1 has infinite odds


def _log_odds(mean_logps_P: Tensor) -> Tensor:
    """ln(p / (1 − p)) of p = e^M, [P], without loss of digits near p = 1."""
    mean_P = mean_logps_P.clamp_max(_SUREST)
    return mean_P - (-mean_P.expm1()).log()
