"""Objectives that see a pair only through z = β(r_w − r_l): moving both log-ratios together changes nothing.

Shape suffix: P pairs. ℓ+ = −ln σ(z) = softplus(−z), ℓ− = −ln σ(−z) = softplus(z), [x]+ = max(0, x), relu'(0) = 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from trimtab.errors import ConfigError
from trimtab.objectives.log_ratios import sigmoid, softplus
from trimtab.objectives.objective import NOT_NEGATIVE, POSITIVE, SMOOTHING, Interval, Objective, parameter

if TYPE_CHECKING:
    from torch import Tensor

    from trimtab.objectives.log_ratios import LogRatios

LN2 = math.log(2.0)


@dataclass(frozen=True, kw_only=True)
class Dpo(Objective):
    """DPO; with ε > 0 conservative DPO, which TRL 1.16 accepts as a key and silently ignores in its default loss.

    With ε > 0 the gradient is zero only at z = ln((1 − ε)/ε) and pulls back beyond it.
    """

    beta: float = parameter(0.1, POSITIVE)
    label_smoothing: float = parameter(0.0, SMOOTHING)

    name = "dpo"
    formula = "(1−ε)·ℓ+ + ε·ℓ−   with ℓ± = −ln σ(±z)"
    source = "arXiv 2305.18290 Eq. 7; ε: conservative DPO, arXiv 2508.08466 Eq. 2"

    def loss(self, log_ratios: LogRatios) -> Tensor:
        return label_smoothed_loss(self.reward_gap(log_ratios), self.label_smoothing)

    def step_zero(self) -> float:
        return LN2


@dataclass(frozen=True, kw_only=True)
class Odpo(Objective):
    """ODPO: DPO that wants a larger reward gap where the scores lie further apart.

    Pairs with a score gap of 1, and pairs of which the gap is not known, have no offset; nearer ones a negative one.
    """

    beta: float = parameter(0.1, POSITIVE)
    alpha: float = parameter(1.0, NOT_NEGATIVE)

    name = "odpo"
    formula = "−ln σ(z − α·ln(s_w − s_l))   with s the score of a response"
    source = "arXiv 2402.10571, with f = ln"
    needs_score_gaps = True

    def loss(self, log_ratios: LogRatios) -> Tensor:
        gap_P = self.reward_gap(log_ratios)
        if log_ratios.score_gaps is None:
            return softplus(-gap_P)
        return softplus(self.alpha * log_ratios.score_gaps.to(gap_P.dtype).log() - gap_P)


@dataclass(frozen=True, kw_only=True)
class DpoHinge(Objective):
    """Hinge on the reward gap. At margin 1 this is TRL's `hinge`."""

    beta: float = parameter(0.1, POSITIVE)
    margin: float = parameter(1.0, POSITIVE)

    name = "dpo_hinge"
    formula = "[m − z]+"
    source = "arXiv 2309.06657, 2305.10425; arXiv 2508.08466 Eq. 3"
    has_dead_zone = True

    def loss(self, log_ratios: LogRatios) -> Tensor:
        return (self.margin - self.reward_gap(log_ratios)).relu()

    def step_zero(self) -> float:
        return self.margin

    @property
    def dead_zone(self) -> str:
        return f"both sides together: z ≥ m = {self.margin:g}, that is r_w − r_l ≥ m/β = {self.reach():g} nats"

    def reach(self) -> float:
        return self.margin / self.beta


