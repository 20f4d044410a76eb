"""Capability check: what the unaligned and the aligned model can do, by tasks of lm-eval, into `check.json`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from trimtab import config, store
from trimtab.config import files
from trimtab.errors import ConfigError
from trimtab.progress import Reporter
from trimtab.reporting.json_form import fields_form
from trimtab.reporting.numbers.check import CheckNumbers, check_numbers
from trimtab.reporting.words.check import change_text
from trimtab.reporting.words.check import check as sentences
from trimtab.runtime import capability, capability_files, set_up
from trimtab.runtime.capability import CapabilityModel
from trimtab.runtime.run_setup import RunSetup
from trimtab.stages import report

FORMAT = 1  # raise when check.json's keys change


@dataclass(frozen=True, slots=True)
class Check:
    """What came of a check. `unshared`: tasks that only one of two folders has, which are not compared."""

    numbers: CheckNumbers
    unshared: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        headline = [entry.to_json() for entry in sentences(self.numbers)]
        return fields_form(self.numbers) | {"unshared": list(self.unshared), "headline": headline}


def main(
    run_folder: str,
    *,
    tasks: str,
    limit: int | None = None,
    chat: bool = False,
    offline: bool = False,
    reporter: Reporter,
) -> Check:
    """Ask both models, write `check.json`, and report the run anew. `tasks`: files and names, parted by commas.

    Raises UserError where lm-eval is not installed, a task cannot be had, or the run has no model yet.
    """
    specs = [spec.strip() for spec in tasks.split(",") if spec.strip()]
    if not specs or (limit is not None and limit < 1):
        raise ConfigError("there is nothing to ask", remedy="write --tasks FILE.yaml,NAME and a --limit of 1 or more")
    capability.require_library()
    setup = _finished_run(run_folder)
    tasks_read = capability.load_tasks(specs, limit=limit, offline=offline or setup.config.offline)
    setup.use_threads()
    root, seeds = setup.folder.root, setup.each_seed()
    with (
        store.lock(root),
        reporter.track("capability check", total=(1 + len(seeds)) * len(tasks_read), unit="tasks") as advance,
    ):

        def scores(seed: RunSetup, folder: Path) -> list[dict[str, Any]]:
            model = CapabilityModel(folder, dtype=seed.config.engine.dtype, device=seed.config.engine.device)
            rows = []
            for task in tasks_read:
                rows.append(model.scores(task, limit=limit, chat=chat).to_json())
                advance(1)
            return rows

        tree = {
            "format": FORMAT,
            "lm_eval": metadata.version(capability.PACKAGE),
            "limit": limit,
            "chat": chat,
            "unaligned": scores(setup, setup.model_folder),
            "seeds": [
                {"seed": seed.config.seed, "tasks": scores(seed, seed.folder.intact(seed.folder.model))}
                for seed in seeds
            ],
        }
        store.write_json(setup.folder.check, tree)
        report.main(setup, reporter=reporter)
    return Check(check_numbers(tree))


def of_files(before: str, after: str) -> Check:
    """The same of two folders that lm-eval wrote with --log_samples: any two models, without a run and without lm-eval.

    Raises UserError for a folder without samples, and for two that were not asked alike.
    """
    sides = [capability_files.read(Path(folder)) for folder in (before, after)]
    tasks = [[scores.to_json() for scores in side] for side in capability_files.common_tasks(*sides)]
    tree = {"lm_eval": sides[1].lm_eval, "limit": None, "chat": sides[1].chat}
    numbers = check_numbers(tree | {"unaligned": tasks[0], "seeds": [{"seed": 0, "tasks": tasks[1]}]})
    return Check(numbers, tuple(capability_files.unshared_tasks(*sides)))


def _finished_run(run_folder: str) -> RunSetup:
    root = Path(run_folder)
    if not (root / "config.json").is_file():
        raise ConfigError(f"{root} is no run folder: it has no config.json", remedy="name the folder of a run")
    setup = set_up(config.resolve(files.read_run(root, flags={})))
    if setup.objective.on_scores:
        raise ConfigError(f"{root} holds a reward model, which answers nothing", remedy="name a run of `trimtab run`")
    for seed in setup.each_seed():
        if not seed.folder.model.is_dir():
            raise ConfigError(f"{root} has no trained model yet", remedy=f"finish it first: trimtab run {root}")
    return setup


def lines(check: Check) -> list[str]:
    """For a terminal: the answer, then every measure, and what could not be compared."""
    numbers = check.numbers
    rows: Sequence[str] = [
        f"  {measure.task} {measure.measure}: {change_text(measure)} ({measure.change.difference.n} samples)"
        for measure in numbers.measures
    ]
    gaps = (("only one of the two folders has it", check.unshared), ("no value of each sample", numbers.left_out))
    return [
        *(sentence.text.replace("**", "") for sentence in sentences(numbers)),
        *rows,
        *(f"  not compared, {reason}: {', '.join(names)}" for reason, names in gaps if names),
    ]
