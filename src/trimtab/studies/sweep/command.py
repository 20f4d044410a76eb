"""A sweep: every point and every seed through the pipeline of `trimtab run`, then mapped on one page.

What it varies stands in the file (`[sweep]`), in `--grid`, or in both. Its folder holds `ledger.sqlite` (the run
table), `points/<name>/seed-<n>/` (run folders like any other), `sweep.json` and `sweep.html`. Reference log-probs,
sampled pairs and the unaligned model's answers come from the caches that all runs share: a job before them makes these.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trimtab import config, store
from trimtab.errors import ConfigError, RunError
from trimtab.progress import Reporter
from trimtab.runtime.signals import stop_on_signal
from trimtab.studies.sweep import grid
from trimtab.studies.sweep.executor import connect, open_executor
from trimtab.studies.sweep.identity import SweepIdentity
from trimtab.studies.sweep.job import IDENTITY_FILE
from trimtab.studies.sweep.plan_runs import planned_runs
from trimtab.studies.sweep.resources import Resources
from trimtab.studies.sweep.result import SweepResult
from trimtab.studies.sweep.run_table import FILE_NAME, Run, RunTable
from trimtab.studies.sweep.search import Search
from trimtab.studies.sweep.search_source import SearchSource
from trimtab.studies.sweep.sweep_file import SweepFile, replace_axes


def expand(tree: grid.ConfigTree, flags: grid.ConfigTree, *, axes: Sequence[grid.Axis] = ()) -> grid.Sweep:
    """The sweep that a file (`tree`, which may hold a `[sweep]`), the flags and the axes of the command line mean.

    Raises ConfigError for a flag that a point or the grid would override.
    """
    base, all_axes, points = _parts(tree, flags, axes)
    return grid.expand(base, all_axes, points=points)


def _parts(
    tree: grid.ConfigTree, flags: grid.ConfigTree, axes: Sequence[grid.Axis]
) -> tuple[grid.ConfigTree, Sequence[grid.Axis], Sequence[grid.WrittenPoint]]:
    """What all points share, the axes, and the points that are written out."""
    file = SweepFile.from_json(tree)
    all_axes = replace_axes(file.axes, axes)
    for key in [*(axis.key for axis in all_axes), *(key for point in file.points for key, _ in point.settings)]:
        section, _, name = key.rpartition(".")
        if name in (config.merge({}, flags).get(section, {}) if section else flags):
            raise ConfigError(
                f"{key} is what the sweep varies: one value for all of it has no effect",
                remedy=f"leave the flag out, or write --grid {key}=VALUE",
            )
    return config.merge(file.base, flags), all_axes, file.points


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """A sweep that begins without points, what proposes them, and the configuration without the keys that it varies."""

    sweep: grid.Sweep
    search: Search
    tree: grid.ConfigTree

    @property
    def out(self) -> str:
        return self.sweep.out


def expand_search(
    tree: grid.ConfigTree, flags: grid.ConfigTree, *, axes: Sequence[grid.Axis] = (), n_trials: int
) -> SearchPlan:
    """As `expand`, for a search. Raises ConfigError, too, for a range that is none and for written-out points."""
    base, all_axes, points = _parts(tree, flags, axes)
    if points:
        raise ConfigError(
            "--trials searches a grid, and the file writes points out", remedy="give it [sweep.grid] alone"
        )
    sweep = grid.expand_search(base, all_axes)
    first = grid.add_point(sweep, base, grid.first_texts(all_axes))
    whole = frozenset(key for key, value in first.values.items() if type(value) is int)
    return SearchPlan(sweep, Search(sweep.axes, n_trials, sweep.seeds[0], whole), base)


def expand_any(
    tree: grid.ConfigTree, flags: grid.ConfigTree, *, axes: Sequence[grid.Axis], n_trials: int | None
) -> grid.Sweep | SearchPlan:
    """A grid, or a search where there is a number of trials."""
    if n_trials is None:
        return expand(tree, flags, axes=axes)
    return expand_search(tree, flags, axes=axes, n_trials=n_trials)


def main(
    sweep: grid.Sweep | SearchPlan,
    *,
    command: str,
    reporter: Reporter,
    resources: Resources = Resources(),  # noqa: B008  # frozen
    retry_failed: bool = False,
    stop_starved: bool = False,
) -> SweepResult:
    """Make what is left of the sweep; writes `sweep.json`, and `sweep.html` which shows it.

    command: as it was typed. A run that fails is written down and does not stop the others; see `require_whole`.
    Raises ConfigError before anything starts, StopError on a signal.
    """
    plan = sweep if isinstance(sweep, SearchPlan) else None
    sweep = sweep.sweep if isinstance(sweep, SearchPlan) else sweep
    root, identity = Path(sweep.out), SweepIdentity.of(sweep)
    _require_same(root, identity)
    start = time.monotonic()
    with store.lock(root):
        with store.database(root / FILE_NAME) as connection:
            table = RunTable(connection)
            store.write_json(root / IDENTITY_FILE, identity.to_json())
            source = None if plan is None else SearchSource(plan.search, sweep, plan.tree, table)
            if source is not None:
                source.restore()
                sweep = source.sweep
            table.plan(planned_runs(sweep), retry_failed=retry_failed, stop_starved=stop_starved)
            _announce(table.runs(), reporter)
            _work(root, table, resources, source, stop_starved=stop_starved, reporter=reporter)
            last_runs, sweep = table.runs(), sweep if source is None else source.sweep
        from trimtab.reporting.render import page_html
        from trimtab.studies.sweep.page import sweep_page
        from trimtab.studies.sweep.read import read_sweep  # with the stages behind it

        search = None if plan is None else plan.search.to_json()
        seconds = time.monotonic() - start
        result = read_sweep(sweep, last_runs, command=command, seconds=seconds, search=search)
        store.write_json(root / "sweep.json", result.to_json())
        store.write_text(root / "sweep.html", page_html(sweep_page(result)))
    reporter.say(f"sweep: {root / 'sweep.html'}")
    return result


def _work(
    root: Path,
    table: RunTable,
    resources: Resources,
    source: SearchSource | None,
    *,
    stop_starved: bool,
    reporter: Reporter,
) -> None:
    """Have what waits made, and what a search proposes."""
    from trimtab.studies.sweep.dispatch import Dispatcher

    n_jobs = sum(run.state == "waiting" for run in table.runs())
    if source is not None:
        n_jobs += (source.search.n_trials - len(source.sweep.points)) * len(source.sweep.seeds)
    if not n_jobs:
        return
    connect(resources)
    with stop_on_signal() as stop:
        executor = open_executor(resources, n_jobs=n_jobs, sweep_folder=str(root), reporter=reporter, stop=stop)
        if executor.n_slots > 1:
            place = "here" if resources.cluster == "local" else f"on {resources.cluster}"
            reporter.say(f"sweep: up to {executor.n_slots} runs at once {place}")
        dispatcher = Dispatcher(
            table, executor, folder=root, stop_starved=stop_starved, reporter=reporter, stop=stop, source=source
        )
        try:
            dispatcher.work()
        except BaseException:
            executor.stop()
            raise
        finally:
            executor.close()


def _require_same(root: Path, new: SweepIdentity) -> None:
    """A folder keeps one base and one set of keys; values and seeds may be added to it."""
    path = root / IDENTITY_FILE
    if not path.is_file():
        return
    if differences := SweepIdentity.from_json(store.read_json(path)).differences(new):
        raise ConfigError(
            f"{root} holds another sweep: it differs in {', '.join(differences[:4])}",
            remedy="choose another folder with --out, or delete this one",
        )


def _announce(runs: Sequence[Run], reporter: Reporter) -> None:
    n_done = sum(run.state == "done" for run in runs)
    reporter.say(f"sweep: {len(runs)} runs, {n_done} of them done already")
    for run in runs:
        if run.state == "failed":
            reporter.say(f"{run.name} failed before ({run.error}); --retry-failed tries it again")


def require_whole(result: SweepResult) -> None:
    """Raises RunError when runs of the sweep have failed, with each of them and why."""
    if result.failed_runs:
        errors = "\n".join(f"  {run.name}: {run.error}" for run in result.failed_runs)
        raise RunError(
            f"{len(result.failed_runs)} of {len(result.runs)} runs failed:\n{errors}",
            remedy="mend the cause and repeat the same command with --retry-failed",
        )