@dataclass(frozen=True, kw_only=True)
class MarginSigmoid(Objective):
    """Margin-σ: the DPO loss cut off at δ.

    At ε = 0 its gradient is DPO's times the indicator of z < z* = −ln(e^δ − 1), which is close to RePO++
    (arXiv 2503.07426 §3.4). With ε > 0 there is no dead zone: past z* the reverse term alone remains and pulls the
    pair back, to min(z*, ln((1−ε)/ε)). `temperature` τ puts τ·softplus(·/τ) in place of [·]+. `delta_warmup` raises δ
    linearly from 0 over that many epochs: `at` gives the value in force, and until it is asked δ is that of epoch 0.
    The paper gives no number for δ or ε.
    """

    beta: float = parameter(0.1, POSITIVE)
    delta: float = parameter(0.2, NOT_NEGATIVE)
    label_smoothing: float = parameter(0.0, SMOOTHING)
    temperature: float | None = parameter(None, POSITIVE)
    delta_warmup: float | None = parameter(None, POSITIVE)

    name = "margin_sigmoid"
    formula = "(1−ε)·[ℓ+ − δ]+ + ε·[ℓ− − δ]+   (τ: τ·softplus(x/τ) for [x]+)"
    source = "arXiv 2508.08466 §4.1, τ and warm-up §6.4.4; compare RePO++, arXiv 2503.07426 §3.4"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.delta < LN2 or self.temperature is not None:
            return
        # Holds for ε > 0 as well: at z = 0 both ℓ+ and ℓ− are ln 2, and with δ ≥ ln 2 both terms are cut off there.
        if self.delta_warmup is None:
            reason = "every pair is dead at initialisation and training never starts"
        else:
            reason = (
                "once the warm-up is over no pair that the policy ranks at least as well as the reference is active"
            )
        raise ConfigError(
            f"margin_sigmoid: delta = {self.delta:g} is not below 0.693 = ln 2, the loss at policy = reference: "
            + reason,
            remedy="set delta below 0.693 (the default is 0.2), or set temperature, which leaves no dead zone",
        )

    @property
    def _delta_in_force(self) -> float:
        return self.delta if self.delta_warmup is None else 0.0

    def loss(self, log_ratios: LogRatios) -> Tensor:
        z_P = self.reward_gap(log_ratios)
        loss_P = self._subtract_delta(softplus(-z_P))
        if self.label_smoothing == 0.0:
            return loss_P
        return (1.0 - self.label_smoothing) * loss_P + self.label_smoothing * self._subtract_delta(softplus(z_P))

    def _subtract_delta(self, loss_P: Tensor) -> Tensor:
        over_P = loss_P - self._delta_in_force
        return over_P.relu() if self.temperature is None else self.temperature * softplus(over_P / self.temperature)

    def step_zero(self) -> float:
        over = LN2 - self._delta_in_force
        if self.temperature is None:
            return over
        return softplus_at(over, self.temperature)

    def at(self, progress_epochs: float) -> MarginSigmoid:
        if self.delta_warmup is None:
            return self
        share = min(1.0, max(0.0, progress_epochs) / self.delta_warmup)
        return replace(self, delta=share * self.delta, delta_warmup=None)

    @property
    def has_dead_zone(self) -> bool:
        return self.temperature is None and self.label_smoothing == 0.0 and self.delta > 0.0

    @property
    def dead_zone(self) -> str:
        if self.has_dead_zone:
            edge = -math.log(math.expm1(self.delta))
            return (
                f"both sides together: z ≥ −ln(e^δ − 1) = {edge:.4g}, that is r_w − r_l ≥ {edge / self.beta:.4g} nats"
            )
        if self.temperature is not None:
            return "none: the temperature keeps a gradient everywhere"
        return "none: the reverse term keeps a gradient" if self.label_smoothing > 0.0 else "none: δ = 0 is DPO"

    def remarks(self) -> tuple[str, ...]:
        if self.delta == 0.0:
            return ("delta = 0: margin_sigmoid is DPO without a dead zone",)
        upper = []
        if self.label_smoothing > 0.0:
            upper.append(f"label_smoothing = {self.label_smoothing:g} pulls pairs back from beyond the margin")
        if self.temperature is not None:
            upper.append(f"temperature = {self.temperature:g} leaves every pair some gradient")
        return (f"margin_sigmoid has no dead zone in this run: {' and '.join(upper)}",) if upper else ()


