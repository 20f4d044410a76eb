"""From run folders to numbers: of one run, of a point from the runs that are done, of the whole sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trimtab import store
from trimtab.commands import run as pipeline
from trimtab.config import Config, files, resolve, to_json
from trimtab.progress import SilentReporter
from trimtab.reporting.json_form import fields_form
from trimtab.reporting.numbers.report import report_of
from trimtab.reporting.read import read as read_report_inputs
from trimtab.runtime import set_up
from trimtab.runtime.folder import Folder
from trimtab.stages import report
from trimtab.studies.sweep.grid import Point, Sweep
from trimtab.studies.sweep.maps import PointResult
from trimtab.studies.sweep.numbers import (
    AnswerNumbers,
    Document,
    PointNumbers,
    pool_training,
    run_numbers,
)
from trimtab.studies.sweep.result import SweepResult, cost
from trimtab.studies.sweep.run_table import Run


def read_sweep(
    sweep: Sweep, runs: Sequence[Run], *, command: str, seconds: float, search: Mapping[str, Any] | None = None
) -> SweepResult:
    """From the runs of a sweep and their folders. `seconds` is what this call of the command took."""
    points = []
    for point in sweep.points:
        own = tuple(run for run in runs if run.point == point.name)
        points.append(PointResult(point.name, point.values, point.settings, read_point(point, own), own))
    keys = tuple(axis.key for axis in sweep.axes)
    own_cost = cost(runs, seconds=seconds)
    return SweepResult(sweep.out, command, keys, sweep.seeds, sweep.base, tuple(points), own_cost, search)


def read_run(root: Path) -> PointNumbers:
    """The figures of one run; where it was stopped for starving, those that its training left."""
    folder = Folder(root)
    metrics = store.read_jsonl(folder.intact(folder.metrics))
    return run_numbers(_report(root) if folder.report("json").is_file() else None, metrics)


def read_point(point: Point, runs: Sequence[Run]) -> PointNumbers | None:
    """A point's figures over the seeds that are done or starved; None without any.

    Answers are pooled by the point's report from those of all seeds.
    """
    done_runs = [run for run in runs if run.state == "done"]
    counted_runs = [*done_runs, *(run for run in runs if run.state == "starved")]
    numbers = [run.numbers for run in counted_runs if run.numbers is not None]
    if len(numbers) < 2:
        return numbers[0] if numbers else None
    answers = AnswerNumbers()  # runs that starved have none
    if done_runs:
        report = _pooled_report(point.config, done_runs, is_whole=len(done_runs) == len(runs))
        answers = AnswerNumbers.from_report(report)
    return PointNumbers(answers, pool_training([run.training for run in numbers]))


def _report(root: Path) -> Document:
    folder = Folder(root)
    tree: Document = store.read_json(folder.intact(folder.report("json")))
    return tree


def _pooled_report(config: Config, runs: Sequence[Run], *, is_whole: bool) -> Document:
    """The report of the seeds that are done: the point's own, pooled, where these are all of them."""
    if len(runs) == 1:
        return _report(Path(runs[0].folder))
    setup = set_up(config)
    folder = setup.folder
    old = files.stored_config(folder.root) if folder.config.is_file() else None
    is_same = old is None or not pipeline.differing_keys(old, to_json(config))  # an old one may be of fewer seeds
    if is_whole and is_same:
        with pipeline.hold_run_folder(setup, reporter=SilentReporter(), trains=False):
            report.main(setup, reporter=SilentReporter())
        return _report(folder.root)
    setups = [set_up(resolve(run.config)) for run in runs]
    return fields_form(report_of([read_report_inputs(single.folder, single) for single in setups], setup))
