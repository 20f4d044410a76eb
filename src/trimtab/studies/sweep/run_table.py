"""The runs of a sweep (a point with one seed each) and their states, in SQLite, shared by all workers of a machine.

waiting → running → done | failed | stopped (by a signal, with a checkpoint) | starved (see `run_progress`). A running
one names its process by pid and start time; when that process is gone the run is free again.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from trimtab import store
from trimtab.disk import is_running
from trimtab.errors import StoreError
from trimtab.studies.sweep.grid import ConfigTree, Settings
from trimtab.studies.sweep.numbers import PointNumbers

SCHEMA = 1  # raise when the table's columns change
FILE_NAME = "ledger.sqlite"
TaskSeconds = Mapping[str, float]  # by what a stage calls its task
State = Literal["waiting", "running", "done", "failed", "stopped", "starved"]

_TABLE = """CREATE TABLE runs (
    name TEXT PRIMARY KEY, place INTEGER, point TEXT NOT NULL, seed INTEGER NOT NULL, folder TEXT NOT NULL,
    grid TEXT NOT NULL, config TEXT NOT NULL, kin TEXT NOT NULL, state TEXT NOT NULL, pid INTEGER, started TEXT,
    error TEXT, trace TEXT, seconds REAL NOT NULL DEFAULT 0, computed TEXT NOT NULL DEFAULT '{}', numbers TEXT
) WITHOUT ROWID"""
_INDICES = (  # one for each question of `take`, which a sweep of thousands asks thousands of times
    "CREATE INDEX IF NOT EXISTS runs_by_state ON runs (state, place)",
    "CREATE INDEX IF NOT EXISTS runs_by_kin ON runs (kin, state)",
)
_COLUMNS = "name, point, seed, folder, grid, config, kin, state, pid, started, error, seconds, computed, numbers"


@dataclass(frozen=True, slots=True)
class Run:
    """One run, as planned, and what has come of it. `task_seconds`: the work that was done and not served from a cache.
    `cache_key` is the point's (the column `kin`), `settings` the column `grid`.
    """

    name: str
    point: str
    seed: int
    folder: str
    settings: Settings
    config: ConfigTree
    cache_key: str
    state: State = "waiting"
    pid: int | None = None
    process_start: str | None = None
    error: str | None = None
    seconds: float = 0.0
    task_seconds: TaskSeconds = field(default_factory=dict)
    numbers: PointNumbers | None = None
    elsewhere: str | None = None  # the folder, where another machine makes or made the run (see `shared_runs`)

    @classmethod
    def from_row(cls, row: tuple[Any, ...]) -> Run:
        """A row of `_COLUMNS`."""
        name, point, seed, folder, grid, config, kin, state, pid, start, error, seconds, computed, numbers = row
        return cls(
            name, point, seed, folder, json.loads(grid), json.loads(config), kin, state, pid, start, error, seconds,
            json.loads(computed), None if numbers is None else PointNumbers.from_json(json.loads(numbers)),
        )  # fmt: skip

    @property
    def is_here(self) -> bool:
        return self.elsewhere is None

    def to_json(self) -> dict[str, Any]:
        """As a point of `sweep.json` lists it."""
        return {
            "seed": self.seed,
            "state": self.state,
            "folder": self.elsewhere or self.folder,
            "elsewhere": not self.is_here,
            "error": self.error,
            "seconds": self.seconds,
            "computed": dict(self.task_seconds),
        }


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a worker's attempt at a run: seconds and work are this attempt's alone."""

    state: State
    seconds: float
    task_seconds: TaskSeconds
    numbers: PointNumbers | None = None
    error: str | None = None
    trace: str | None = None