@dataclass(frozen=True, kw_only=True)
class ExoPair(Objective):
    """EXO for two responses: KL from σ(±z) to the labels (1 − ε, ε). Fades on badly ranked pairs too."""

    beta: float = parameter(0.1, POSITIVE)
    label_smoothing: float = parameter(1e-3, Interval(0.0, 0.5))

    name = "exo_pair"
    formula = "σ(z)·(ln σ(z) − ln(1−ε)) + σ(−z)·(ln σ(−z) − ln ε)"
    source = "arXiv 2402.00856 Eq. 16, as TRL 1.16"

    def loss(self, log_ratios: LogRatios) -> Tensor:
        z_P = self.reward_gap(log_ratios)
        won_P = sigmoid(z_P) * (-softplus(-z_P) - math.log1p(-self.label_smoothing))
        return won_P + sigmoid(-z_P) * (-softplus(z_P) - math.log(self.label_smoothing))

    def step_zero(self) -> float:
        return -LN2 - 0.5 * (math.log1p(-self.label_smoothing) + math.log(self.label_smoothing))

    @property
    def dead_zone(self) -> str:
        return "none: zero at z = ln((1−ε)/ε) only, then it pulls back"


@dataclass(frozen=True, kw_only=True)
class Ipo(Objective):
    """IPO on per-token averages, as its authors confirmed to TRL; β is the paper's τ."""

    beta: float = parameter(0.1, POSITIVE)

    name = "ipo"
    formula = "(r_w/|y_w| − r_l/|y_l| − 1/(2β))²"
    source = "arXiv 2310.12036 Eq. 17, length-normalised as TRL 1.16"
    per_token = True

    def loss(self, log_ratios: LogRatios) -> Tensor:
        r_w, r_l = self.ratios(log_ratios)
        off_P = r_w - r_l - 0.5 / self.beta
        return off_P * off_P

    def step_zero(self) -> float:
        return float(0.25 / self.beta**2)

    @property
    def dead_zone(self) -> str:
        return "none: zero at its target only, then it pulls back"


@dataclass(frozen=True, kw_only=True)
class Robust(Objective):
    """Robust DPO: unbiased for labels flipped with probability ε. It never lets go and is unbounded below.

    TRL's default ε is 0, which is plain DPO; ours is the 0.1 that the paper and TRL's documentation recommend.
    """

    beta: float = parameter(0.1, POSITIVE)
    label_smoothing: float = parameter(0.1, SMOOTHING)

    name = "robust"
    formula = "((1−ε)·ℓ+ − ε·ℓ−) / (1−2ε)"
    source = "arXiv 2403.00409, as TRL 1.16"

    def loss(self, log_ratios: LogRatios) -> Tensor:
        z_P, noise = self.reward_gap(log_ratios), self.label_smoothing
        return ((1.0 - noise) * softplus(-z_P) - noise * softplus(z_P)) / (1.0 - 2.0 * noise)

    def step_zero(self) -> float:
        return LN2

    def remarks(self) -> tuple[str, ...]:
        return ("label_smoothing = 0: robust is plain dpo",) if self.label_smoothing == 0.0 else ()


@dataclass(frozen=True, kw_only=True)
class Dpop(Objective):
    """DPO-Positive: DPO with a penalty λ on a chosen response that the policy likes less than the reference does.

    The penalty stands inside the sigmoid, so it fades with it. Its kink is at r_w = 0, the place where training starts:
    there the penalty has no gradient (relu'(0) = 0). λ = 50 is what the authors' models were trained with.
    """

    beta: float = parameter(0.1, POSITIVE)
    penalty: float = parameter(50.0, NOT_NEGATIVE)

    name = "dpop"
    formula = "−ln σ(z − βλ·[−r_w]+)"
    source = "arXiv 2402.13228 Eq. 3"

    def loss(self, log_ratios: LogRatios) -> Tensor:
        chosen_P, _ = self.rewards(log_ratios)
        return softplus(self.penalty * (-chosen_P).relu() - self.reward_gap(log_ratios))

    def step_zero(self) -> float:
        return LN2

    def remarks(self) -> tuple[str, ...]:
        return ("penalty = 0: dpop is plain dpo",) if self.penalty == 0.0 else ()


