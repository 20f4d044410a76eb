"""The runs of a sweep (a point with one seed each) and their states, in SQLite, written by the sweep's process alone.

waiting → running → done | failed | stopped (by a signal, with a checkpoint) | starved or pruned (see `run_progress`).
Whoever holds the sweep's folder is its only process, so a run that is marked as running when it begins is free again.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trimtab import store
from trimtab.errors import StoreError
from trimtab.studies.sweep.grid import ConfigTree, Settings
from trimtab.studies.sweep.job import Outcome, State, TaskSeconds
from trimtab.studies.sweep.numbers import PointNumbers

SCHEMA = 2  # raise when the table's columns change
FILE_NAME = "ledger.sqlite"

_TABLE = """CREATE TABLE runs (
    name TEXT PRIMARY KEY, place INTEGER, point TEXT NOT NULL, seed INTEGER NOT NULL, folder TEXT NOT NULL,
    grid TEXT NOT NULL, config TEXT NOT NULL, kin TEXT NOT NULL, state TEXT NOT NULL, host TEXT,
    error TEXT, trace TEXT, seconds REAL NOT NULL DEFAULT 0, computed TEXT NOT NULL DEFAULT '{}', numbers TEXT
) WITHOUT ROWID"""
_FROM_SCHEMA_1 = (  # in which workers of one machine took runs themselves, and put their process beside them
    "DROP INDEX IF EXISTS runs_by_state",
    "DROP INDEX IF EXISTS runs_by_kin",
    "ALTER TABLE runs DROP COLUMN pid",
    "ALTER TABLE runs DROP COLUMN started",
    "ALTER TABLE runs ADD COLUMN host TEXT",
)
_COLUMNS = "name, point, seed, folder, grid, config, kin, state, host, error, seconds, computed, numbers"


@dataclass(frozen=True, slots=True)
class Run:
    """One run, as planned, and what has come of it. `task_seconds`: the work that was done and not served from a cache.
    `cache_key` is the point's (the column `kin`), `settings` the column `grid`, `host` where it was made last.
    """

    name: str
    point: str
    seed: int
    folder: str
    settings: Settings
    config: ConfigTree
    cache_key: str
    state: State = "waiting"
    host: str | None = None
    error: str | None = None
    seconds: float = 0.0
    task_seconds: TaskSeconds = field(default_factory=dict)
    numbers: PointNumbers | None = None

    @classmethod
    def from_row(cls, row: tuple[Any, ...]) -> Run:
        """A row of `_COLUMNS`."""
        name, point, seed, folder, grid, config, kin, state, host, error, seconds, computed, numbers = row
        return cls(
            name, point, seed, folder, json.loads(grid), json.loads(config), kin, state, host, error, seconds,
            json.loads(computed), None if numbers is None else PointNumbers.from_json(json.loads(numbers)),
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """As a point of `sweep.json` lists it."""
        return {
            "seed": self.seed,
            "state": self.state,
            "folder": self.folder,
            "host": self.host,
            "error": self.error,
            "seconds": self.seconds,
            "computed": dict(self.task_seconds),
        }


class RunTable:
    """Rows over a connection of `store.database`. Every method is one transaction, on disk when it returns."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        with store.transaction(self._connection):
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version == 0:
                connection.execute(_TABLE)
                connection.execute(f"PRAGMA user_version = {SCHEMA}")
            elif version > SCHEMA:
                raise StoreError("this sweep was written by a newer trimtab", remedy="upgrade trimtab")
            elif version < SCHEMA:
                for statement in (*_FROM_SCHEMA_1, f"PRAGMA user_version = {SCHEMA}"):
                    connection.execute(statement)

    def plan(self, runs: Iterable[Run], *, retry_failed: bool, stop_starved: bool) -> None:
        """Make these the runs of the sweep, in this order; others stay in the table and are not looked at.

        A finished run stays so while its configuration is the same and its report is there.
        """
        with store.transaction(self._connection):
            self._connection.execute("UPDATE runs SET place = NULL")
            for place, run in enumerate(runs):
                self._plan(run, place)
            states = ["running", "stopped", *["failed"] * retry_failed, *["starved"] * (not stop_starved)]
            for state in states:  # a starved one, too, where runs are not to be stopped for that
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
        if not is_same or (state == "done" and not has_report):
            state = "waiting"
        self._connection.execute(
            "UPDATE runs SET place = ?, folder = ?, grid = ?, config = ?, kin = ?, state = ? WHERE name = ?",
            (*columns, state, run.name),
        )

    def add(self, runs: Sequence[Run]) -> None:
        """More runs of the sweep, behind the others."""
        with store.transaction(self._connection):
            (n_places,) = self._connection.execute("SELECT coalesce(max(place) + 1, 0) FROM runs").fetchone()
            for place, run in enumerate(runs, start=n_places):
                self._plan(run, place)

    def runs(self) -> list[Run]:
        """The sweep's runs, in the order of its grid."""
        return self._select("WHERE place IS NOT NULL ORDER BY place")

    def start(self, run: Run) -> None:
        """A job of this run is handed out."""
        with store.transaction(self._connection):
            self._connection.execute(
                "UPDATE runs SET state = 'running', error = NULL, trace = NULL WHERE name = ?", (run.name,)
            )

    def finish(self, run: Run, outcome: Outcome) -> None:
        """What came of a job of this run. Seconds and work add up over its attempts."""
        (run,) = self._select("WHERE name = ?", run.name)
        tasks = {**run.task_seconds, **outcome.task_seconds}
        task_seconds = {task: run.task_seconds.get(task, 0.0) + outcome.task_seconds.get(task, 0.0) for task in tasks}
        numbers = None if outcome.numbers is None else json.dumps(outcome.numbers.to_json(), allow_nan=False)
        with store.transaction(self._connection):
            self._connection.execute(
                "UPDATE runs SET state = ?, seconds = ?, computed = ?, numbers = ?, error = ?, trace = ?,"
                " host = coalesce(?, host) WHERE name = ?",
                (
                    outcome.state, run.seconds + outcome.seconds, json.dumps(task_seconds), numbers,
                    _utf8(outcome.error), _utf8(outcome.trace), outcome.place, run.name,
                ),
            )  # fmt: skip

    def _select(self, condition: str, *values: str) -> list[Run]:
        rows = self._connection.execute(f"SELECT {_COLUMNS} FROM runs {condition}", values)  # noqa: S608  # our own words
        return [Run.from_row(row) for row in rows]


def _utf8(text: str | None) -> str | None:
    """SQLite's text is UTF-8, which has no lone surrogates; they become escapes."""
    return None if text is None else text.encode("utf-8", "backslashreplace").decode("utf-8")
