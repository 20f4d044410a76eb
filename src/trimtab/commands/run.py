"""The whole pipeline: prepare, reference, train, generate, judge, report; once for every seed.

Each stage skips what it has already made from the same inputs, so running again costs what changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from trimtab import store
from trimtab.commands import doctor, plan
from trimtab.config import Config, to_json
from trimtab.errors import ConfigError
from trimtab.progress import Reporter, SilentReporter
from trimtab.runtime import resuming
from trimtab.runtime.folder import Folder
from trimtab.runtime.judges import judge_setup
from trimtab.runtime.model_loading import require_extras
from trimtab.runtime.run_setup import RunSetup, set_up
from trimtab.stages import generate, judge, prepare, reference, report, train

# keys that change where and how fast a run is computed, not what it is
INCIDENTAL = frozenset({"out", "offline", "base_url", "engine.threads"})
# what is asked of a model after training: stages make it anew where it changed
EVALUATION = ("generate.", "benchmark.", "judge.")


def main(config: Config, *, reporter: Reporter, resume: bool = False, resume_anyway: bool = False) -> Folder:
    """Run every stage; returns the folder that holds the report."""
    setup = set_up(config)
    folder = setup.folder
    if (resume or resume_anyway) and not folder.config.is_file():
        raise ConfigError(f"there is no run to resume in {folder.root}", remedy="leave --resume out to start one")
    judge_setup.require(setup)
    with begun(setup, reporter=reporter, resume_anyway=resume_anyway):
        for single in seeds(setup, reporter=reporter):
            _pipeline(single, reporter, resume_anyway)
        if config.seeds > 1:
            report.main(setup, reporter=reporter)
    reporter.say(f"report: {folder.report('html')}")
    for single in setup.each_seed():
        judge.refuse_if_incomplete(single)
    return folder


@contextmanager
def begun(setup: RunSetup, *, reporter: Reporter, resume_anyway: bool = False) -> Iterator[None]:
    """Hold the run folder, with the resolved configuration, the plan and the versions in it.

    The plan is made first: what cannot be run leaves no folder behind. A folder that holds another run is refused; one
    whose data, model or evaluation changed is planned anew; so is, with `resume_anyway`, one whose course or cost did.
    """
    require_extras(setup.config)
    folder = setup.folder
    held = _held(setup, resume_anyway=resume_anyway)
    inputs = plan.inputs(setup)  # known to the cache from here on: one that cannot be written is found out now
    known = held == to_json(setup.config) and folder.is_done("plan", inputs)
    planned = None if known else plan.plan(setup, reporter=reporter)
    with store.locked(folder.root):
        _held(setup, resume_anyway=resume_anyway)  # another may have begun while this one was planned
        if planned is not None:
            _describe(setup, planned, inputs)
            for line in plan.lines(planned):
                reporter.say(line)
        yield


def _held(setup: RunSetup, *, resume_anyway: bool) -> dict[str, Any] | None:
    """The configuration that the folder holds, if any. Raises ConfigError when it is another run's."""
    folder = setup.folder
    if not folder.config.is_file():
        return None
    held: dict[str, Any] = store.read_json(folder.config)
    changed = differing(held, to_json(setup.config))
    refused = [key for key in changed if not (resume_anyway and key in resuming.COURSE | resuming.COST)]
    if refused:
        anyway = ", --resume-anyway to train on with them" if set(refused) <= resuming.COURSE | resuming.COST else ""
        raise ConfigError(
            f"{folder.root} holds a run with another configuration ({', '.join(refused[:4])} differ)",
            remedy=f"choose another folder with --out{anyway}, or delete this one",
        )
    return held


def seeds(setup: RunSetup, *, reporter: Reporter) -> Iterator[RunSetup]:
    """The runs of a configuration one after another, each with its own folder described; call it within `begun`."""
    for single in setup.each_seed():
        if setup.config.seeds > 1:
            reporter.say(f"seed {single.config.seed}")
            inputs = plan.inputs(single)
            own = single.folder
            held = store.read_json(own.config) if own.config.is_file() else None
            if held != to_json(single.config) or not own.is_done("plan", inputs):
                _describe(single, plan.plan(single, reporter=SilentReporter()), inputs)
        yield single


def _describe(setup: RunSetup, planned: dict[str, Any], inputs: str) -> None:
    folder = setup.folder
    store.write_json(folder.versions, doctor.versions().to_json())
    store.write_json(folder.plan, planned)
    store.write_json(folder.config, to_json(setup.config))
    folder.finish("plan", inputs, [folder.plan])


def differing(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Dotted keys that two resolved configurations do not share; incidental ones and those of evaluation left out."""
    flat_old, flat_new = _flat(old), _flat(new)
    return sorted(
        key
        for key in flat_old.keys() | flat_new.keys()
        if key not in INCIDENTAL and not key.startswith(EVALUATION) and flat_old.get(key) != flat_new.get(key)
    )


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _pipeline(setup: RunSetup, reporter: Reporter, resume_anyway: bool) -> None:
    prepare.main(setup, reporter=reporter)
    reference.main(setup, reporter=reporter)
    train.main(setup, reporter=reporter, resume_anyway=resume_anyway)
    generate.main(setup, reporter=reporter)
    judge.main(setup, reporter=reporter)
    report.main(setup, reporter=reporter)
