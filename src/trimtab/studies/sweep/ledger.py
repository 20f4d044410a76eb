"""The ledger of a sweep: one row a run (a point of the grid with one seed), in SQLite, shared by all workers.

waiting → running → done | failed | stopped (by a signal, with a checkpoint) | starved (see `watching`). A running row
names its process by pid and start time; when that process is gone the row is free again.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trimtab import store
from trimtab.errors import StoreError

SCHEMA = 1
NAME = "ledger.sqlite"
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
class Row:
    """One run. `computed` is the work that was done and not served from a cache: seconds by what it was."""

    name: str
    point: str
    seed: int
    folder: str
    grid: Mapping[str, Any]
    config: Mapping[str, Any]
    kin: str
    state: State
    pid: int | None
    started: str | None
    error: str | None
    seconds: float
    computed: dict[str, float]
    numbers: Mapping[str, Any] | None
    elsewhere: str | None = None  # the folder, where another machine makes or made the run (see `machines`)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A run that the grid asks for."""

    name: str
    point: str
    seed: int
    folder: str
    grid: Mapping[str, Any]
    config: Mapping[str, Any]
    kin: str


class Ledger:
    """Rows over a connection of `store.database`. Every method is one transaction, on disk when it returns."""

    look_again = 0.3  # seconds between looks when the next run has to wait for another

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

    def plan(self, runs: Iterable[Wanted], *, retry_failed: bool, stop_starved: bool) -> None:
        """Make these the runs of the sweep, in this order; others stay in the ledger and are not looked at.

        A finished run stays so while its configuration is the same and its report is there.
        """
        with store.transaction(self._connection):
            self._connection.execute("UPDATE runs SET place = NULL")
            for place, run in enumerate(runs):
                self._want(run, place)
            again = ["stopped", *(["failed"] if retry_failed else []), *([] if stop_starved else ["starved"])]
            for state in again:
                self._connection.execute("UPDATE runs SET state = 'waiting' WHERE state = ?", (state,))

    def _want(self, run: Wanted, place: int) -> None:
        told = (place, run.folder, json.dumps(run.grid), json.dumps(run.config), run.kin, run.name)
        found = self._connection.execute("SELECT state, config FROM runs WHERE name = ?", (run.name,)).fetchone()
        if found is None:
            self._connection.execute(
                "INSERT INTO runs (place, folder, grid, config, kin, name, point, seed, state)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'waiting')",
                (*told, run.point, run.seed),
            )
            return
        state, config = found
        same = json.loads(config) | {"out": ""} == dict(run.config) | {"out": ""}
        gone = not (Path(run.folder) / "report.json").is_file()
        if state != "running" and (not same or (state == "done" and gone)):
            state = "waiting"
        self._connection.execute(
            "UPDATE runs SET place = ?, folder = ?, grid = ?, config = ?, kin = ?, state = ? WHERE name = ?",
            (*told[:-1], state, run.name),
        )

    def rows(self) -> list[Row]:
        """The sweep's runs, in the order of its grid."""
        return self._rows("WHERE place IS NOT NULL ORDER BY place")

    def take(self) -> Row | None:
        """The next run that may start now, marked as this process's own; None when there is none.

        Runs that share reference log-probs and unaligned answers wait until the first of them has made these.
        """
        with store.transaction(self._connection):
            self._free_of_the_dead()
            found = self._rows(
                "WHERE place IS NOT NULL AND state = 'waiting' AND (EXISTS (SELECT 1 FROM runs AS made WHERE"
                " made.kin = runs.kin AND made.state = 'done') OR NOT EXISTS (SELECT 1 FROM runs AS other WHERE"
                " other.kin = runs.kin AND other.state = 'running')) ORDER BY place LIMIT 1"
            )
            return self._taken(found[0]) if found else None

    def claim(self, name: str) -> Row | None:
        """This very run, whatever came of it before, marked as this process's own; None while another works on it."""
        with store.transaction(self._connection):
            self._free_of_the_dead()
            (row,) = self._rows("WHERE name = ?", name)
            return None if row.state == "running" else self._taken(row)

    def _taken(self, row: Row) -> Row:
        self._connection.execute(
            "UPDATE runs SET state = 'running', pid = ?, started = ?, error = NULL, trace = NULL WHERE name = ?",
            (os.getpid(), process_start(os.getpid()), row.name),
        )
        return row

    def is_over(self) -> bool:
        """Whether nothing waits and nothing runs."""
        with store.transaction(self._connection):
            self._free_of_the_dead()
            left = self._rows("WHERE place IS NOT NULL AND state IN ('waiting', 'running')")
        return not left

    def finish(
        self,
        row: Row,
        state: State,
        *,
        seconds: float,
        computed: Mapping[str, float],
        numbers: Mapping[str, Any] | None = None,
        error: str | None = None,
        trace: str | None = None,
    ) -> None:
        """What came of a run that `take` gave. Seconds and work add up over a run's lives."""
        work = {name: row.computed.get(name, 0.0) + computed.get(name, 0.0) for name in {**row.computed, **computed}}
        told = None if numbers is None else json.dumps(numbers, allow_nan=False)
        with store.transaction(self._connection):
            self._connection.execute(
                "UPDATE runs SET state = ?, seconds = ?, computed = ?, numbers = ?, error = ?, trace = ?, pid = NULL,"
                " started = NULL WHERE name = ?",
                (state, row.seconds + seconds, json.dumps(work), told, _text(error), _text(trace), row.name),
            )

    def _free_of_the_dead(self) -> None:
        for row in self._rows("WHERE state = 'running'"):
            if row.pid is None or not is_alive(row.pid, row.started):
                self._connection.execute("UPDATE runs SET state = 'waiting' WHERE name = ?", (row.name,))

    def _rows(self, where: str, *values: str) -> list[Row]:
        found = self._connection.execute(f"SELECT {_COLUMNS} FROM runs {where}", values)  # noqa: S608  # our own words
        names = _COLUMNS.split(", ")
        told = (dict(zip(names, values, strict=True)) for values in found)
        return [
            Row(**row | {key: json.loads(row[key] or "null") for key in ("grid", "config", "computed", "numbers")})
            for row in told
        ]


def process_start(pid: int) -> str | None:
    """When a living process started, in the kernel's clock ticks; None where that cannot be known."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    state, *rest = told.rpartition(")")[2].split()
    return None if state in "ZX" else rest[18]


def is_alive(pid: int, started: str | None) -> bool:
    """Whether this very process still runs, and not another that was given its number."""
    if started is not None:
        return process_start(pid) == started
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _text(text: str | None) -> str | None:
    """SQLite's text is UTF-8, which has no lone surrogates; they become escapes."""
    return None if text is None else text.encode("utf-8", "backslashreplace").decode("utf-8")
