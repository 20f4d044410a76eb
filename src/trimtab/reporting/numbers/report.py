"""The tree of report.json, typed: every number of a run or of several seeds."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trimtab.config import Config, PythonObjectiveSection, to_json
from trimtab.config.flags import as_words
from trimtab.objectives import Objective
from trimtab.reporting.numbers.benchmark import BenchmarkNumbers, benchmark_numbers
from trimtab.reporting.numbers.check import CheckNumbers
from trimtab.reporting.numbers.compute_saved import SavedNumbers, saved_numbers
from trimtab.reporting.numbers.reward import RewardNumbers, reward_numbers
from trimtab.reporting.numbers.samples import SampleGroup, sample_groups
from trimtab.reporting.numbers.training import (
    HeldoutNumbers,
    MilestoneNumbers,
    TrainingNumbers,
    heldout_numbers,
    milestone_numbers,
    training_numbers,
)
from trimtab.reporting.read import Run
from trimtab.runtime.run_setup import RunSetup
from trimtab.version import __version__

FORMAT = 11  # raise when report.json's keys or the pages change, so that finished reports are made again


@dataclass(frozen=True, slots=True)
class ObjectiveNumbers:
    name: str
    formula: str
    parameters: Mapping[str, float | None]
    dead_zone: str
    source: str
    on_scores: bool

    @classmethod
    def of(cls, objective: Objective) -> ObjectiveNumbers:
        return cls(
            objective.name,
            objective.formula,
            objective.parameters(),
            objective.dead_zone,
            objective.source,
            objective.on_scores,
        )


@dataclass(frozen=True, slots=True)
class EditedFiles:
    """Answers and verdicts of a seed that someone changed after they were made."""

    seed: int
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reproduction:
    """The commands that repeat a run: from the folder's configuration, and from flags (None: they cannot say it)."""

    from_file: str | None
    from_flags: str | None
    note: str


@dataclass(frozen=True, slots=True)
class Report:
    """`audit`, `plan`, `versions` and `config` are the files as they are, of the first seed."""

    format: int
    kind: Literal["run", "pooled"]
    trimtab: str
    seeds: tuple[int, ...]
    objective: ObjectiveNumbers
    benchmark: BenchmarkNumbers | None
    training: TrainingNumbers | None
    compute_saved: SavedNumbers | None
    heldout: HeldoutNumbers | None
    milestones: MilestoneNumbers | None
    reward: RewardNumbers | None
    check: CheckNumbers | None
    edited: tuple[EditedFiles, ...]
    audit: Mapping[str, Any] | None
    samples: tuple[SampleGroup, ...]
    plan: Mapping[str, Any] | None
    versions: Mapping[str, Any] | None
    config: Mapping[str, Any]
    reproduce: Reproduction


def report_of(runs: Sequence[Run], setup: RunSetup, *, check: CheckNumbers | None = None) -> Report:
    """Every number of runs that differ in their seed. `check`: what `trimtab check` left."""
    first, objective, config = runs[0], setup.objective, setup.config
    benchmark = benchmark_numbers(runs)
    return Report(
        format=FORMAT,
        kind="run" if len(runs) == 1 else "pooled",
        trimtab=__version__,
        seeds=tuple(run.seed for run in runs),
        objective=ObjectiveNumbers.of(objective),
        benchmark=benchmark,
        training=training_numbers(runs, objective, config),
        compute_saved=saved_numbers(runs),
        heldout=heldout_numbers(runs, imitates=objective.imitates),
        milestones=milestone_numbers(runs),
        reward=reward_numbers(runs),
        check=check,
        edited=tuple(EditedFiles(run.seed, run.edited) for run in runs if run.edited),
        audit=first.audit,
        samples=_samples(first, benchmark),
        plan=first.plan,
        versions=first.versions,
        config=to_json(config),
        reproduce=reproduction(config),
    )


def _samples(run: Run, benchmark: BenchmarkNumbers | None) -> tuple[SampleGroup, ...]:
    if benchmark is None or benchmark.lengths is None:
        return ()
    judge = benchmark.judges[0].judge if benchmark.judges else None
    return tuple(sample_groups(run, judge=judge, unit=benchmark.lengths.unit))


# --- to repeat it ----------------------------------------------------------------------------------------------------


def reproduction(config: Config) -> Reproduction:
    again = f"{config.out}-again"
    if isinstance(config.objective, PythonObjectiveSection):
        note = f"The program that has {config.objective.python_class} repeats it: trimtab.train(…, objective=…)."
        return Reproduction(from_file=None, from_flags=None, note=note)
    flags = as_words(config.model_copy(update={"out": again}))
    return Reproduction(
        from_file=f"trimtab run {shlex.quote(str(Path(config.out) / 'config.json'))} --out {shlex.quote(again)}",
        from_flags=shlex.join(["trimtab", "run", *flags]) if flags else None,
        note="With the same versions on the same kind of machine the numbers repeat; elsewhere they agree within "
        "rounding and, after many steps, within the spread between seeds. Intervals are resampled with fixed seeds.",
    )
