"""Early stopping: which of a run's milestones it ends with, by what the same held-out pairs said of each.

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

from trimtab.analysis.intervals import (
    FloatArray,
    Interval,
    difference_test,
    finite,
    mean_test,
    paired_mean_test,
    rate_interval,
)

By = Literal["held_out", "last"]

RULE = (
    "the last step, unless an earlier milestone has a distinguishably lower loss on the same held-out pairs (95 % "
    "interval of the paired difference, corrected for the number of milestones); of several the one of least loss, of "
    "equal ones the one of least drift"
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
    n_tests = len(milestones) - 1
    better = [earlier for earlier in milestones[:-1] if _lower(earlier.losses_P, last.losses_P, n_tests)]
    if not better:
        return Choice(last.step, f"no earlier milestone has a distinguishably lower loss on the {n} held-out pairs")
    best = min(better, key=lambda earlier: (float(earlier.losses_P.mean()), _mean(earlier.drift_P)))
    return Choice(best.step, f"its loss on the {n} held-out pairs is distinguishably lower than the last step's")


def harm(picked: Milestone, untrained_P: FloatArray) -> str | None:
    """A warning where the picked milestone's loss is distinguishably higher than before training, on the same pairs.

    The untrained model is compared and never picked: a loss on pairs is not the quality of answers, and a run that
    hands back what it was given helps nobody. But it has to be said.
    """
    test = paired_mean_test(picked.losses_P - untrained_P)
    if len(untrained_P) < MIN_PAIRS or not test.ci95[0] > 0:
        return None
    return (
        f"the loss on the {len(untrained_P)} held-out pairs is distinguishably higher than before training: "
        f"{picked.losses_P.mean():.4g} against {untrained_P.mean():.4g}. By these pairs the model is worse than before "
        "training: lower train.learning_rate, or train for fewer epochs"
    )


def _lower(losses_P: FloatArray, last_P: FloatArray, n_tests: int) -> bool:
    """Whether the whole interval of the paired difference lies below zero, at Bonferroni's level for `n_tests`: without
    it five milestones of equal loss would give way to an earlier one in 8 of 100 runs, not in 2.5.
    """
    return paired_mean_test(losses_P - last_P, level=1 - 0.05 / n_tests).ci95[1] < 0


def _mean(values_P: FloatArray | None) -> float:
    return 0.0 if values_P is None else float(values_P.mean())


# --- numbers ---------------------------------------------------------------------------------------------------------

MEASURES = ("accuracy", "loss", "log_loss", "reward_gap", "drift", "log_ratio_chosen", "log_ratio_rejected")


@dataclass(frozen=True, slots=True)
class Measure:
    """A mean over the held-out pairs and its 95 % interval; None where they could not be computed."""

    value: float | None
    ci95: Interval | None

    @classmethod
    def of(cls, values_P: FloatArray, bounds: Interval) -> Measure:
        low, high = (finite(end) for end in bounds)
        return cls(finite(float(values_P.mean())), None if low is None or high is None else (low, high))

    @classmethod
    def from_json(cls, tree: Mapping[str, Any] | None) -> Measure | None:
        if tree is None:
            return None
        bounds = tree["ci95"]
        return cls(tree["value"], None if bounds is None else (bounds[0], bounds[1]))

    def to_json(self) -> dict[str, Any]:
        return {"value": self.value, "ci95": None if self.ci95 is None else list(self.ci95)}


@dataclass(frozen=True, slots=True)
class MilestoneNumbers:
    """A row of `selection.json`: each of `MEASURES` (None without a reference) over `n` held-out pairs, and its paired
    difference to the picked milestone (None for the picked one itself).
    """

    step: int
    epoch: float
    picked: bool
    n: int
    measures: Mapping[str, Measure | None]
    against_picked: Mapping[str, Measure] | None

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> MilestoneNumbers:
        against = tree["against_picked"]
        return cls(
            tree["step"],
            tree["epoch"],
            tree["picked"],
            tree["n"],
            {name: Measure.from_json(tree[name]) for name in MEASURES},
            None if against is None else {name: of for name in against if (of := Measure.from_json(against[name]))},
        )

    def to_json(self) -> dict[str, Any]:
        against = self.against_picked
        return {
            "step": self.step,
            "epoch": self.epoch,
            "picked": self.picked,
            "n": self.n,
            **{name: None if of is None else of.to_json() for name, of in self.measures.items()},
            "against_picked": None if against is None else {name: of.to_json() for name, of in against.items()},
        }


def numbers(milestones: Sequence[Milestone], *, picked: int) -> list[MilestoneNumbers]:
    """Every milestone with each of its measures and the paired difference to the picked one; intervals over pairs."""
    chosen = _values(next(milestone for milestone in milestones if milestone.step == picked))
    rows = []
    for milestone in milestones:
        values = _values(milestone)
        differences = {
            name: values_P - chosen_P
            for name, values_P in values.items()
            if values_P is not None and (chosen_P := chosen[name]) is not None
        }
        rows.append(
            MilestoneNumbers(
                milestone.step,
                milestone.epoch,
                milestone.step == picked,
                len(milestone.gaps_P),
                {name: _measure(name, values_P) for name, values_P in values.items()},
                None
                if milestone.step == picked
                else {name: Measure.of(of_P, _difference_interval(name, of_P)) for name, of_P in differences.items()},
            )
        )
    return rows


def outdone(milestones: Sequence[Milestone], *, picked: int) -> str | None:
    """A warning where an earlier milestone told held-out pairs apart distinguishably better than the picked one.

    A loss without a floor goes on falling while pairs are confused, so that the rule keeps what training has ruined;
    accuracy shows it. It is no rule of its own: it is blind to how far apart pairs are.
    """
    pick = next(milestone for milestone in milestones if milestone.step == picked)
    earlier = [milestone for milestone in milestones if milestone.step < picked]
    better = [milestone for milestone in earlier if _is_more_accurate(milestone, pick, n_tests=len(earlier))]
    if not better:
        return None
    best = max(better, key=lambda milestone: float(milestone.right_P.mean()))
    is_hidden = float(best.losses_P.mean()) >= float(pick.losses_P.mean())
    return (
        f"held-out accuracy was distinguishably higher after step {best.step}: {best.right_P.mean():.3f} "
        f"against {pick.right_P.mean():.3f} after step {pick.step}. "
        f"{'The loss does not show it; train' if is_hidden else 'Train'} for fewer epochs, "
        "at a smaller learning rate, or with a nearer dead zone"
    )


def _is_more_accurate(earlier: Milestone, pick: Milestone, *, n_tests: int) -> bool:
    """At Bonferroni's level for `n_tests`, as the rule itself; never on fewer pairs than the rule asks for."""
    difference_P = earlier.right_P - pick.right_P
    is_enough = len(difference_P) >= MIN_PAIRS and float(difference_P.mean()) > 0
    return is_enough and difference_test(difference_P).p_value < 0.05 / n_tests


def _values(milestone: Milestone) -> Mapping[str, FloatArray | None]:
    columns = (
        milestone.right_P, milestone.losses_P, milestone.log_losses_P, milestone.gaps_P, milestone.drift_P,
        milestone.chosen_P, milestone.rejected_P,
    )  # fmt: skip
    return dict(zip(MEASURES, columns, strict=True))


def _measure(name: str, values_P: FloatArray | None) -> Measure | None:
    if values_P is None:
        return None
    return Measure.of(values_P, rate_interval(values_P) if name == "accuracy" else mean_test(values_P).ci95)


def _difference_interval(name: str, differences_P: FloatArray) -> Interval:
    return (difference_test if name == "accuracy" else paired_mean_test)(differences_P).ci95
