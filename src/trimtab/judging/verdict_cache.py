"""The verdict cache: what judges said, by what they were asked, so that nothing is paid for twice.

One SQLite database (`trimtab.store.database`) with two tables: `verdicts`, each a value with the reply it was read
from, and `failures`, which are never a value and go when a verdict comes. A key (`question_key`) is the digest of
everything that decides a reply.
"""

from __future__ import annotations

import json
import logging
import math
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from trimtab import store
from trimtab.endpoint import Request
from trimtab.errors import StoreError
from trimtab.judging import row_checksums
from trimtab.records import digest

SCHEMA = 2  # 1: rows without a checksum
_LOG = logging.getLogger("trimtab.judging")
_BATCH = 500  # keys in one statement; SQLite takes at least 999 variables
_TABLES = (
    """CREATE TABLE verdicts (
        key TEXT PRIMARY KEY, judge TEXT NOT NULL, subject TEXT NOT NULL, value REAL NOT NULL, reply TEXT,
        prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, seconds REAL NOT NULL,
        created REAL NOT NULL, seal INTEGER) WITHOUT ROWID""",
    """CREATE TABLE failures (
        key TEXT PRIMARY KEY, judge TEXT NOT NULL, subject TEXT NOT NULL, kind TEXT NOT NULL, message TEXT NOT NULL,
        attempts INTEGER NOT NULL, last REAL NOT NULL, seal INTEGER) WITHOUT ROWID""",
    "CREATE INDEX verdicts_by_judge ON verdicts (judge)",
)


def verdict_cache_path() -> Path:
    """Where verdicts are kept for all runs: `$TRIMTAB_HOME/verdicts.sqlite`."""
    return store.home() / "verdicts.sqlite"


def question_key(*, judge: str, base_url: str, request: Request) -> str:
    """The key (64 hex digits) of a request to a judge on a server: all that decides the reply, and nothing else.

    `judge` is the model's name there. The request's id, timeouts and prices are no part of it, nor is how the reply is
    read; nor is the port of a server on this machine, which is another at each start.
    """
    return digest(
        {
            "judge": judge,
            "base_url": _server(base_url),
            "messages": [message.to_json() for message in request.messages],
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "top_logprobs": request.top_logprobs,
            "seed": request.seed,
        }
    )


def _server(base_url: str) -> str:
    url = urlsplit(base_url.rstrip("/"))
    is_local = url.hostname in ("localhost", "127.0.0.1", "::1")
    return urlunsplit(url._replace(netloc="localhost")) if is_local else base_url.rstrip("/")


@dataclass(frozen=True, slots=True)
class CachedVerdict:
    """One verdict. `reply` is the JSON that it was read from, None where there was none; `created` is a Unix time."""

    key: str
    judge: str
    subject: str
    value: float
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    created: float
    reply: dict[str, Any] | None


_VERDICT = tuple(column.name for column in fields(CachedVerdict))


@dataclass(frozen=True, slots=True)
class CachedFailure:
    """The last time that a question got no verdict. `last` is a Unix time."""

    key: str
    judge: str
    subject: str
    kind: str
    message: str
    attempts: int
    last: float


_FAILURE = tuple(column.name for column in fields(CachedFailure))
_COLUMNS = {"verdicts": _VERDICT, "failures": _FAILURE}