@dataclass(frozen=True, kw_only=True)
class Wpo(Objective):
    """WPO: DPO whose pairs count as much as the policy itself is likely to write both responses.

    A token weighs p / Σ_v p_v², which is 1 on average where the policy itself samples (the paper's sampled alignment);
    a response weighs the geometric mean of its tokens, without gradient. The authors' code cuts w_w·w_l off at 1
    (`weight_cap`); TRL 1.16 does not. Where log weights are not known (held-out pairs, replays) the weight is 1: one
    that follows the policy would make the loss fall as the responses become unlikely.
    """

    beta: float = parameter(0.1, POSITIVE)
    weight_cap: float | None = parameter(None, POSITIVE)

    name = "wpo"
    formula = "w_w·w_l·ℓ+   with ln w = mean over y of ln p − ln Σ_v p_v², without gradient"
    source = "arXiv 2406.11827 Eq. 2, sampled alignment, as TRL 1.16"
    needs_log_weights = True

    def loss(self, log_ratios: LogRatios) -> Tensor:
        loss_P = softplus(-self.reward_gap(log_ratios))
        chosen_P, rejected_P = log_ratios.chosen_log_weights, log_ratios.rejected_log_weights
        if chosen_P is None or rejected_P is None:
            return loss_P
        weight_P = (chosen_P + rejected_P).detach().exp().clamp_max(self.weight_cap or math.inf)
        return weight_P.to(loss_P.dtype) * loss_P


@dataclass(frozen=True, kw_only=True)
class Discopop(Objective):
    """DiscoPOP (log-ratio modulated loss). At z = 0 and the default τ its gradient has the wrong sign."""

    beta: float = parameter(0.1, POSITIVE)
    # Above 1 the exponential part outgrows its weight and the loss of a badly ranked pair overflows.
    temperature: float = parameter(0.05, Interval(0.0, 1.0, closed_high=True))

    name = "discopop"
    formula = "(1−s)·ℓ+ + s·e^−z   with s = σ(z/τ)"
    source = "arXiv 2406.08414 Eq. 5, as TRL 1.16"

    def loss(self, log_ratios: LogRatios) -> Tensor:
        z_P = self.reward_gap(log_ratios)
        # s·e^−z as one exponential: apart, they are 0·∞ for a badly ranked pair.
        exponential_P = (-z_P - softplus(-z_P / self.temperature)).exp()
        return sigmoid(-z_P / self.temperature) * softplus(-z_P) + exponential_P

    def step_zero(self) -> float:
        return 0.5 * LN2 + 0.5


@dataclass(frozen=True, kw_only=True)
class SigmoidNorm(Objective):
    """Length-normalised DPO of Tülu 3 (`dpo_norm`). β of 2 to 10 is customary, 5 in Tülu 3; TRL's default is kept."""

    beta: float = parameter(0.1, POSITIVE)

    name = "sigmoid_norm"
    formula = "−ln σ(β(r_w/|y_w| − r_l/|y_l|))"
    source = "arXiv 2411.15124 Eq. 6, as TRL 1.16"
    per_token = True

    def loss(self, log_ratios: LogRatios) -> Tensor:
        return softplus(-self.reward_gap(log_ratios))

    def step_zero(self) -> float:
        return LN2


def label_smoothed_loss(z_P: Tensor, label_smoothing: float) -> Tensor:
    """(1 − ε)·ℓ+ + ε·ℓ−, [P]."""
    if label_smoothing == 0.0:
        return softplus(-z_P)
    return (1.0 - label_smoothing) * softplus(-z_P) + label_smoothing * softplus(z_P)


def softplus_at(x: float, temperature: float) -> float:
    """τ·softplus(x/τ) of a plain number, without overflow."""
    return max(x, 0.0) + temperature * math.log1p(math.exp(-abs(x) / temperature))
