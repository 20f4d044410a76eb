"""The logs of a training run, and those who read along."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from trimtab import store
from trimtab.progress import Reporter
from trimtab.runtime import outlook_watch, resuming
from trimtab.runtime.other_work import OtherWork
from trimtab.runtime.symptom_watch import watch_from
from trimtab.runtime.training_state import TrainingState


@contextmanager
def training_log(
    training: TrainingState, reporter: Reporter
) -> Iterator[Callable[[dict[str, Any], dict[str, Any]], None]]:
    """Where each step's rows go: to the logs, to those who watch, onto the screen. The first process alone has them."""
    setup, folder, steps, first = training.setup, training.setup.folder, training.order.steps, training.step
    if not setup.processes.is_first:
        yield lambda _row, _visit: None
        return
    with (
        store.JsonLines(folder.metrics, keep=lambda row: resuming.until(row, first)) as metrics_log,
        store.JsonLines(folder.visits, keep=lambda row: resuming.until(row, first)) as visits_log,
        reporter.track("training", total=steps, unit="steps", n_done=first) as advance,
    ):
        watch, others = watch_from(setup, steps=steps, dtype=training.scorer.dtype), OtherWork()
        outlook = outlook_watch.watch_from(setup, training.order, training.pairs)

        def log(row: dict[str, Any], visit: dict[str, Any]) -> None:
            metrics_log.append(row)
            visits_log.append(visit)
            for symptom in watch.check(row):
                reporter.say(f"train: {symptom.sentence}")
            outlook_watch.look(outlook, row, visit, setup=setup, reporter=reporter)
            figures = {"loss": row["loss"], "accuracy": row["rewards/accuracies"], "active": row["active/pair"]}
            advance(1, **figures, **others.words())

        yield log
