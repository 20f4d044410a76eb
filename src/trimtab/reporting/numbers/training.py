"""How training went: its regime, its symptoms, the curves behind the plots, and what held-out pairs said.

Shapes: K seeds, P held-out pairs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trimtab.analysis import estimates, regime
from trimtab.analysis.auc import auc_estimate
from trimtab.analysis.calibration import Calibration, calibration
from trimtab.analysis.intervals import FloatArray, finite
from trimtab.analysis.symptoms import Symptom, symptoms
from trimtab.config import Config
from trimtab.data.problems import source_of
from trimtab.engine.adapter_reach import AdapterReach
from trimtab.errors import DataError
from trimtab.objectives import Objective
from trimtab.records import Estimate
from trimtab.reporting.json_form import fields_form
from trimtab.reporting.metrics import Metrics
from trimtab.reporting.read import Outlooks, Run, Selection
from trimtab.runtime.symptom_watch import outline

CURVES = (
    "loss", "grad_norm", "learning_rate", "rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins",
    "logps/chosen", "logps/rejected", "active/chosen", "active/rejected", "active/pair", "pull/chosen", "pull/rejected",
    "skipped_backward", "skipped_forward", "promoted",
)  # fmt: skip
SIDES = ("active/chosen", "active/rejected", "pull/chosen", "pull/rejected")

Figures = Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class RegimeNumbers:
    """`name` is None where the rows cannot tell; `*_at_end` are shares over the last tenth of the steps."""

    name: str | None
    sentence: str
    share_at_end: float | None = None
    chosen_at_end: float | None = None
    rejected_at_end: float | None = None

    def to_json(self) -> dict[str, object]:
        return {"name": None, "sentence": self.sentence} if self.name is None else fields_form(self)


@dataclass(frozen=True, slots=True)
class EpochNumbers:
    """Mean active fraction and pull of each side in one epoch; None where rows have none."""

    epoch: int
    n_steps: int
    sides: Figures

    def to_json(self) -> dict[str, object]:
        return {"epoch": self.epoch, "n_steps": self.n_steps} | dict(self.sides)


@dataclass(frozen=True, slots=True)
class SeedTrainingNumbers:
    """One seed: `first` and `last_tenth` are the metrics of its first step and the means of its last tenth."""

    seed: int
    n_steps: int
    epochs: float | None
    seconds: float | None
    tokens_per_second: float | None
    peak_memory_bytes: float | None
    first: Figures
    last_tenth: Figures
    regime: RegimeNumbers
    symptoms: tuple[Symptom, ...]
    outlooks: Outlooks | None
    sides_by_epoch: tuple[EpochNumbers, ...]
    curves: Mapping[str, Sequence[float | None]]

    def to_json(self) -> dict[str, object]:
        sentences = [symptom.to_json() | {"sentence": symptom.sentence} for symptom in self.symptoms]
        return fields_form(self) | {"symptoms": sentences}


@dataclass(frozen=True, slots=True)
class NoiseNumbers:
    """What the arithmetic leaves unsure: `sentence` as the run said it; of `n_pairs` held-out pairs of all seeds,
    `n_unsure` end with a reward gap of less than two standard deviations of a gap's noise."""

    sentence: str
    n_pairs: int
    n_unsure: int


@dataclass(frozen=True, slots=True)
class TrainingNumbers:
    """`step_zero` is the loss of a policy equal to its reference; None where it began as another model.

    `adapter` is None without one, and where the plan of the run does not say what it reaches; `noise` in float32, and
    where the run did not measure it."""

    step_zero: float | None
    has_dead_zone: bool
    adapter: AdapterReach | None
    noise: NoiseNumbers | None
    seeds: tuple[SeedTrainingNumbers, ...]


def training_numbers(runs: Sequence[Run], objective: Objective, config: Config) -> TrainingNumbers | None:
    """One entry a seed; None when no run recorded a step."""
    seeds = tuple(_seed(run, objective, config) for run in runs if len(run.metrics))
    if not seeds:
        return None
    adapter, noise = _adapter_reach(runs[0]), _noise(runs)
    step_zero = objective.step_zero() if config.model.reference is None else None
    return TrainingNumbers(step_zero, objective.has_dead_zone, adapter, noise, seeds)


def _adapter_reach(run: Run) -> AdapterReach | None:
    tree = (run.plan or {}).get("engine", {}).get("adapter")
    return None if tree is None else AdapterReach.from_json(tree)


