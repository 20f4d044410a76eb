"""Rows of JSON, JSON lines and CSV files (also gzipped), with errors that name file, row and remedy."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from pathlib import Path
from typing import Any

from trimtab.errors import DataError
from trimtab.judging.rows import Place, Row, kind

LARGEST_FILE = 2**30  # bytes, unzipped: some hundred times what 805 answers take; a small file can unzip to anything


def read_values(path: Path) -> list[tuple[Place, Any]]:
    """Every value of a JSON list, or of a file with one JSON value a line or values printed over several lines each.

    Raises DataError for a file that is missing, a folder, damaged, empty or not of either form.
    """
    text = _read_text(path)
    start = text.lstrip()
    if not start:
        raise DataError(f"{path} is empty", remedy="give a JSON list or one JSON value a line")
    values = _json_list(path, text) if start.startswith("[") else _json_lines(path, text)
    if not values:
        raise DataError(f"{path} holds no rows", remedy="give a JSON list or one JSON value a line")
    return values


def read_objects(path: Path) -> list[tuple[Place, Row]]:
    """`read_values` of objects only."""
    rows = read_values(path)
    for place, value in rows:
        if not isinstance(value, dict):
            raise DataError(f"{place}: expected an object, found {kind(value)}", remedy="give one {…} a row")
    return rows


def read_csv(path: Path) -> list[tuple[Place, dict[str, str]]]:
    """Rows of a CSV file with a header; a nameless first column is called `index`, as pandas writes it."""
    lines = csv.reader(io.StringIO(_read_text(path), newline=""), strict=True)
    try:
        header = next(lines, [])
        names = [name or "index" if k == 0 else name for k, name in enumerate(header)]
        rows = []
        for number, cells in enumerate(lines, start=1):
            if len(cells) != len(names):
                raise DataError(
                    f"{Place(path, number)} has {len(cells)} cells, the header {len(names)}",
                    remedy="download the file again",
                )
            rows.append((Place(path, number), dict(zip(names, cells, strict=True))))
    except csv.Error as error:
        raise DataError(f"{path} is not CSV: {error}", remedy="download the file again") from error
    if not rows:
        raise DataError(f"{path} holds no rows", remedy="download the file again")
    return rows


def read_lines(path: Path) -> list[tuple[Place, str]]:
    """The lines of a text file that are not blank."""
    lines = enumerate(_read_text(path).splitlines(), start=1)
    texts = [(Place(path, number), line.strip()) for number, line in lines if line.strip()]
    if not texts:
        raise DataError(f"{path} holds no lines", remedy="write one prompt a line")
    return texts


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            is_gzip = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if is_gzip else path.open("rb") as file:
            raw = file.read(LARGEST_FILE + 1)
        if len(raw) > LARGEST_FILE:
            raise DataError(
                f"{path} holds more than {LARGEST_FILE / 2**30:.3g} GiB", remedy="name a file of answers or verdicts"
            )
        return raw.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file", remedy="check the path") from error
    except IsADirectoryError as error:
        raise DataError(f"{path} is a folder", remedy="name the file in it") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start})", remedy="save it as UTF-8") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is a damaged gzip file: {error}", remedy="download it again") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", remedy="check the permissions") from error


def _not_json(path: Path, error: ValueError | RecursionError) -> DataError:
    if not isinstance(error, json.JSONDecodeError):  # an integer of more than 4,300 digits
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error).split(";")[0]
        return DataError(f"{path} holds JSON that cannot be read: {reason}", remedy="write the file again")
    return DataError(
        f"{path}, line {error.lineno}, column {error.colno} is not JSON: {error.msg}",
        remedy="mend that line, or write the file again",
    )


def _json_list(path: Path, text: str) -> list[tuple[Place, Any]]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _not_json(path, error) from error
    return [(Place(path, number), value) for number, value in enumerate(values, start=1)]


_GOES_ON = ("{", "[", ",", ":")  # how a line ends whose value is printed over several
_BLANK = re.compile(r"\s*")


def _spread(path: Path, text: str) -> list[tuple[Place, Any]]:
    """Values one after another, each printed over as many lines as it likes; a row is numbered by its first line."""
    decoder, values, text = json.JSONDecoder(), [], text.rstrip()
    line, end = 1, 0
    while end < len(text):
        start = _BLANK.match(text, end).end()  # type: ignore[union-attr]  # the pattern matches everywhere
        line += text.count("\n", end, start)
        try:
            value, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError) as error:
            raise _not_json(path, error) from error
        values.append((Place(path, line), value))
        line += text.count("\n", start, end)
    return values


def _json_lines(path: Path, text: str) -> list[tuple[Place, Any]]:
    values = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            values.append((Place(path, number), json.loads(line)))
        except json.JSONDecodeError as error:
            if not values and line.rstrip().endswith(_GOES_ON):
                return _spread(path, text)
            raise DataError(
                f"{path}, line {number}, column {error.colno} is not JSON: {error.msg}",
                remedy="give a JSON list, or one whole JSON value a line",
            ) from error
        except (ValueError, RecursionError) as error:
            raise _not_json(path, error) from error
    return values
