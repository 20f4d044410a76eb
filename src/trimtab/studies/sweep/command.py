"""A sweep: every point and every seed through the pipeline of `trimtab run`, then mapped on one page.

What it varies stands in the file (`[sweep]`), in `--grid`, or in both. Its folder holds `ledger.sqlite` (one row a
run), `points/<name>/seed-<n>/` (run folders like any other), `sweep.json` and `sweep.html`. Reference log-probs,
sampled pairs and the unaligned model's answers come from the caches that all runs share: the first point makes them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trimtab import config, store
from trimtab.errors import ConfigError, RunError
from trimtab.progress import Reporter
from trimtab.studies.sweep import grid, machines, recipe
from trimtab.studies.sweep.ledger import NAME, Ledger, Wanted


def expand(tree: Mapping[str, Any], flags: Mapping[str, Any], *, axes: Sequence[grid.Axis] = ()) -> grid.Sweep:
    """The sweep that a file (`tree`, which may hold a `[sweep]`), the flags and the axes of the command line mean.

    Raises ConfigError for a flag that a point or the grid would override.
    """
    shared, of_file, points = recipe.split(tree)
    laid = recipe.laid_over(of_file, axes)
    varied = [*(axis.key for axis in laid), *(key for point in points for key, _ in point.values)]
    for key in varied:
        section, _, name = key.rpartition(".")
        if name in (config.merge({}, flags).get(section, {}) if section else flags):
            raise ConfigError(
                f"{key} is what the sweep varies: one value for all of it has no effect",
                remedy=f"leave the flag out, or write --grid {key}=VALUE",
            )
    return grid.expand(config.merge(shared, flags), laid, points=points)


def main(
    sweep: grid.Sweep,
    *,
    command: str,
    reporter: Reporter,
    workers: int = 1,
    storage: str | None = None,
    retry_failed: bool = False,
    stop_starved: bool = False,
) -> dict[str, Any]:
    """Make what is left of the sweep and return the tree of `sweep.json`, which `sweep.html` shows.

    command: as it was typed. A run that fails is written down and does not stop the others; see `require_whole`.
    Raises ConfigError before anything starts, StopError on a signal.
    """
    root = Path(sweep.out)
    _require_same(root, sweep)
    began = time.monotonic()
    with store.locked(root):
        with (
            store.database(root / NAME) as connection,
            _joined(Ledger(connection), sweep, root=root, storage=storage) as (ledger, environment),
        ):
            store.write_json(root / "grid.json", _kept(sweep))
            ledger.plan(_wanted(sweep), retry_failed=retry_failed, stop_starved=stop_starved)
            _tell_plan(ledger, reporter)
            _work(root, ledger, workers=workers, stop_starved=stop_starved, reporter=reporter, joined=environment)
            rows = ledger.rows()
        from trimtab.studies.sweep import page, result  # with the stages behind them

        told = result.sweep_tree(
            sweep, rows, command=without_password(command, storage), seconds=time.monotonic() - began
        )
        store.write_json(root / "sweep.json", told)
        store.write_text(root / "sweep.html", page.html(told))
    reporter.say(f"sweep: {root / 'sweep.html'}")
    return told


@contextmanager
def _joined(
    ledger: Ledger, sweep: grid.Sweep, *, root: Path, storage: str | None
) -> Iterator[tuple[Ledger | machines.Shared, dict[str, str]]]:
    """The ledger, together with the study of the other machines where there is one, and what tells workers of it."""
    if storage is None:
        yield ledger, {}
        return
    name = machines.study_name(sweep)
    with machines.opened(storage, name, told=machines.about(_kept(sweep), _wanted(sweep))) as meeting:
        yield machines.Shared(ledger, meeting, root=root), {machines.VARIABLE: storage, machines.STUDY: name}


def without_password(command: str, storage: str | None) -> str:
    """The command as typed, but for a database's password."""
    return command.replace(storage, machines.shown(storage)) if storage else command


def _work(
    root: Path,
    ledger: Ledger | machines.Shared,
    *,
    workers: int,
    stop_starved: bool,
    reporter: Reporter,
    joined: Mapping[str, str],
) -> None:
    workers = min(workers, sum(row.state in ("waiting", "running") for row in ledger.rows()))
    if workers > 1:
        from trimtab.studies.sweep.worker_processes import work_in_processes

        work_in_processes(root, workers=workers, stop_starved=stop_starved, joined=joined)
    elif workers:
        from trimtab.studies.sweep.worker import work

        work(ledger, reporter=reporter, stop_starved=stop_starved)


def _wanted(sweep: grid.Sweep) -> list[Wanted]:
    """A run for each seed of each point, in the folder that a run with several seeds would give it."""
    found = []
    for point in sweep.points:
        for seed in sweep.seeds:
            out = f"{point.config.out}/seed-{seed}"
            single = point.config.model_copy(update={"seed": seed, "seeds": 1, "out": out})
            name = f"{point.name}/seed-{seed}"
            found.append(Wanted(name, point.name, seed, out, dict(point.settings), config.to_json(single), point.kin))
    return found


def _require_same(root: Path, sweep: grid.Sweep) -> None:
    """A folder keeps one base and one set of keys; values and seeds may be added to it."""
    if not (root / "grid.json").is_file():
        return
    from trimtab.commands.run import differing

    held, new = store.read_json(root / "grid.json"), _kept(sweep)
    changed = differing(held["base"], new["base"]) if held["keys"] == new["keys"] else [f"the keys {held['keys']}"]
    points = held.get("points", {})  # of a sweep made before there were any
    changed += [f"point {name!r}" for name, told in new["points"].items() if points.get(name, told) != told]
    if changed:
        raise ConfigError(
            f"{root} holds a sweep of another configuration ({', '.join(changed[:4])} differ)",
            remedy="choose another folder with --out, or delete this one",
        )


def _kept(sweep: grid.Sweep) -> dict[str, Any]:
    """What tells this sweep from another: its axes, what the points share, and what was written out for each."""
    keys = [axis.key for axis in sweep.axes]
    own = {
        point.values[grid.POINT]: {key: value for key, value in point.settings.items() if key not in keys}
        for point in sweep.points
        if grid.POINT in point.values
    }
    return {"keys": keys, "base": dict(sweep.base), "points": own}


def _tell_plan(ledger: Ledger | machines.Shared, reporter: Reporter) -> None:
    rows = ledger.rows()
    done = sum(row.state == "done" for row in rows)
    reporter.say(f"sweep: {len(rows)} runs, {done} of them done already")
    for row in rows:
        if row.state == "failed":
            reporter.say(f"{row.name} failed before ({row.error}); --retry-failed tries it again")


def require_whole(told: Mapping[str, Any]) -> None:
    """Raises RunError when runs of the sweep have failed, with each of them and why."""
    if told["failed"]:
        shown = "\n".join(f"  {row['run']}: {row['error']}" for row in told["failed"])
        raise RunError(
            f"{len(told['failed'])} of {sum(told['states'].values())} runs failed:\n{shown}",
            remedy="mend the cause and repeat the same command with --retry-failed",
        )


def lines(told: dict[str, Any]) -> list[str]:
    """The result for a terminal."""
    from trimtab.studies.sweep import page

    return page.lines(told)
