"""What a run is heading for, from its first steps: how far its log-ratios will go, and the regime that follows.

AdamW moves each weight by about its learning rate a step, whatever the gradient's size. Near the reference log-ratios
therefore grow with the sum of the learning rates so far, the distance: r ∝ distance^growth, with a growth of 1 where
the updates agree and ½ where they are noise. What was visited early, scaled so to each later step, is put through the
objective itself, and the regime is named by the rule that names it afterwards (`regime`).

GROWTH was chosen on fifty runs of the embedded world and tested on fifty others (`python -m experiments.outlook_runs`;
LOG.md has the table): a middle of 1 names most regimes right, and the measured growth of eight runs of ten lies within
.4 of each other. All of these runs had gone at least a LARGEST_RATIOth of their way and had visited LEAST_PAIRS after
an update, so no outlook is made from less.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from trimtab.analysis.intervals import FloatArray
from trimtab.analysis.regime import RegimeName, name_regime

Growth = tuple[float, float, float]
GROWTH: Growth = (0.8, 1.0, 1.2)  # slow, middle, fast: see the head
LARGEST_RATIO = 30.0  # of the whole distance to the one so far
LEAST_PAIRS = 16  # visited after an update
TRIES = (1 / 30, 1 / 20, 1 / 10, 1 / 5)  # shares of the distance at which an outlook is asked for
POINTS = 8  # later steps that are put through the objective; what lies between is interpolated
OUT_OF_LINEAR, OUT_OF_STARVED = 0.8, 0.2  # pull at the end that a remedy aims at: well off both thresholds
LARGEST_SCALE = 1e4  # of log-ratios; a remedy beyond is none

Shares = Callable[[FloatArray], tuple[float, float]]
"""Factors [V] of the visited log-ratios -> how much of the chosen and the rejected responses still pulls, in [0, 1]."""


@dataclass(frozen=True, slots=True)
class EarlyVisits:
    """What the objective saw in the first steps of a run.

    rates_T: the learning rate of every step of the run, past and to come. steps_V: the step (0-based) of each visited
    pair, whose log-ratios (nats, or nats a token) are chosen_V and rejected_V. sides_K: shares that pulled in each of
    the K steps so far, [K, 2]. shares: see `Shares`. reach: nats at which a pair that moves apart evenly pulls half as
    hard as at first; None where no distance does that.
    """

    rates_T: FloatArray
    steps_V: FloatArray
    chosen_V: FloatArray
    rejected_V: FloatArray
    sides_K: FloatArray
    shares: Shares
    reach: float | None
    has_dead_zone: bool

    @property
    def distance_T(self) -> FloatArray:
        """Sum of the rates before each step."""
        return np.concatenate([[0.0], np.cumsum(self.rates_T)[:-1]])


@dataclass(frozen=True, slots=True)
class Remedy:
    """What would bring the pull at the end to `pull`: the learning rate times `rate`, or β times `beta`, each as
    (least, middle, most) by growth."""

    pull: float
    rate: tuple[float, float, float]
    beta: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Outlook:
    """After `step` updates of `steps`; triples are by growth: slow, middle, fast. `chosen` and `rejected` are mean
    log-ratios at the end. `remedy` is None where none is wanted, or where no factor would do."""

    step: int
    steps: int
    regimes: tuple[RegimeName, RegimeName, RegimeName]
    share_at_end: tuple[float, float, float]
    chosen: tuple[float, float, float]
    rejected: tuple[float, float, float]
    reach: float | None
    remedy: Remedy | None

    @property
    def regime(self) -> RegimeName:
        return self.regimes[1]

    @property
    def is_decided(self) -> bool:
        """Whether slow and fast growth lead to the same regime."""
        return len(set(self.regimes)) == 1

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"regime": self.regime, "decided": self.is_decided}

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Outlook:
        remedy = tree["remedy"]
        triples = {name: tuple(tree[name]) for name in ("regimes", "share_at_end", "chosen", "rejected")}
        return cls(
            step=tree["step"],
            steps=tree["steps"],
            reach=tree["reach"],
            remedy=None if remedy is None else Remedy(remedy["pull"], tuple(remedy["rate"]), tuple(remedy["beta"])),
            **triples,
        )


def least_steps(batch_pairs: int) -> int:
    """Steps in which LEAST_PAIRS are visited after an update; the first step shows none."""
    return 1 + math.ceil(LEAST_PAIRS / batch_pairs)


def tries(rates_T: FloatArray, *, batch_pairs: int) -> list[int]:
    """After how many updates an outlook is asked for, until one is decided."""
    least = least_steps(batch_pairs)
    distance_T = np.cumsum(rates_T)
    # a step's log-ratios show what the updates before it did
    ways = [share * distance_T[-1] * (1 - 1e-9) for share in TRIES]  # a step that is there but for rounding is there
    first = [int(np.searchsorted(distance_T, way)) + 2 for way in ways]
    return sorted({max(step, least) for step in first if max(step, least) < len(rates_T)})


def outlook(visits: EarlyVisits, *, growth: Growth = GROWTH) -> Outlook | None:
    """None where too few pairs were visited that an update had moved, or too little of the distance lies behind."""
    distance_T, step = visits.distance_T, len(visits.sides_K)
    at_V = distance_T[visits.steps_V.astype(np.int64)]
    moved_V = at_V > 0
    if moved_V.sum() < LEAST_PAIRS or float(at_V.max()) * LARGEST_RATIO < distance_T[-1]:
        return None
    last = float(np.mean(distance_T[-max(1, len(distance_T) // 10) :]))

    def factors(exponent: float, distance: float) -> FloatArray:
        return np.where(moved_V, (distance / np.where(moved_V, at_V, 1.0)) ** exponent, 0.0)

    regimes = [_regime(visits, distance_T, partial(factors, exponent)) for exponent in growth]
    ends = [factors(exponent, last) for exponent in growth]
    names = [name for name, _ in regimes]
    return Outlook(
        step=step,
        steps=len(distance_T),
        regimes=(names[0], names[1], names[2]),
        share_at_end=_triple([share for _, share in regimes]),
        chosen=_triple([float((end_V * visits.chosen_V)[moved_V].mean()) for end_V in ends]),
        rejected=_triple([float((end_V * visits.rejected_V)[moved_V].mean()) for end_V in ends]),
        reach=visits.reach,
        remedy=_remedy(visits, ends, names[1], growth=growth),
    )


def _regime(
    visits: EarlyVisits, distance_T: FloatArray, factors: Callable[[float], FloatArray]
) -> tuple[RegimeName, float]:
    """The regime of the steps so far and of those to come, and the share at the end."""
    step, steps = len(visits.sides_K), len(distance_T)
    later = np.unique(np.linspace(step, steps - 1, POINTS).astype(np.int64)) if step < steps else np.array([], np.int64)
    predicted = [visits.shares(factors(float(distance_T[t]))) for t in later]
    rows = [*visits.sides_K]
    if predicted:
        times = np.arange(step, steps)
        rows += zip(*(np.interp(times, later, [pair[side] for pair in predicted]) for side in (0, 1)), strict=True)
    noun = "active" if visits.has_dead_zone else "pull"
    regime = name_regime(
        [{f"{noun}/chosen": chosen, f"{noun}/rejected": rejected} for chosen, rejected in rows],
        has_dead_zone=visits.has_dead_zone,
    )
    return regime.name, regime.share_at_end


def _remedy(visits: EarlyVisits, ends: Sequence[FloatArray], regime: RegimeName, *, growth: Growth) -> Remedy | None:
    """Objectives read β·r, so β does to a pull what the same factor on all log-ratios does."""
    if regime not in ("linear", "starved"):
        return None
    target = OUT_OF_LINEAR if regime == "linear" else OUT_OF_STARVED
    scales = [_scale(visits.shares, end_V, target=target, grows=regime == "linear") for end_V in ends]
    if None in scales:
        return None
    betas = [scale for scale in scales if scale is not None]
    rates = [scale ** (1 / exponent) for scale, exponent in zip(betas, growth, strict=True)]
    return Remedy(target, _triple(sorted(rates)), _triple(sorted(betas)))


def _scale(shares: Shares, end_V: FloatArray, *, target: float, grows: bool) -> float | None:
    """By what all log-ratios at the end have to be multiplied for their pull to fall, or rise, to the target."""
    near, far = 0.0, math.log(LARGEST_SCALE) * (1 if grows else -1)

    def is_there(log_scale: float) -> bool:
        pull = sum(shares(end_V * math.exp(log_scale))) / 2
        return pull <= target if grows else pull >= target

    if not is_there(far):
        return None
    for _ in range(16):  # to 1.5e-4 of the logarithm
        middle = (near + far) / 2
        near, far = (near, middle) if is_there(middle) else (middle, far)
    return math.exp(far)


def _triple(values: Sequence[float]) -> tuple[float, float, float]:
    slow, middle, fast = values
    return slow, middle, fast
