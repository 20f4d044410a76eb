"""Objectives on single responses with a label: a good one up, a bad one down, with nothing to compare.

Shape suffix: P rows. A row has one response, chosen (good) or rejected (bad); the side that it lacks has length 0 and
no part in its loss. r is the log-ratio of the response that is there, in nats; [x]+ = max(0, x), relu'(0) = 0. Weights
are for data of which one kind is rare: KTO's authors keep w_good·n_good within 1 to 4/3 of w_bad·n_bad (Eq. 8).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from trimtab.objectives.log_ratios import sigmoid
from trimtab.objectives.objective import POSITIVE, Objective, Value, parameter

if TYPE_CHECKING:
    from torch import Tensor

    from trimtab.objectives.log_ratios import LogRatios


@dataclass(frozen=True, kw_only=True)
class UnpairedObjective(Objective):
    """What they share: weights, and the sum over the sides that a row has. A subclass says what each side costs."""

    beta: float = parameter(0.1, POSITIVE)
    desirable_weight: float = parameter(1.0, POSITIVE)
    undesirable_weight: float = parameter(1.0, POSITIVE)

    is_unpaired = True

    def good(self, reward_P: Tensor) -> Tensor:
        """Loss of good responses with these rewards, [P]."""
        raise NotImplementedError

    def bad(self, reward_P: Tensor) -> Tensor:
        """Loss of bad responses with these rewards, [P]."""
        raise NotImplementedError

    def at_reference(self) -> float:
        """Loss of one response while policy = reference, the same for both kinds, before its weight."""
        raise NotImplementedError

    def loss(self, log_ratios: LogRatios) -> Tensor:
        good_P, bad_P = self.rewards(log_ratios)
        good_loss_P = self.desirable_weight * self.good(good_P) * (log_ratios.chosen_lengths > 0)
        return good_loss_P + self.undesirable_weight * self.bad(bad_P) * (log_ratios.rejected_lengths > 0)

    def step_zero(self) -> float | None:
        """Of a row of either kind; None where the weights tell them apart."""
        return self.desirable_weight * self.at_reference() if self._weighs_alike else None

    @property
    def _weighs_alike(self) -> bool:
        return self.desirable_weight == self.undesirable_weight


@dataclass(frozen=True, kw_only=True)
class Kto(UnpairedObjective):
    """KTO. Its reference point z₀ is the KL of the policy from the reference, estimated anew for every batch.

    z₀ = max(0, mean of ln π − ln ref over the batch's prompts with completions of other prompts), without a gradient,
    as TRL 1.16 has it; the completions are drawn once for a data set (`engine.kl`). `kl` is that number, set for each
    batch by `with_kl`: no parameter.
    """

    kl: float = field(default=0.0, repr=False)

    name = "kto"
    formula = "w_good·(1 − σ(βr − βz₀)) of a good, w_bad·(1 − σ(βz₀ − βr)) of a bad response"
    source = "arXiv 2402.01306 Eq. 7 and 8, as TRL 1.16"
    needs_kl = True

    def good(self, reward_P: Tensor) -> Tensor:
        return sigmoid(self.beta * self.kl - reward_P)

    def bad(self, reward_P: Tensor) -> Tensor:
        return sigmoid(reward_P - self.beta * self.kl)

    def at_reference(self) -> float:
        return 0.5

    def with_kl(self, kl: float) -> Kto:
        return replace(self, kl=max(0.0, kl))

    def parameters(self) -> dict[str, Value]:
        return {key: value for key, value in super().parameters().items() if key != "kl"}


@dataclass(frozen=True, kw_only=True)
class ApoZeroUnpaired(UnpairedObjective):
    """APO-zero a response at a time: KTO with its reference point at 0, so without passes for it."""

    name = "apo_zero_unpaired"
    formula = "w_good·(1 − σ(βr)) of a good, w_bad·σ(βr) of a bad response"
    source = "arXiv 2408.06266 Eq. 7, as TRL 1.16"

    def good(self, reward_P: Tensor) -> Tensor:
        return sigmoid(-reward_P)

    def bad(self, reward_P: Tensor) -> Tensor:
        return sigmoid(reward_P)

    def at_reference(self) -> float:
        return 0.5


@dataclass(frozen=True, kw_only=True)
class ApoHingeZeroUnpaired(UnpairedObjective):
    """APO-hinge-zero a response at a time: rows that are past the margin cost no backward pass."""

    margin: float = parameter(1.0, POSITIVE)

    name = "apo_hinge_zero_unpaired"
    formula = "w_good·[m − βr]+ of a good, w_bad·[m + βr]+ of a bad response"
    source = "apo_hinge_zero (arXiv 2508.08466 Eq. 11), its two terms apart"
    has_dead_zone = True

    def good(self, reward_P: Tensor) -> Tensor:
        return (self.margin - reward_P).relu()

    def bad(self, reward_P: Tensor) -> Tensor:
        return (self.margin + reward_P).relu()

    def at_reference(self) -> float:
        return self.margin

    @property
    def dead_zone(self) -> str:
        return f"a good response: r ≥ m/β = {self.reach():g} nats; a bad one: r ≤ −m/β = −{self.reach():g} nats"

    def reach(self) -> float:
        return self.margin / self.beta
