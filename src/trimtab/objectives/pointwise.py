"""Objectives that hold each response to an anchor of its own: the two sides of a pair add up.

Shape suffix: P pairs. r_w, r_l are log-ratios in nats, [x]+ = max(0, x), relu'(0) = 0. `ApoDown` is half pairwise and
stands here with its family.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trimtab.objectives.log_ratios import sigmoid, softplus
from trimtab.objectives.objective import POSITIVE, Objective, parameter
from trimtab.objectives.pairwise import LN2, softplus_at

if TYPE_CHECKING:
    from torch import Tensor

    from trimtab.objectives.log_ratios import LogRatios


@dataclass(frozen=True, kw_only=True)
class ApoZero(Objective):
    """APO-zero: chosen up, rejected down, each against the reference. Fades on badly ranked responses too."""

    beta: float = parameter(0.1, POSITIVE)

    name = "apo_zero"
    formula = "1 − σ(βr_w) + σ(βr_l)"
    source = "arXiv 2408.06266 Eq. 7"

    def loss(self, log_ratios: LogRatios) -> Tensor:
        chosen_P, rejected_P = self.rewards(log_ratios)
        return sigmoid(-chosen_P) + sigmoid(rejected_P)

    def step_zero(self) -> float:
        return 1.0


@dataclass(frozen=True, kw_only=True)
class ApoDown(Objective):
    """APO-down: both responses down, the rejected one more; for chosen responses worse than the model's own."""

    beta: float = parameter(0.1, POSITIVE)

    name = "apo_down"
    formula = "σ(βr_w) + 1 − σ(z)"
    source = "arXiv 2408.06266 Eq. 8"

    def loss(self, log_ratios: LogRatios) -> Tensor:
        chosen_P, _ = self.rewards(log_ratios)
        return sigmoid(chosen_P) + sigmoid(-self.reward_gap(log_ratios))

    def step_zero(self) -> float:
        return 1.0


@dataclass(frozen=True, kw_only=True)
class ApoHingeZero(Objective):
    """APO-hinge-zero: APO-zero with a hinge on each side, so that each side has a dead zone of its own.

    The paper prints β twice in Eq. 11 (once inside its reward). Its §4.2 and §6.2, and the trainer it edited, point to
    a single β, which is ours; the literal reading is this objective at beta = β².
    """

    beta: float = parameter(0.1, POSITIVE)
    margin: float = parameter(1.0, POSITIVE)

    name = "apo_hinge_zero"
    formula = "[m − βr_w]+ + [m + βr_l]+"
    source = "arXiv 2508.08466 Eq. 11, read with a single β"
    has_dead_zone = True

    def loss(self, log_ratios: LogRatios) -> Tensor:
        chosen_P, rejected_P = self.rewards(log_ratios)
        return (self.margin - chosen_P).relu() + (self.margin + rejected_P).relu()

    def step_zero(self) -> float:
        return 2.0 * self.margin

    @property
    def dead_zone(self) -> str:
        return f"each side alone: r_w ≥ m/β = {self.reach():g} nats; r_l ≤ −m/β = −{self.reach():g} nats"

    def reach(self) -> float:
        return self.margin / self.beta


@dataclass(frozen=True, kw_only=True)
class ApoHingeSoftplus(Objective):
    """APO-hinge-softplus: the smooth form of APO-hinge-zero, which is its limit for τ → 0. Single β, as there."""

    beta: float = parameter(0.1, POSITIVE)
    margin: float = parameter(1.0, POSITIVE)
    temperature: float = parameter(1.0, POSITIVE)

    name = "apo_hinge_softplus"
    formula = "τ·softplus((m − βr_w)/τ) + τ·softplus((m + βr_l)/τ)"
    source = "arXiv 2508.08466 Eq. 12 (τ = 1), read with a single β; τ from its §6.4.4"

    def loss(self, log_ratios: LogRatios) -> Tensor:
        chosen_P, rejected_P = self.rewards(log_ratios)
        tau = self.temperature
        return tau * (softplus((self.margin - chosen_P) / tau) + softplus((self.margin + rejected_P) / tau))

    def step_zero(self) -> float:
        return 2.0 * softplus_at(self.margin, self.temperature)

    def reach(self) -> float:
        return self.margin / self.beta


@dataclass(frozen=True, kw_only=True)
class NcaPair(Objective):
    """NCA for two responses: the chosen one has its target at σ(βr_w) = 2/3 and is pulled back beyond it."""

    beta: float = parameter(0.1, POSITIVE)

    name = "nca_pair"
    formula = "−ln σ(βr_w) − ½·ln σ(−βr_w) − ½·ln σ(−βr_l)"
    source = "arXiv 2402.05369, as TRL 1.16"

    def loss(self, log_ratios: LogRatios) -> Tensor:
        chosen_P, rejected_P = self.rewards(log_ratios)
        return softplus(-chosen_P) + 0.5 * softplus(chosen_P) + 0.5 * softplus(rejected_P)

    def step_zero(self) -> float:
        return 2.0 * LN2

    @property
    def dead_zone(self) -> str:
        return f"none: the chosen side is zero at βr_w = ln 2 = {math.log(2):.3f} only, then it is pulled back"


@dataclass(frozen=True, kw_only=True)
class BcoPair(Objective):
    """BCO for two responses, without the running mean of rewards (TRL 1.16 has dropped it)."""

    beta: float = parameter(0.1, POSITIVE)

    name = "bco_pair"
    formula = "−ln σ(βr_w) − ln σ(−βr_l)"
    source = "arXiv 2404.04656, as TRL 1.16"

    def loss(self, log_ratios: LogRatios) -> Tensor:
        chosen_P, rejected_P = self.rewards(log_ratios)
        return softplus(-chosen_P) + softplus(rejected_P)

    def step_zero(self) -> float:
        return 2.0 * LN2


@dataclass(frozen=True, kw_only=True)
class SppoHard(Objective):
    """SPPO with hard labels: each log-ratio is drawn to ±1/(2β) and back."""

    beta: float = parameter(0.1, POSITIVE)

    name = "sppo_hard"
    formula = "(r_w − 1/(2β))² + (r_l + 1/(2β))²"
    source = "arXiv 2405.00675 Eq. 4.7 with P = 1, as TRL 1.16"

    def loss(self, log_ratios: LogRatios) -> Tensor:
        r_w, r_l = self.ratios(log_ratios)
        target = 0.5 / self.beta
        return (r_w - target) * (r_w - target) + (r_l + target) * (r_l + target)

    def step_zero(self) -> float:
        return float(0.5 / self.beta**2)

    @property
    def dead_zone(self) -> str:
        return "none: each side is zero at its target only, then it is pulled back"