class VerdictCache:
    """Verdicts and failures over a connection of `store.database`, in the thread that opened it.

    Each `put` and `fail` is one transaction, on disk when it returns. Rows that are not as they were written are
    dropped when the cache is opened, with a warning, and asked again (see `row_checksums`). Raises StoreError for a
    database that a newer trimtab wrote, or that is something else.
    """

    def __init__(self, connection: sqlite3.Connection, *, now: Callable[[], float] = time.time) -> None:
        self._connection, self._now = connection, now
        with store.transaction(self._connection):
            self._open()

    def get(self, keys: Iterable[str]) -> dict[str, CachedVerdict]:
        """The verdicts that are there."""
        rows = self._rows(f"SELECT {', '.join(_VERDICT)} FROM verdicts WHERE key IN", keys)  # noqa: S608  # own names
        verdicts = {}
        for row in rows:
            columns = dict(zip(_VERDICT, row, strict=True))
            reply = columns.pop("reply")
            verdicts[row[0]] = CachedVerdict(**columns, reply=reply and json.loads(reply))
        return verdicts

    def put(
        self,
        key: str,
        *,
        judge: str,
        subject: str,
        value: float,
        reply: Mapping[str, Any] | None = None,
        prompt_tokens: int = 0,
        completion_tokens: int = 0,
        seconds: float = 0.0,
    ) -> None:
        """Keep a verdict in place of an earlier one or a failure. `subject` names the prompt, for people."""
        assert math.isfinite(value), f"{judge} said {value} on {subject}: no verdict is a failure, not a value"
        reply_text = None if reply is None else json.dumps(reply, allow_nan=False)
        row = (key, _text(judge), _text(subject), float(value), reply_text, prompt_tokens, completion_tokens, seconds)
        with store.transaction(self._connection):
            self._connection.execute(
                "INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)", (*row, self._now())
            )
            row_checksums.write(self._connection, "verdicts", _VERDICT, key)
            self._connection.execute("DELETE FROM failures WHERE key = ?", (key,))

    def fail(self, key: str, *, judge: str, subject: str, kind: str, message: str, attempts: int) -> None:
        """Keep a failure in place of an earlier one. A verdict that is there stays and there is no failure then."""
        row = (key, _text(judge), _text(subject), kind, _text(message), attempts, self._now())
        with store.transaction(self._connection):
            self._connection.execute(
                "INSERT OR REPLACE INTO failures SELECT ?, ?, ?, ?, ?, ?, ?, NULL"
                " WHERE NOT EXISTS (SELECT 1 FROM verdicts WHERE key = ?)",
                (*row, key),
            )
            row_checksums.write(self._connection, "failures", _FAILURE, key)

    def failures(self, keys: Iterable[str]) -> dict[str, CachedFailure]:
        """The failures that are there."""
        rows = self._rows(f"SELECT {', '.join(_FAILURE)} FROM failures WHERE key IN", keys)  # noqa: S608  # own names
        return {row[0]: CachedFailure(*row) for row in rows}

    def forget(self, key: str) -> None:
        """Take back what is kept under the key."""
        with store.transaction(self._connection):
            self._connection.execute("DELETE FROM verdicts WHERE key = ?", (key,))
            self._connection.execute("DELETE FROM failures WHERE key = ?", (key,))

    def mean_seconds(self, judge: str) -> float | None:
        """How long this judge took for a reply, on average; None when it has not been asked."""
        average = "SELECT AVG(seconds) FROM verdicts WHERE judge = ? AND seconds > 0"
        (mean,) = self._connection.execute(average, (_text(judge),)).fetchone()
        return None if mean is None else float(mean)

    def _rows(self, select: str, keys: Iterable[str]) -> Iterator[tuple[Any, ...]]:
        unique = list(dict.fromkeys(keys))
        for start in range(0, len(unique), _BATCH):
            batch = unique[start : start + _BATCH]
            yield from self._connection.execute(f"{select} ({', '.join('?' * len(batch))})", batch)

    def _open(self) -> None:
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        (n_tables,) = self._connection.execute("SELECT COUNT(*) FROM sqlite_master WHERE type = 'table'").fetchone()
        if version == 0 and n_tables == 0:
            for table in _TABLES:
                self._connection.execute(table)
            self._connection.execute(f"PRAGMA user_version = {SCHEMA}")
        elif version == 0:
            raise StoreError(f"{self._name()} is no verdict cache", remedy="name another file, or move this one away")
        elif version > SCHEMA:
            raise StoreError(
                f"{self._name()} was written by a newer trimtab (schema {version}; this one knows {SCHEMA})",
                remedy="upgrade trimtab, or set TRIMTAB_HOME to another folder",
            )
        elif version == SCHEMA:
            self._drop_damaged()
        else:
            self._add_checksums()

    def _drop_damaged(self) -> None:
        for table, columns in _COLUMNS.items():
            if n := row_checksums.drop_damaged(self._connection, table, columns):
                _LOG.warning("%s: %d of its %s were damaged and are dropped", self._name(), n, table)

    def _add_checksums(self) -> None:
        """Rows of schema 1 are taken as they are."""
        for table, columns in _COLUMNS.items():
            self._connection.execute(f"ALTER TABLE {table} ADD COLUMN {row_checksums.COLUMN} INTEGER")
            row_checksums.write(self._connection, table, columns)
        self._connection.execute(f"PRAGMA user_version = {SCHEMA}")

    def _name(self) -> str:
        return str(self._connection.execute("PRAGMA database_list").fetchone()[2] or "the database")


def _text(text: str) -> str:
    """SQLite's text is UTF-8, which has no lone surrogates; they become escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
