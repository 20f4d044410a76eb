"""What a run sets out to do, and the watch over its rows of metrics that knows it."""

from __future__ import annotations

from trimtab import store
from trimtab.analysis.symptoms import SymptomWatch, TrainingOutline
from trimtab.config import Config
from trimtab.engine.order import started_steps
from trimtab.objectives import Objective
from trimtab.runtime.run_setup import RunSetup


def outline(config: Config, objective: Objective, *, steps: int, dtype: str) -> TrainingOutline:
    """`steps`: optimizer steps in all; `dtype`: of the weights, as torch writes it."""
    return TrainingOutline(
        total=steps,
        warmup=started_steps(config.train.warmup, steps),
        step_zero=objective.at(0.0).step_zero() if config.model.reference is None else None,
        beta=objective.beta,
        needs_reference=objective.needs_reference,
        has_dead_zone=objective.has_dead_zone,
        dtype=dtype,
    )


def watch_from(setup: RunSetup, *, steps: int, dtype: object) -> SymptomWatch:
    """Looks for trouble in the rows to come; what the rows that are there showed was said when they were made."""
    watch = SymptomWatch(outline(setup.config, setup.objective, steps=steps, dtype=str(dtype).removeprefix("torch.")))
    for row in store.iter_jsonl(setup.folder.metrics):
        watch.check(row)
    return watch
