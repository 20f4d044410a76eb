"""A sweep: every point of a grid and every seed through the pipeline of `trimtab run`, then mapped on one page.

Its folder holds `ledger.sqlite` (one row a run), `points/<name>/seed-<n>/` (run folders like any other), `sweep.json`
and `sweep.html`. Reference log-probs, sampled pairs and the unaligned model's answers come from the caches that all
runs share, so that only the first point makes them.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trimtab import store
from trimtab.commands.sweeping import grid
from trimtab.commands.sweeping.ledger import NAME, Ledger, Wanted
from trimtab.config import to_json
from trimtab.errors import ConfigError, RunError
from trimtab.progress import Reporter


def read_words(words: Sequence[str]) -> tuple[list[grid.Axis], int, list[str]]:
    """The axes and the number of workers that the words name, and the other words."""
    axes: list[grid.Axis] = []
    workers, rest, left = 1, [], list(words)
    while left:
        word = left.pop(0)
        name, equals, value = word.partition("=")
        if name not in ("--grid", "--workers"):
            rest.append(word)
            continue
        if not equals:
            if not left:
                raise ConfigError(f"{name} has no value", remedy="write --grid objective.margin=0.5,1,2 --workers 2")
            value = left.pop(0)
        if name == "--grid":
            axes.append(grid.read_axis(value))
        elif value.isdecimal() and int(value) >= 1:
            workers = int(value)
        else:
            raise ConfigError(f"--workers {value!r} is no number of workers", remedy="write --workers 2")
    return axes, workers, rest


def main(
    tree: Mapping[str, Any],
    *,
    axes: Sequence[grid.Axis],
    words: Sequence[str],
    reporter: Reporter,
    workers: int = 1,
    retry_failed: bool = False,
    stop_starved: bool = False,
) -> dict[str, Any]:
    """Make what is left of the sweep and return the tree of `sweep.json`, which `sweep.html` shows.

    tree: the configuration that the grid is laid on, `words` as they were typed. A run that fails is written down and
    does not stop the others; see `require_whole`. Raises ConfigError before anything starts, StopError on a signal.
    """
    sweep = grid.expand(tree, axes)
    root = Path(sweep.out)
    _require_same(root, sweep)
    began = time.monotonic()
    with store.locked(root):
        store.write_json(root / "grid.json", {"keys": [axis.key for axis in sweep.axes], "base": sweep.base})
        with store.database(root / NAME) as connection:
            ledger = Ledger(connection)
            ledger.plan(_wanted(sweep), retry_failed=retry_failed, stop_starved=stop_starved)
            _tell_plan(ledger, reporter)
            _work(root, ledger, workers=workers, stop_starved=stop_starved, reporter=reporter)
            rows = ledger.rows()
        from trimtab.commands.sweeping import page, result  # with the stages behind them

        told = result.sweep_tree(
            sweep, rows, command=shlex.join(["trimtab", "sweep", *words]), seconds=time.monotonic() - began
        )
        store.write_json(root / "sweep.json", told)
        store.write_text(root / "sweep.html", page.html(told))
    reporter.say(f"sweep: {root / 'sweep.html'}")
    return told


def _work(root: Path, ledger: Ledger, *, workers: int, stop_starved: bool, reporter: Reporter) -> None:
    workers = min(workers, sum(row.state in ("waiting", "running") for row in ledger.rows()))
    if workers > 1:
        from trimtab.commands.sweeping.workers import work_in_processes

        work_in_processes(root, workers=workers, stop_starved=stop_starved)
    elif workers:
        from trimtab.commands.sweeping.working import work

        work(ledger, reporter=reporter, stop_starved=stop_starved)


def _wanted(sweep: grid.Sweep) -> list[Wanted]:
    """A run for each seed of each point, in the folder that a run with several seeds would give it."""
    found = []
    for point in sweep.points:
        for seed in sweep.seeds:
            out = f"{point.config.out}/seed-{seed}"
            single = point.config.model_copy(update={"seed": seed, "seeds": 1, "out": out})
            name = f"{point.name}/seed-{seed}"
            found.append(Wanted(name, point.name, seed, out, dict(point.values), to_json(single), point.kin))
    return found


def _require_same(root: Path, sweep: grid.Sweep) -> None:
    """A folder keeps one base and one set of keys; values and seeds may be added to it."""
    if not (root / "grid.json").is_file():
        return
    from trimtab.commands.run import differing

    held = store.read_json(root / "grid.json")
    keys = [axis.key for axis in sweep.axes]
    changed = differing(held["base"], dict(sweep.base)) if held["keys"] == keys else [f"the keys {held['keys']}"]
    if changed:
        raise ConfigError(
            f"{root} holds a sweep of another configuration ({', '.join(changed[:4])} differ)",
            remedy="choose another folder with --out, or delete this one",
        )


def _tell_plan(ledger: Ledger, reporter: Reporter) -> None:
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
    from trimtab.commands.sweeping import page

    return page.lines(told)