class RunTable:
    """Rows over a connection of `store.database`. Every method is one transaction, on disk when it returns."""

    poll_seconds = 0.3  # between looks when the next run has to wait for another

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        with store.transaction(self._connection):
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version == 0:
                connection.execute(_TABLE)
                connection.execute(f"PRAGMA user_version = {SCHEMA}")
            elif version > SCHEMA:
                raise StoreError("this sweep was written by a newer trimtab", remedy="upgrade trimtab")
            for index in _INDICES:
                connection.execute(index)

    def plan(self, runs: Iterable[Run], *, retry_failed: bool, stop_starved: bool) -> None:
        """Make these the runs of the sweep, in this order; others stay in the table and are not looked at.

        A finished run stays so while its configuration is the same and its report is there.
        """
        with store.transaction(self._connection):
            self._connection.execute("UPDATE runs SET place = NULL")
            for place, run in enumerate(runs):
                self._plan(run, place)
            for state in ("stopped", *retried_states(retry_failed=retry_failed, stop_starved=stop_starved)):
                self._connection.execute("UPDATE runs SET state = 'waiting' WHERE state = ?", (state,))

    def _plan(self, run: Run, place: int) -> None:
        columns = (place, run.folder, json.dumps(run.settings), json.dumps(run.config), run.cache_key)
        old = self._connection.execute("SELECT state, config FROM runs WHERE name = ?", (run.name,)).fetchone()
        if old is None:
            self._connection.execute(
                "INSERT INTO runs (place, folder, grid, config, kin, name, point, seed, state)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'waiting')",
                (*columns, run.name, run.point, run.seed),
            )
            return
        state, config = old
        is_same = json.loads(config) | {"out": ""} == dict(run.config) | {"out": ""}
        has_report = (Path(run.folder) / "report.json").is_file()
        if state != "running" and (not is_same or (state == "done" and not has_report)):
            state = "waiting"
        self._connection.execute(
            "UPDATE runs SET place = ?, folder = ?, grid = ?, config = ?, kin = ?, state = ? WHERE name = ?",
            (*columns, state, run.name),
        )

    def runs(self) -> list[Run]:
        """The sweep's runs, in the order of its grid."""
        return self._select("WHERE place IS NOT NULL ORDER BY place")

    def take(self) -> Run | None:
        """The next run that may start now, marked as this process's own; None when there is none.

        Runs that share reference log-probs and unaligned answers wait until the first of them has made these.
        """
        with store.transaction(self._connection):
            self._free_dead_runs()
            next_runs = self._select(
                "WHERE place IS NOT NULL AND state = 'waiting' AND (EXISTS (SELECT 1 FROM runs AS first WHERE"
                " first.kin = runs.kin AND first.state = 'done') OR NOT EXISTS (SELECT 1 FROM runs AS first WHERE"
                " first.kin = runs.kin AND first.state = 'running')) ORDER BY place LIMIT 1"
            )
            return self._start(next_runs[0]) if next_runs else None

    def claim(self, name: str) -> Run | None:
        """This very run, whatever came of it before, marked as this process's own; None while another works on it."""
        with store.transaction(self._connection):
            self._free_dead_runs()
            (run,) = self._select("WHERE name = ?", name)
            return None if run.state == "running" else self._start(run)

    def _start(self, run: Run) -> Run:
        self._connection.execute(
            "UPDATE runs SET state = 'running', pid = ?, started = ?, error = NULL, trace = NULL WHERE name = ?",
            (os.getpid(), process_start(os.getpid()), run.name),
        )
        return run

    def is_over(self) -> bool:
        """Whether nothing waits and nothing runs."""
        with store.transaction(self._connection):
            self._free_dead_runs()
            return not self._select("WHERE place IS NOT NULL AND state IN ('waiting', 'running')")

    def finish(self, run: Run, outcome: Outcome) -> None:
        """What came of a run that `take` gave. Seconds and work add up over its attempts."""
        tasks = {**run.task_seconds, **outcome.task_seconds}
        task_seconds = {task: run.task_seconds.get(task, 0.0) + outcome.task_seconds.get(task, 0.0) for task in tasks}
        numbers = None if outcome.numbers is None else json.dumps(outcome.numbers.to_json(), allow_nan=False)
        with store.transaction(self._connection):
            self._connection.execute(
                "UPDATE runs SET state = ?, seconds = ?, computed = ?, numbers = ?, error = ?, trace = ?, pid = NULL,"
                " started = NULL WHERE name = ?",
                (
                    outcome.state, run.seconds + outcome.seconds, json.dumps(task_seconds), numbers,
                    _utf8(outcome.error), _utf8(outcome.trace), run.name,
                ),
            )  # fmt: skip

    def _free_dead_runs(self) -> None:
        for run in self._select("WHERE state = 'running'"):
            if run.pid is None or not is_alive(run.pid, run.process_start):
                self._connection.execute("UPDATE runs SET state = 'waiting' WHERE name = ?", (run.name,))

    def _select(self, condition: str, *values: str) -> list[Run]:
        rows = self._connection.execute(f"SELECT {_COLUMNS} FROM runs {condition}", values)  # noqa: S608  # our own words
        return [Run.from_row(row) for row in rows]


def retried_states(*, retry_failed: bool, stop_starved: bool) -> list[State]:
    """What else than a stopped run is made again: a starved one, too, where runs are not to be stopped for that."""
    states: list[State] = []
    if retry_failed:
        states.append("failed")
    if not stop_starved:
        states.append("starved")
    return states


def process_start(pid: int) -> str | None:
    """When a living process started, in the kernel's clock ticks; None where that cannot be known."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    state, *fields = stat.rpartition(")")[2].split()  # the name before it may hold spaces and brackets
    return None if state in "ZX" else fields[18]


def is_alive(pid: int, start: str | None) -> bool:
    """Whether this very process still runs, and not another that was given its number."""
    return is_running(pid) if start is None else process_start(pid) == start


def _utf8(text: str | None) -> str | None:
    """SQLite's text is UTF-8, which has no lone surrogates; they become escapes."""
    return None if text is None else text.encode("utf-8", "backslashreplace").decode("utf-8")