def _noise(runs: Sequence[Run]) -> NoiseNumbers | None:
    tree = (runs[0].versions or {}).get("noise")
    if tree is None or tree["precision"] == "float32":
        return None
    of_gap = math.sqrt(2) * tree["beta"] * tree["nats"]
    gaps = [gap for run in runs if run.heldout is not None for gap in run.heldout.after.values()]
    return NoiseNumbers(tree["sentence"], len(gaps), sum(abs(gap) < 2 * of_gap for gap in gaps))


def _seed(run: Run, objective: Objective, config: Config) -> SeedTrainingNumbers:
    metrics = run.metrics
    tail = metrics.part(-max(1, len(metrics) // 10))
    first, last = metrics.part(0, 1), metrics.part(-1)
    return SeedTrainingNumbers(
        seed=run.seed,
        n_steps=len(metrics),
        epochs=metrics.last("epoch"),
        seconds=metrics.last("seconds"),
        tokens_per_second=metrics.median("tokens_per_second"),
        peak_memory_bytes=max(metrics.values("peak_memory_bytes"), default=None),
        first={name: first.last(name) for name in CURVES if first.has(name)},
        last_tenth={name: tail.mean(name) for name in CURVES if last.has(name)},
        regime=_regime(metrics, objective),
        symptoms=_symptoms(run, objective, config),
        outlooks=run.outlooks,
        sides_by_epoch=tuple(
            EpochNumbers(epoch, len(rows), {side: rows.mean(side) for side in SIDES})
            for epoch, rows in metrics.by_epoch().items()
        ),
        curves=metrics.curves(CURVES),
    )


def _regime(metrics: Metrics, objective: Objective) -> RegimeNumbers:
    try:
        result = regime.name_regime(metrics.rows, has_dead_zone=objective.has_dead_zone)
    except DataError as error:
        return RegimeNumbers(None, f"The regime cannot be named: {error.message}.")
    ends = (finite(share) for share in (result.share_at_end, result.chosen_at_end, result.rejected_at_end))
    return RegimeNumbers(result.name, result.sentence, *ends)


def _symptoms(run: Run, objective: Objective, config: Config) -> tuple[Symptom, ...]:
    """What the log said while it trained; the plan has what `auto` became."""
    plan = run.plan or {}
    steps = plan.get("train", {}).get("steps") or len(run.metrics)
    dtype = plan.get("engine", {}).get("dtype") or config.engine.dtype
    return tuple(symptoms(run.metrics.rows, outline(config, objective, steps=steps, dtype=dtype)))


# --- held-out pairs --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HeldoutSide:
    """Reward accuracy (a share, ties counted as half), reward gap in nats, what a gap means; `n_ties` gaps are 0.

    Of unpaired rows: the share whose reward has its label's sign, the mean reward with a bad row's sign turned, and
    `auc`, the chance that a good row has a higher reward than a bad one; None of pairs.
    """

    accuracy: Estimate
    reward_gap: Estimate
    calibration: Calibration
    n_ties: int
    auc: Estimate | None = None

    @property
    def ranks_nothing(self) -> bool:
        """Whether every gap is 0, as by construction before training where rewards are against a reference."""
        return self.n_ties == self.calibration.n

    @classmethod
    def of(cls, gaps_KP: FloatArray, good_P: npt.NDArray[np.bool_] | None = None) -> HeldoutSide:
        """`good_P`: the labels of unpaired rows."""
        right_KP = np.where(gaps_KP > 0, 1.0, np.where(gaps_KP < 0, 0.0, 0.5))  # a tie is half right
        rows = "pairs" if good_P is None else "rows"
        return cls(
            estimates.rate(right_KP, rows=rows),
            estimates.mean(gaps_KP, unit="nats", rows=rows),
            calibration(gaps_KP.ravel().tolist()),
            int((gaps_KP == 0).sum()),
            None if good_P is None else auc_estimate(np.where(good_P, gaps_KP, -gaps_KP), good_P),
        )

    def to_json(self) -> dict[str, object]:
        return fields_form(self, "calibration", "n_ties", *(["auc"] if self.auc is None else []))


@dataclass(frozen=True, slots=True)
class ImitationNumbers:
    """Mean negative log-likelihood of held-out responses, nats a token, before and after, and the paired change."""

    before: float
    after: float
    change: Estimate

    @classmethod
    def of(cls, runs: Sequence[Run], rows: Sequence[str]) -> ImitationNumbers | None:
        """None where a seed has no losses. A row's loss is its share of the mean over tokens (objective `sft`)."""
        losses = [run.heldout.losses for run in runs if run.heldout is not None and run.heldout.losses is not None]
        if len(losses) < len(runs) or not rows:
            return None
        before_KP, after_KP = (_table([of_run[phase] for of_run in losses], rows) for phase in ("before", "after"))
        change = estimates.paired(after_KP - before_KP, unit="nats", rows="rows")
        return cls(float(before_KP.mean()), float(after_KP.mean()), change)


@dataclass(frozen=True, slots=True)
class HeldoutNumbers:
    """Over all seeds, before training (None: not known) and after it: every seed holds out the same pairs, which are
    pooled as prompts are. `by_seed` is after training, and so is `by_source`, of all seeds: empty where the held-out
    pairs are of one source.
    """

    before: HeldoutSide | None
    after: HeldoutSide
    by_seed: Mapping[int, HeldoutSide]
    by_source: Mapping[str, HeldoutSide]
    imitation: ImitationNumbers | None = None

    def to_json(self) -> dict[str, object]:
        before = self.before
        return {
            **self.after.to_json(),
            "before": before,
            "calibration": {"before": None if before is None else before.calibration, "after": self.after.calibration},
            "by_seed": [{"seed": seed} | side.to_json() for seed, side in self.by_seed.items()],
            "by_source": [{"source": source} | side.to_json() for source, side in self.by_source.items()],
            **({} if self.imitation is None else {"imitation": fields_form(self.imitation)}),
        }


def heldout_numbers(runs: Sequence[Run], *, imitates: bool = False) -> HeldoutNumbers | None:
    """None where a seed did not look at pairs kept out of training. `imitates`: of the objective."""
    heldouts = [run.heldout for run in runs if run.heldout is not None]
    if len(heldouts) < len(runs):
        return None
    afters = [heldout.after for heldout in heldouts]
    befores = [heldout.before for heldout in heldouts if heldout.before is not None]
    pairs = [pair for pair in afters[0] if all(pair in after for after in afters)]
    labels, after_KP = heldouts[0].labels, _table(afters, pairs)
    good_P = _good(labels, pairs)
    return HeldoutNumbers(
        before=HeldoutSide.of(_table(befores, pairs), good_P) if len(befores) == len(runs) else None,
        after=HeldoutSide.of(after_KP, good_P),
        by_seed={run.seed: HeldoutSide.of(after_KP[k : k + 1], good_P) for k, run in enumerate(runs)},
        by_source=_by_source(afters, pairs, labels),
        imitation=ImitationNumbers.of(runs, pairs) if imitates and labels is not None else None,
    )


def _good(labels: Mapping[str, bool] | None, rows: Sequence[str]) -> npt.NDArray[np.bool_] | None:
    return None if labels is None else np.array([labels[row] for row in rows])


def _by_source(
    afters: Sequence[Mapping[str, float]], pairs: Sequence[str], labels: Mapping[str, bool] | None
) -> dict[str, HeldoutSide]:
    by_source: dict[str, list[str]] = {}
    for pair in pairs:
        by_source.setdefault(source_of(pair), []).append(pair)
    if len(by_source) < 2:
        return {}
    return {source: HeldoutSide.of(_table(afters, of), _good(labels, of)) for source, of in by_source.items()}


def _table(gaps: Sequence[Mapping[str, float]], pairs: Sequence[str]) -> FloatArray:
    return np.array([[of_seed[pair] for pair in pairs] for of_seed in gaps], dtype=np.float64)


# --- milestones ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SeedMilestones:
    """A seed's `selection.json`; its JSON leaves out the names of the held-out pairs."""

    seed: int
    selection: Selection

    def to_json(self) -> dict[str, object]:
        return {"seed": self.seed} | {key: of for key, of in self.selection.document.items() if key != "ids"}


@dataclass(frozen=True, slots=True)
class MilestoneNumbers:
    seeds: tuple[SeedMilestones, ...]


def milestone_numbers(runs: Sequence[Run]) -> MilestoneNumbers | None:
    """None where no run chose among milestones."""
    seeds = tuple(SeedMilestones(run.seed, run.selection) for run in runs if run.selection is not None)
    return MilestoneNumbers(seeds) if seeds else None
