"""Training that goes wrong without a number that is not finite: a loss that climbs, or stands still, and why.

A `SymptomWatch` looks at the rows of `metrics.jsonl` one after another while they are made, in constant time a row, and
names each kind of trouble once, with its likely cause and what to do. The report asks the same of the whole file.

    climbing    the loss has been well above where it started: the learning rate is too high, the warm-up too short
    spike       the loss jumped far out of what it was for a few steps, and came back: the same, or odd pairs
    starved     almost nothing pulls any more before half of the steps: all in the dead zone, or saturated
    frozen      responses pull, and no gradient arrives at the weights
    unmoved     the policy is still its reference: a rate too small for the weights to move, or one and the same model

Thresholds were set on runs of the embedded world: all that went well are silent, and learning rates 100 times too high
or 10⁶ times too low are told within a dozen steps. Where the data decide what the loss starts from (SimPO), batches of
clean runs rose by up to .4 of it and those of a rate 20 times too high by 1.1. Losses are in the objective's own unit,
log-ratios in nats.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from trimtab.analysis.regime import STARVED_BELOW

Kind = Literal["climbing", "spike", "starved", "frozen", "unmoved"]

CLIMB_STEPS = 5  # of whose losses the median counts
CLIMB_SHARE = 0.25  # of its start that it may be above it
START_STEPS = 3  # whose median is the start where the data decide it: in the warm-up, the policy has hardly moved
DATA_CLIMB_SHARE = 2 / 3  # of such a start, which is a few batches' own
CLIMB_DEVIATIONS = 2.0  # standard errors that it has to be above its start
LEAST_UNIT, MOST_UNIT = 0.4, 2.0  # starts outside count as these: a margin of 0.001 or 1,000 is no measure of a rise
SPIKE_AFTER = 10  # steps, to know what is usual
SPIKE_DEVIATIONS = 8.0  # silent on every run that went well, see the head
MEMORY = 20  # steps over which the usual loss forgets
FROZEN_STEPS = 5  # in a row, so that one odd batch does not cry
MOVED_NATS = 0.01  # mean log-ratio that a policy should have left its reference by
NARROW_STEP = 3e-5  # half of the distance between bfloat16 numbers at 0.01, where weights are
WIDE_STEP = 5e-10  # of float32 numbers

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TrainingOutline:
    """What a run set out to do.

    total, warmup: optimizer steps. step_zero: the loss while policy = reference; None where the data decide it.
    beta: reward a nat. dtype: of the weights, as torch writes it.
    """

    total: int
    warmup: int
    step_zero: float | None
    beta: float
    needs_reference: bool
    has_dead_zone: bool
    dtype: str


@dataclass(frozen=True, slots=True)
class Symptom:
    """What was observed at `step` (1-based), why that happens, and what to do."""

    kind: Kind
    step: int
    observation: str
    cause: str
    remedy: str

    @property
    def sentence(self) -> str:
        return f"{self.observation}. Likely cause: {self.cause}. {self.remedy}."

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind, "step": self.step, "seen": self.observation, "cause": self.cause, "remedy": self.remedy,
        }  # fmt: skip


def symptoms(rows: Iterable[Row], outline: TrainingOutline) -> list[Symptom]:
    """What a `SymptomWatch` says of these rows of `metrics.jsonl`, in step order, as far as it still holds at the end:
    a dip that passed has starved nobody."""
    watch, shares, symptoms = SymptomWatch(outline), list[tuple[int, float]](), list[Symptom]()
    for row in rows:
        symptoms += watch.check(row)
        if (share := _share(row, outline)) is not None:
            shares.append((int(row.get("step", 0)), share))
    return [symptom for symptom in symptoms if symptom.kind != "starved" or _stays_starved(shares, symptom.step)]


def _stays_starved(shares: Sequence[tuple[int, float]], first_step: int) -> bool:
    later = [share for step, share in shares if step >= first_step]
    return sum(later) < STARVED_BELOW * len(later)


def _share(row: Row, outline: TrainingOutline) -> float | None:
    """How much still pulls in this row, as the regime is named by; None where it does not say."""
    return _mean([_number(row, f"{'active' if outline.has_dead_zone else 'pull'}/{side}") for side in _SIDES])


class SymptomWatch:
    """Looks on. What one row lacks (older versions, other tools) is not judged by."""

    def __init__(self, outline: TrainingOutline) -> None:
        self._detectors: list[_Detector] = [
            _LossDetector(outline),
            _StarvationDetector(outline),
            _FrozenDetector(outline),
            _UnmovedDetector(outline),
        ]

    def check(self, row: Row) -> list[Symptom]:
        """What this row shows for the first time; nearly always nothing."""
        new_symptoms = []
        for detector in list(self._detectors):
            if (symptom := detector.check(row)) is not None:
                new_symptoms.append(symptom)
                self._detectors.remove(detector)
        return new_symptoms


class _Detector(ABC):
    """One kind of trouble, told once."""

    def __init__(self, outline: TrainingOutline) -> None:
        self.outline = outline

    @abstractmethod
    def check(self, row: Row) -> Symptom | None:
        """What this row shows, if it is this trouble."""


class _LossDetector(_Detector):
    """A loss that climbs; or one that jumps, told a few steps later, when it is known not to climb.

    One batch far out is no trouble of the training: medians and a second batch are asked.
    """

    def __init__(self, outline: TrainingOutline) -> None:
        super().__init__(outline)
        self._last: deque[float] = deque(maxlen=CLIMB_STEPS)
        self._start = outline.step_zero
        self._n_losses = 0
        self._usual = self._spread = 0.0
        self._out: tuple[int, Symptom] | None = None
        self._again = False

    def check(self, row: Row) -> Symptom | None:
        loss, step = _number(row, "loss"), int(row.get("step", self._n_losses + 1))
        if loss is None:
            return None
        self._n_losses += 1
        self._last.append(loss)
        middle = median(self._last)
        if self._start is None and self._n_losses == START_STEPS:
            self._start = middle
        start = middle if self._start is None else self._start
        least_rise = self._least_rise(start)
        doubt = CLIMB_DEVIATIONS * math.sqrt(self._spread / CLIMB_STEPS)
        if self._n_losses > CLIMB_STEPS and middle - start > max(least_rise, doubt):
            observation = (
                f"The loss climbed to {middle:.3g} by step {step} (median of {CLIMB_STEPS}), from {start:.3g} at first"
            )
            return Symptom("climbing", step, observation, _too_fast(row, self.outline, step), _SLOWER)
        return self._check_jump(row, loss, step, least_rise)

    def _least_rise(self, start: float) -> float:
        """The least rise of the loss that counts."""
        if self.outline.step_zero is None:
            return DATA_CLIMB_SHARE * abs(start)
        return CLIMB_SHARE * min(max(abs(start), LEAST_UNIT), MOST_UNIT)

    def _check_jump(self, row: Row, loss: float, step: int, least_rise: float) -> Symptom | None:
        excess = loss - self._usual
        is_far = self._n_losses > SPIKE_AFTER and excess > max(SPIKE_DEVIATIONS * math.sqrt(self._spread), least_rise)
        if not is_far:
            self._learn(excess)
        if self._out is not None:
            first, spike = self._out
            self._again |= is_far
            if self._n_losses - first < CLIMB_STEPS:
                return None
            if self._again:
                return spike
            self._out = None
        elif is_far:
            observation = (
                f"The loss jumped to {loss:.3g} at step {step}, from {self._usual:.3g}, for more than one step"
            )
            cause = f"{_too_fast(row, self.outline, step)}, or the pairs of that batch are unlike all others"
            self._out, self._again = (self._n_losses, Symptom("spike", step, observation, cause, _LOOK)), False
        return None

    def _learn(self, excess: float) -> None:
        """Running mean and variance; each step weighs the same until MEMORY of them are known."""
        share = 1 / min(self._n_losses, MEMORY)
        self._usual += share * excess
        self._spread = (1 - share) * (self._spread + share * excess * excess)


class _StarvationDetector(_Detector):
    """Next to nothing pulls over a tenth of the run, before half of it: as the report names the regime."""

    def __init__(self, outline: TrainingOutline) -> None:
        super().__init__(outline)
        self._last: deque[float] = deque(maxlen=max(1, outline.total // 10))
        self._sum = 0.0
        self._first_loss: float | None = None

    def check(self, row: Row) -> Symptom | None:
        step, loss = int(row.get("step", 0)), _number(row, "loss")
        if loss is None or (share := _share(row, self.outline)) is None:
            return None
        self._first_loss = loss if self._first_loss is None else self._first_loss
        if len(self._last) == self._last.maxlen:
            self._sum -= self._last[0]
        self._last.append(share)
        self._sum += share
        mean = self._sum / len(self._last)
        if len(self._last) < (self._last.maxlen or 1) or 2 * step > self.outline.total or mean >= STARVED_BELOW:
            return None
        if loss > 0.9 * (self.outline.step_zero or self._first_loss):
            observation = (
                f"Hardly a response pulls any more by step {step} ({mean:.1%}), and the loss is no lower than at first"
            )
            cause = "a step too long threw the rewards out to where the loss is flat: the learning rate is too high"
            return Symptom("starved", step, observation, cause, _SLOWER)
        if self.outline.has_dead_zone:
            observation = (
                f"By step {step} of {self.outline.total} {mean:.1%} of the responses are active, the others are done"
            )
            cause = "the dead zone begins near, at margin / beta or what delta leaves, or so few pairs are soon learnt"
            return Symptom(
                "starved", step, observation, cause, "Raise objective.margin, lower beta or delta, or train less long"
            )
        observation = f"{mean:.1%} of the first pull is left by step {step} of {self.outline.total}"
        cause = "the rewards are far out where the loss is flat: beta is large for this learning rate"
        return Symptom("starved", step, observation, cause, "Lower objective.beta or train.learning_rate, or stop here")


class _FrozenDetector(_Detector):
    """Coefficients without a gradient."""

    def __init__(self, outline: TrainingOutline) -> None:
        super().__init__(outline)
        self._steps = 0

    def check(self, row: Row) -> Symptom | None:
        norm, active = _number(row, "grad_norm"), _number(row, "active/pair")
        pull = _mean([_number(row, f"pull/{side}") for side in _SIDES])
        responses_pull = active is not None and active > STARVED_BELOW and (pull is None or pull > STARVED_BELOW)
        self._steps = self._steps + 1 if norm == 0.0 and responses_pull else 0
        if self._steps < FROZEN_STEPS:
            return None
        step = int(row.get("step", 0))
        observation = (
            f"The gradient has been exactly zero for {FROZEN_STEPS} steps by step {step}, while responses pull"
        )
        cause = "what is trainable has no part in the responses: parameters are frozen, or the adapter sits elsewhere"
        return Symptom("frozen", step, observation, cause, "Check adapter.targets and train.freeze_embeddings")


class _UnmovedDetector(_Detector):
    """Log-ratios that stay at zero though the optimizer steps."""

    def __init__(self, outline: TrainingOutline) -> None:
        super().__init__(outline)
        self._distance = 0.0
        self._noise: float | None = None
        self._last: deque[float] = deque(maxlen=CLIMB_STEPS)
        self._by = min(outline.total, max(CLIMB_STEPS + 1, outline.warmup + math.ceil(outline.total / 10)))

    def check(self, row: Row) -> Symptom | None:
        rate, step = _number(row, "learning_rate"), int(row.get("step", 0))
        rewards = [_number(row, f"rewards/{side}") for side in _SIDES]
        if rate is None or None in rewards:
            return None
        ratio = max(abs(reward) for reward in rewards if reward is not None) / abs(self.outline.beta)
        self._noise = ratio if self._noise is None else self._noise  # the first row is before any update
        before, self._distance = self._distance, self._distance + rate
        self._last.append(ratio)
        if step < self._by or len(self._last) < CLIMB_STEPS:
            return None
        self._by = self.outline.total + 1  # looked at once
        if _number(row, "grad_norm") == 0.0 or self._has_moved(before):
            return None  # nothing pulls, or another detector tells why
        largest_ratio = max(self._last)
        ratios = f"mean log-ratios of {largest_ratio:.1g} nats at most"
        observation = f"After {step - 1} updates the policy still is its reference ({ratios})"
        if not self.outline.needs_reference:
            observation = f"After {step - 1} updates the policy still is what it was"
        return Symptom("unmoved", step, observation, *self._cause(before))

    def _has_moved(self, distance: float) -> bool:
        if self.outline.needs_reference and self._noise is not None:
            return max(self._last) > MOVED_NATS + 3 * self._noise
        return distance > (NARROW_STEP if self.outline.dtype == "bfloat16" else WIDE_STEP)

    def _cause(self, distance: float) -> tuple[str, str]:
        reach = f"the learning rates so far add up to {distance:.2g}, which is as far as AdamW moves a weight"
        if self.outline.dtype == "bfloat16" and distance < NARROW_STEP:
            return f"{reach}, less than the distance between bfloat16 numbers", _FASTER
        if max(self._last) > 0.0 or distance < NARROW_STEP:
            return f"the learning rate is too small: {reach}", _FASTER
        return (
            "policy and reference are one and the same model, or updates do not reach the weights that compute",
            "Check that nothing shares or restores the weights between steps",
        )


_SIDES = ("chosen", "rejected")
_SLOWER = "Lower train.learning_rate (a third, then a tenth), or lengthen train.warmup"
_FASTER = "Raise train.learning_rate tenfold, or train for more steps"
_LOOK = "Look at the batch of that step (visits.jsonl has its pairs); if it is in order, lower train.learning_rate"


def _too_fast(row: Row, outline: TrainingOutline, step: int) -> str:
    """What about the learning rate is wrong, as far as the time of the trouble tells."""
    rate = _number(row, "learning_rate")
    cause = "the learning rate is too high" + ("" if rate is None else f" ({rate:.2g} at this step")
    if step <= outline.warmup:
        return f"{cause}, still in its warm-up of {outline.warmup} steps)"
    cause += "" if rate is None else ")"
    if outline.warmup < max(3, outline.total / 33) and step < outline.total / 4:
        return f"{cause}, or the warm-up of {outline.warmup} steps too short"
    return cause


def _number(row: Row, name: str) -> float | None:
    value = row.get(name)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if len(present) == len(values) else None
