"""The whole pipeline: prepare, reference, train, generate, judge, report; once for every seed.

Each stage skips what it has already made from the same inputs, so running again costs what changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from trimtab import store, tracking
from trimtab.callbacks import Callback
from trimtab.commands import doctor, plan
from trimtab.config import Config, default_of, files, keys, to_json
from trimtab.engine.processes import ALONE, Processes
from trimtab.errors import ConfigError
from trimtab.progress import Reporter, SilentReporter
from trimtab.runtime import listeners, preflight, resuming, training_inputs
from trimtab.runtime.folder import Folder
from trimtab.runtime.judges import judge_setup
from trimtab.runtime.model_loading import require_extras
from trimtab.runtime.run_setup import RunSetup, set_up
from trimtab.runtime.trackers import trackers
from trimtab.stages import generate, judge, prepare, reference, report, train

# keys that change where and how fast a run is computed, not what it is
INCIDENTAL = frozenset({"out", "offline", "base_url", "track.to", "track.project"}) | {
    f"engine.{name}" for name in ("threads", "processes", "shard", "timeout")
}
# what is asked of a model after training: stages make it anew where it changed
EVALUATION = ("generate.", "benchmark.", "judge.")


def main(
    config: Config,
    *,
    reporter: Reporter,
    resume: bool = False,
    resume_anyway: bool = False,
    callbacks: Sequence[Callback] = (),
    processes: Processes = ALONE,
) -> Folder:
    """Run every stage; returns the folder that holds the report."""
    setup = set_up(config, processes=processes)
    folder = setup.folder
    if (resume or resume_anyway) and not folder.config.is_file():
        raise ConfigError(f"there is no run to resume in {folder.root}", remedy="leave --resume out to start one")
    if processes.is_first:
        judge_setup.require(setup)
    with hold_run_folder(setup, reporter=reporter, resume_anyway=resume_anyway):
        for single in seeds(setup, reporter=reporter):
            everybody = [*callbacks, *trackers(single, reporter=reporter)] if processes.is_first else []
            with listeners.until_the_end(single, everybody):
                _pipeline(single, reporter, resume_anyway, everybody)
        if config.seeds > 1 and processes.is_first:
            report.main(setup.apart, reporter=reporter)
    reporter.say(f"report: {folder.report('html')}")
    for single in setup.each_seed() if processes.is_first else ():
        judge.refuse_if_incomplete(single)
    return folder


def make_shared_work(config: Config, *, reporter: Reporter) -> None:
    """What runs on the same model and data share: prepared data, reference log-probs, the unaligned model's answers."""
    setup = set_up(config)
    judge_setup.require(setup)  # what the run would be refused for is not found out after it
    with hold_run_folder(setup, reporter=reporter):
        for single in seeds(setup, reporter=reporter):
            prepare.main(single, reporter=reporter)
            reference.main(single, reporter=reporter)
            generate.answer_unaligned(single, reporter=reporter)


@contextmanager
def hold_run_folder(
    setup: RunSetup, *, reporter: Reporter, resume_anyway: bool = False, trains: bool = True
) -> Iterator[None]:
    """Hold the run folder, with the resolved configuration, the plan and the versions in it.

    The plan is made first: what cannot be run leaves no folder behind. A folder that holds another run is refused, and
    one that was trained before its data, tokenizer or weights changed. One whose evaluation changed is planned anew; so
    is, with `resume_anyway`, one whose course or cost did. `trains`: False for what only reads the trained model.
    Of several processes the first holds the folder, and the others wait until it is described.
    """
    if not setup.processes.is_first:
        setup.processes.follow()
        yield
        return
    require_extras(setup.config)
    if trains:
        tracking.require(setup.config.track.to)
    _refuse_other_run(setup, resume_anyway=resume_anyway)
    description = _description(setup.apart, trains=trains, reporter=reporter)
    with store.lock(setup.folder.root):
        _refuse_other_run(setup, resume_anyway=resume_anyway)  # another may have begun while this one was planned
        description.write()
        for line in description.lines():
            reporter.say(line)
        setup.processes.follow()
        yield


