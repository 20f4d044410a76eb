"""`trimtab plan --pilot-steps`: the first steps of a run, and where they say that it leads."""

from __future__ import annotations

import tempfile
from dataclasses import replace

from trimtab.analysis.outlook import least_steps
from trimtab.commands.plan import Plan
from trimtab.engine.order import Order
from trimtab.errors import ConfigError
from trimtab.progress import Reporter, SilentReporter
from trimtab.runtime import outlook_watch, set_up
from trimtab.runtime.run_setup import RunSetup
from trimtab.stages import prepare, reference, train


def pilot(plan: Plan, setup: RunSetup, *, steps: int, reporter: Reporter) -> Plan:
    """The plan with what `steps` optimizer steps of the run say of its course.

    They are made in a temporary folder; what they need of the reference stays in its cache. Raises ConfigError where
    they, or all steps of the run, are too few to say anything.
    """
    if not setup.objective.needs_reference:
        raise ConfigError(
            f"--pilot-steps: {setup.objective.name} has no reference to move away from", remedy="leave it out"
        )
    _require_pilot(setup, setup.order(plan.train.pairs), steps)
    with tempfile.TemporaryDirectory() as folder:
        train_section = setup.config.train.model_copy(update={"save_every": plan.train.steps})
        trial = set_up(setup.config.model_copy(update={"out": folder, "seeds": 1, "train": train_section}))
        prepare.main(trial, reporter=reporter)
        reference.main(trial, reporter=reporter)
        train.main(trial, reporter=SilentReporter(), until=steps)
        pairs = trial.folder.train_pairs()
        order = trial.order(len(pairs))
        watch = outlook_watch.watch_from(trial, order, pairs)
        outlook = watch.final or watch.early or watch.outlook()
    if outlook is None:
        _require_pilot(setup, order, steps)  # the plan of a long source has only an estimate of its pairs
        raise ConfigError(f"--pilot-steps {steps}: these steps say nothing of the run", remedy="leave it out")
    return replace(plan, outlook=outlook)


def _require_pilot(setup: RunSetup, order: Order, steps: int) -> None:
    """Raises ConfigError where the run, or its first `steps`, are too short for an outlook."""
    first = outlook_watch.first_try(setup, order)
    if first is None:
        batch = outlook_watch.smallest_batch(order)
        need = f"{least_steps(batch)} steps of {batch} pairs"
        raise ConfigError(
            f"--pilot-steps: an outlook needs {need}, and the whole run has {order.steps}",
            remedy="leave it out, or make the run longer: more pairs, more epochs or a smaller train.batch_pairs",
        )
    if steps < first:
        raise ConfigError(
            f"--pilot-steps {steps}: too few to say where {order.steps:,} steps lead", remedy=f"take {first:,}"
        )
