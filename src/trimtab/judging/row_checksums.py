"""Rows that tell whether they are as they were written.

SQLite finds damage to its structure and none to a value: a flipped bit in a score is another score. So each row carries
a CRC-32 of its other columns, as they are stored; it finds every single flipped bit and every burst of up to 32.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator, Sequence

COLUMN = "seal"  # its name in the databases that are there


def write(connection: sqlite3.Connection, table: str, columns: Sequence[str], key: str | None = None) -> None:
    """Write the checksum of the row of `key`, or of every row, within the caller's transaction. The key comes first."""
    select = f"SELECT {', '.join(columns)} FROM {table}"  # noqa: S608  # our own names
    rows = _rows(connection, select) if key is None else _rows(connection, f"{select} WHERE {columns[0]} = ?", key)
    checksums = [(_sum(row), row[0]) for row in rows]
    connection.executemany(
        f"UPDATE {table} SET {COLUMN} = ? WHERE {columns[0]} = CAST(? AS TEXT)",  # noqa: S608  # our own names
        checksums,
    )


def drop_damaged(connection: sqlite3.Connection, table: str, columns: Sequence[str]) -> int:
    """Delete the rows that are not as their checksum says, within the caller's transaction; how many there were."""
    rows = _rows(connection, f"SELECT {', '.join(columns)}, {COLUMN} FROM {table}")  # noqa: S608  # our own names
    damaged_keys = [(row[0],) for row in rows if _sum(row[:-1]) != row[-1]]
    connection.executemany(
        f"DELETE FROM {table} WHERE {columns[0]} = CAST(? AS TEXT)",  # noqa: S608  # our own names
        damaged_keys,
    )
    return len(damaged_keys)


def _sum(row: Sequence[object]) -> int:
    return zlib.crc32(repr(tuple(row)).encode())


def _rows(connection: sqlite3.Connection, select: str, *variables: str) -> Iterator[tuple[bytes | float | None, ...]]:
    """Text as the bytes that are there, which may be no text any more."""
    before, connection.text_factory = connection.text_factory, bytes
    try:
        yield from connection.execute(select, variables)
    finally:
        connection.text_factory = before