def seeds(setup: RunSetup, *, reporter: Reporter, trains: bool = True) -> Iterator[RunSetup]:
    """The runs of a configuration one after another, each with its own folder described. Within `hold_run_folder`."""
    for single in setup.each_seed():
        if setup.config.seeds > 1:
            reporter.say(f"seed {single.config.seed}")
            setup.processes.first(partial(_describe, single, trains=trains))
        yield single


def _describe(setup: RunSetup, *, trains: bool) -> None:
    _description(setup.apart, trains=trains, reporter=SilentReporter()).write()


@dataclass(frozen=True, slots=True)
class _Description:
    """What a run folder says of its run. `plan` is None where the one that is there still holds, or stays."""

    setup: RunSetup
    inputs: prepare.Inputs
    plan: plan.Plan | None

    def write(self) -> None:
        folder, config = self.setup.folder, to_json(self.setup.config)
        if self.plan is not None:
            store.write_json(folder.versions, doctor.versions().to_json())
            store.write_json(folder.plan, self.plan.to_json())
        if self.plan is not None or not folder.training_inputs.is_file():  # of a run of an earlier version
            store.write_json(folder.training_inputs, self.inputs.training.to_json())
        if self.plan is not None or store.read_json(folder.config) != config:
            store.write_json(folder.config, config)
        if self.plan is not None:
            folder.finish("plan", plan.inputs_digest(self.inputs), [folder.plan])

    def lines(self) -> list[str]:
        return [] if self.plan is None else plan.lines(self.plan)


def _description(setup: RunSetup, *, trains: bool, reporter: Reporter) -> _Description:
    """Raises ConfigError where the run was trained on other inputs and would train, or prepare, again."""
    folder = setup.folder
    inputs = prepare.inputs(setup)  # known to the cache from here on: one that cannot be written is found out now
    is_same = folder.config.is_file() and store.read_json(folder.config) == to_json(setup.config)
    if is_same and folder.is_done("plan", plan.inputs_digest(inputs)):
        return _Description(setup, inputs, None)
    if trains:
        training_inputs.refuse_changed(setup, inputs.training)
    elif training_inputs.changes(setup, inputs.training):
        return _Description(setup, inputs, None)  # the plan that the model was trained by
    return _Description(setup, inputs, plan.plan(setup, reporter=reporter))


def _refuse_other_run(setup: RunSetup, *, resume_anyway: bool) -> None:
    """Raises ConfigError where the folder holds a run with another configuration."""
    folder = setup.folder
    if not folder.config.is_file():
        return
    changed_keys = differing_keys(files.stored_config(folder.root), to_json(setup.config))
    refused_keys = {key for key in changed_keys if not (resume_anyway and key in resuming.COURSE | resuming.COST)}
    if refused_keys:
        anyway = ", --resume-anyway to train on with them" if refused_keys <= resuming.COURSE | resuming.COST else ""
        verb = "differs" if len(refused_keys) == 1 else "differ"
        raise ConfigError(
            f"{folder.root} holds a run with another configuration ({', '.join(sorted(refused_keys)[:4])} {verb})",
            remedy=f"choose another folder with --out{anyway}, or delete this one",
        )


def differing_keys(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Dotted keys that two resolved configurations do not share; incidental ones and those of evaluation left out.

    A key that an older version did not have is at its default there.
    """
    flat_old, flat_new = _defaults() | _flat(old), _defaults() | _flat(new)
    return sorted(
        key
        for key in flat_old.keys() | flat_new.keys()
        if key not in INCIDENTAL and not key.startswith(EVALUATION) and flat_old.get(key) != flat_new.get(key)
    )


def _defaults() -> dict[str, Any]:
    return {key: default_of(key) for key in keys()}


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _pipeline(setup: RunSetup, reporter: Reporter, resume_anyway: bool, callbacks: Sequence[Callback]) -> None:
    processes, apart = setup.processes, setup.apart
    processes.first(lambda: prepare.main(apart, reporter=reporter))
    preflight.agree(setup)
    reference.main(setup, reporter=reporter)
    train.main(setup, reporter=reporter, resume_anyway=resume_anyway, callbacks=callbacks)
    generate.main(setup, reporter=reporter)
    if processes.is_first:
        judge.main(apart, reporter=reporter)
        report.main(apart, reporter=reporter)
