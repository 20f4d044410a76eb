"""Which of a run's milestones it ends with, by what the same held-out pairs said of each, and the numbers behind that.

The rule is one of doubt: the last milestone stays unless an earlier one is distinguishably better on the same pairs,
that is, the 95 % interval of the paired difference of their losses leaves zero out. Of several such the one of least
mean loss is taken, of equal ones the one that drifted least. The best of many noisy numbers would be an early one by
luck: how often either rule was right is in LOG.md.

Shapes: P held-out pairs. Losses and rewards are in nats, drift in nats a token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from trimtab.analysis.intervals import FloatArray, bootstrap_interval, finite, paired_interval, rate_interval

By = Literal["held_out", "last"]

RULE = (
    "the last step, unless an earlier milestone has a distinguishably lower loss on the same held-out pairs (95 % "
    "interval of the paired difference); of several the one of least loss, of equal ones the one of least drift"
)
MIN_PAIRS = 10  # below, an interval of paired differences is no evidence


@dataclass(frozen=True, slots=True)
class Milestone:
    """The policy after `step` updates on P held-out pairs: reward gaps, losses under the run's objective, and, where
    there is a reference, values a pair whose means are nats a token: half the squared log-ratio, and the log-ratio of
    each side.
    """

    step: int
    epoch: float
    gaps_P: FloatArray
    losses_P: FloatArray
    drift_P: FloatArray | None = None
    chosen_P: FloatArray | None = None
    rejected_P: FloatArray | None = None

    @property
    def right_P(self) -> FloatArray:
        """1 where chosen is above rejected, ½ at a tie."""
        return np.where(self.gaps_P > 0, 1.0, np.where(self.gaps_P < 0, 0.0, 0.5))

    @property
    def log_losses_P(self) -> FloatArray:
        """−log σ(reward gap): the preference's own log-loss, whatever the objective."""
        return np.logaddexp(0.0, -self.gaps_P)


@dataclass(frozen=True, slots=True)
class Choice:
    """The step that was chosen, and why in one sentence that goes on from "because"."""

    step: int
    why: str


def choose(milestones: Sequence[Milestone], *, by: By) -> Choice:
    """The rule. `milestones` are in the order of their steps, at least one, the last of them the run's last step."""
    last = milestones[-1]
    if by == "last":
        return Choice(last.step, "select.by is last")
    n = len(last.losses_P)
    if n < MIN_PAIRS:
        return Choice(last.step, f"{n} held-out pairs are too few to compare milestones on")
    if len(milestones) == 1:
        return Choice(last.step, "there is no earlier milestone")
    better = [one for one in milestones[:-1] if _lower(one.losses_P, last.losses_P)]
    if not better:
        return Choice(last.step, f"no earlier milestone has a distinguishably lower loss on the {n} held-out pairs")
    best = min(better, key=lambda one: (float(one.losses_P.mean()), _mean(one.drift_P)))
    return Choice(best.step, f"its loss on the {n} held-out pairs is distinguishably lower than the last step's")


def _lower(losses_P: FloatArray, others_P: FloatArray) -> bool:
    """Whether the whole interval of the paired difference lies below zero."""
    return paired_interval(losses_P - others_P)[1] < 0


def _mean(values_P: FloatArray | None) -> float:
    return 0.0 if values_P is None else float(values_P.mean())


# --- numbers ---------------------------------------------------------------------------------------------------------


def numbers(milestones: Sequence[Milestone], *, picked: int) -> list[dict[str, Any]]:
    """Every milestone with each of its measures and the paired difference to the picked one; intervals over pairs."""
    chosen = _measures(next(one for one in milestones if one.step == picked))
    return [
        {
            "step": one.step,
            "epoch": one.epoch,
            "picked": one.step == picked,
            "n": len(one.gaps_P),
            **{name: _estimate(name, values_P) for name, values_P in _measures(one).items()},
            "against_picked": None
            if one.step == picked
            else {
                name: _value(values_P - chosen_P, paired_interval(values_P - chosen_P))
                for name, values_P in _measures(one).items()
                if values_P is not None and (chosen_P := chosen[name]) is not None
            },
        }
        for one in milestones
    ]


def outdone(told: Sequence[Mapping[str, Any]]) -> str | None:
    """A warning where an earlier milestone told held-out pairs apart distinguishably better than the picked one.

    `told`: of `numbers`. A loss without a floor goes on falling while pairs are confused, so that the rule keeps what
    training has ruined; accuracy shows it. It is no rule of its own: it is blind to how far apart pairs are.
    """
    picked = next(one for one in told if one["picked"])
    better = [
        one
        for one in told
        if one["step"] < picked["step"] and ((one["against_picked"]["accuracy"]["ci95"] or (0.0, 0.0))[0] > 0)
    ]
    if not better:
        return None
    best = max(better, key=lambda one: float(one["accuracy"]["value"]))
    return (
        f"held-out accuracy was distinguishably higher after step {best['step']}: {best['accuracy']['value']:.3f} "
        f"against {picked['accuracy']['value']:.3f} after step {picked['step']}. The loss does not show it; train for "
        f"fewer epochs, at a smaller learning rate, or with a nearer dead zone"
    )


def _measures(one: Milestone) -> Mapping[str, FloatArray | None]:
    return {
        "accuracy": one.right_P,
        "loss": one.losses_P,
        "log_loss": one.log_losses_P,
        "reward_gap": one.gaps_P,
        "drift": one.drift_P,
        "log_ratio_chosen": one.chosen_P,
        "log_ratio_rejected": one.rejected_P,
    }


def _estimate(name: str, values_P: FloatArray | None) -> dict[str, Any] | None:
    if values_P is None:
        return None
    return _value(values_P, rate_interval(values_P) if name == "accuracy" else bootstrap_interval(values_P))


def _value(values_P: FloatArray, bounds: tuple[float, float]) -> dict[str, Any]:
    low, high = (finite(bound) for bound in bounds)
    return {"value": finite(float(values_P.mean())), "ci95": None if low is None or high is None else [low, high]}
