"""A sweep: every point and every seed through the pipeline of `trimtab run`, then mapped on one page.

What it varies stands in the file (`[sweep]`), in `--grid`, or in both. Its folder holds `ledger.sqlite` (the run
table), `points/<name>/seed-<n>/` (run folders like any other), `sweep.json` and `sweep.html`. Reference log-probs,
sampled pairs and the unaligned model's answers come from the caches that all runs share: the first point makes them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from trimtab import config, store
from trimtab.errors import ConfigError, RunError
from trimtab.progress import Reporter
from trimtab.studies.sweep import grid
from trimtab.studies.sweep.identity import SweepIdentity
from trimtab.studies.sweep.result import SweepResult
from trimtab.studies.sweep.run_table import Run
from trimtab.studies.sweep.shared_runs import Runs, open_runs
from trimtab.studies.sweep.shared_study import StudyAddress, StudyContent, public_url
from trimtab.studies.sweep.sweep_file import SweepFile, replace_axes


def expand(tree: grid.ConfigTree, flags: grid.ConfigTree, *, axes: Sequence[grid.Axis] = ()) -> grid.Sweep:
    """The sweep that a file (`tree`, which may hold a `[sweep]`), the flags and the axes of the command line mean.

    Raises ConfigError for a flag that a point or the grid would override.
    """
    file = SweepFile.from_json(tree)
    all_axes = replace_axes(file.axes, axes)
    for key in [*(axis.key for axis in all_axes), *(key for point in file.points for key, _ in point.settings)]:
        section, _, name = key.rpartition(".")
        if name in (config.merge({}, flags).get(section, {}) if section else flags):
            raise ConfigError(
                f"{key} is what the sweep varies: one value for all of it has no effect",
                remedy=f"leave the flag out, or write --grid {key}=VALUE",
            )
    return grid.expand(config.merge(file.base, flags), all_axes, points=file.points)


def main(
    sweep: grid.Sweep,
    *,
    command: str,
    reporter: Reporter,
    workers: int = 1,
    storage: str | None = None,
    retry_failed: bool = False,
    stop_starved: bool = False,
) -> SweepResult:
    """Make what is left of the sweep; writes `sweep.json`, and `sweep.html` which shows it.

    command: as it was typed. A run that fails is written down and does not stop the others; see `require_whole`.
    Raises ConfigError before anything starts, StopError on a signal.
    """
    root, identity, all_runs = Path(sweep.out), SweepIdentity.of(sweep), planned_runs(sweep)
    _require_same(root, identity)
    start = time.monotonic()
    with store.lock(root):
        content = StudyContent.of(identity, all_runs)
        address = StudyAddress.of(sweep, storage=storage)
        with open_runs(root, address, content=content) as runs:
            store.write_json(root / "grid.json", identity.to_json())
            runs.plan(all_runs, retry_failed=retry_failed, stop_starved=stop_starved)
            _announce(runs, reporter)
            _work(root, runs, address, workers=workers, stop_starved=stop_starved, reporter=reporter)
            last_runs = runs.runs()
        from trimtab.reporting.render import page_html
        from trimtab.studies.sweep.page import sweep_page
        from trimtab.studies.sweep.read import read_sweep  # with the stages behind it

        result = read_sweep(
            sweep, last_runs, command=without_password(command, storage), seconds=time.monotonic() - start
        )
        store.write_json(root / "sweep.json", result.to_json())
        store.write_text(root / "sweep.html", page_html(sweep_page(result)))
    reporter.say(f"sweep: {root / 'sweep.html'}")
    return result


def without_password(command: str, storage: str | None) -> str:
    """The command as typed, but for a database's password."""
    return command.replace(storage, public_url(storage)) if storage else command


def _work(
    root: Path,
    runs: Runs,
    address: StudyAddress | None,
    *,
    workers: int,
    stop_starved: bool,
    reporter: Reporter,
) -> None:
    workers = min(workers, sum(run.state in ("waiting", "running") for run in runs.runs()))
    if workers > 1:
        from trimtab.studies.sweep.worker_processes import work_in_processes

        environment = address.environment if address else ()
        work_in_processes(root, workers=workers, stop_starved=stop_starved, environment=environment)
    elif workers:
        from trimtab.studies.sweep.worker import work

        work(runs, reporter=reporter, stop_starved=stop_starved)


def planned_runs(sweep: grid.Sweep) -> list[Run]:
    """A run for each seed of each point, in the folder that a run with several seeds would give it."""
    runs = []
    for point in sweep.points:
        for seed in sweep.seeds:
            out = f"{point.config.out}/seed-{seed}"
            single = point.config.model_copy(update={"seed": seed, "seeds": 1, "out": out})
            name = f"{point.name}/seed-{seed}"
            runs.append(Run(name, point.name, seed, out, point.settings, config.to_json(single), point.cache_key))
    return runs


def _require_same(root: Path, new: SweepIdentity) -> None:
    """A folder keeps one base and one set of keys; values and seeds may be added to it."""
    path = root / "grid.json"
    if not path.is_file():
        return
    if differences := SweepIdentity.from_json(store.read_json(path)).differences(new):
        raise ConfigError(
            f"{root} holds another sweep: it differs in {', '.join(differences[:4])}",
            remedy="choose another folder with --out, or delete this one",
        )


def _announce(runs: Runs, reporter: Reporter) -> None:
    all_runs = runs.runs()
    n_done = sum(run.state == "done" for run in all_runs)
    reporter.say(f"sweep: {len(all_runs)} runs, {n_done} of them done already")
    for run in all_runs:
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
