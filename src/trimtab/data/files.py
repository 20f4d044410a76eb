"""Rows of one local file, streamed: JSON lines, JSON, CSV, TSV or Parquet; the text ones also gzipped.

Every mistake in a file is a `DataError` that names the file, the line and the remedy. Numbers in row ids are what an
editor shows: the line for JSON lines and CSV (where the row starts), the place in the list for JSON and Parquet.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, cast

from trimtab.data import json_columns
from trimtab.data.messages import kind_of
from trimtab.errors import DataError, require_package

Row = dict[str, Any]
Reader = Callable[[Path], Iterator[tuple[int, Row]]]

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
LONGEST_LINE = 2**30  # bytes, unzipped; a JSON document that is one line has to fit too
_LFS_HEADER = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A readable file and how to read it. `total` is the number of rows where it is known without reading them."""

    path: Path
    reader: Reader
    total: int | None = None

    def rows(self, places: Sequence[int] | None = None) -> Iterator[tuple[int, Row]]:
        """Numbered rows; only those at `places`, ascending and from 0, where they are given."""
        if places is None:
            return self.reader(self.path)
        numbers = set(places)
        first = islice(enumerate(self.reader(self.path)), max(numbers, default=-1) + 1)
        return (numbered for place, numbered in first if place in numbers)

    def size(self) -> int:
        """How many rows there are; lines are counted without being parsed."""
        if self.total is not None:
            return self.total
        if self.reader is _json_lines_rows:
            return sum(1 for _, text in _text_lines(self.path) if text.strip())
        return sum(1 for _ in self.rows())

    def digest(self) -> str:
        """sha256 of the bytes on disk."""
        with _reading(self.path), self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def open_local_file(path: Path) -> LocalFile:
    """Choose the reader by the file's ending and its first bytes. Raises `DataError` when there is none."""
    suffix = _suffix(path)
    if suffix not in SUFFIXES:
        raise DataError(
            f"{path}: '{suffix or path.name}' is not a data format that trimtab reads",
            remedy=f"use one of {', '.join(SUFFIXES)} (the text ones may be gzipped: .jsonl.gz)",
        )
    _refuse_empty_or_pointer(path)
    match suffix:
        case ".parquet":
            return LocalFile(path, _parquet_rows, _parquet_total(path))
        case ".csv" | ".tsv":
            return LocalFile(path, _csv_rows)
        case ".json" if not _first_line_is_object(path):
            return LocalFile(path, _json_rows)
        case _ if _starts_with(path, b"["):
            return LocalFile(path, _json_rows)
        case _:
            return LocalFile(path, _json_lines_rows)


# ---- text formats ----------------------------------------------------------------------------------------------------


def _json_lines_rows(path: Path) -> Iterator[tuple[int, Row]]:
    for number, text in _text_lines(path):
        if text.strip():
            yield number, _object(_parse(text, path=path, line=number), path=path, place=f"line {number}")


def _json_rows(path: Path) -> Iterator[tuple[int, Row]]:
    for number, value in enumerate(_json_list(path), start=1):
        yield number, _object(value, path=path, place=f"entry {number}")


def _json_list(path: Path) -> list[Any]:
    """The rows of a whole JSON document: a list, or an object with exactly one list in it. Held in memory whole."""
    value = _parse("".join(text for _, text in _text_lines(path)), path=path, line=None)
    if isinstance(value, dict):
        lists = {key: item for key, item in value.items() if isinstance(item, list)}
        if len(lists) != 1:
            names = ", ".join(map(repr, lists)) or "none"
            raise DataError(
                f"{path}: a JSON object must hold exactly one list of rows; lists found: {names}",
                remedy='write a list of objects, or one object a line in a ".jsonl" file',
            )
        (value,) = lists.values()
    if not isinstance(value, list):
        raise DataError(
            f"{path}: holds {kind_of(value)} where a list of objects was expected",
            remedy='write a list of objects, or one object a line in a ".jsonl" file',
        )
    return value


def _csv_rows(path: Path) -> Iterator[tuple[int, Row]]:
    csv.field_size_limit(2**31 - 1)  # the standard limit of 131,072 characters is less than one long conversation
    lines = (text for _, text in _text_lines(path))
    first = next(lines, "")
    reader = csv.reader(
        _chain(first, lines), delimiter="\t" if _suffix(path) == ".tsv" else _delimiter(first), strict=True
    )
    with _csv_errors(path, reader):
        header = [name.strip() for name in next(reader)]
        _check_header(header, path)
        start = reader.line_num + 1
        for cells in reader:
            if cells:
                yield start, _cells_to_row(cells, header, path=path, line=start)
            start = reader.line_num + 1


def _check_header(header: list[str], path: Path) -> None:
    duplicates = sorted({name for name in header if header.count(name) > 1})
    if duplicates or not all(header):
        fault = f"column {duplicates[0]!r} twice" if duplicates and duplicates[0] else "a column without a name"
        raise DataError(f"{path}, line 1: the header has {fault}", remedy="name every column once in the first line")


def _cells_to_row(cells: list[str], header: list[str], *, path: Path, line: int) -> Row:
    if len(cells) != len(header):
        raise DataError(
            f"{path}, line {line}: {len(cells)} cells where the header has {len(header)} columns",
            remedy='put a text that has a delimiter or a line break in it between double quotes, and write " as ""',
        )
    return dict(zip(header, cells, strict=True))


@contextmanager
def _csv_errors(path: Path, reader: Any) -> Iterator[None]:
    try:
        yield
    except csv.Error as error:
        raise DataError(
            f"{path}, at or before line {reader.line_num}: broken CSV: {error}",
            remedy='close every quoted text, and write a double quote inside one as ""',
        ) from None


def _delimiter(header: str) -> str:
    """The one of comma, semicolon and tab that the header line has most of (spreadsheets write all three)."""
    return max(",;\t", key=header.count)


def _chain(first: str, lines: Iterator[str]) -> Iterator[str]:
    yield first
    yield from lines


# ---- Parquet ---------------------------------------------------------------------------------------------------------


def _parquet_rows(path: Path) -> Iterator[tuple[int, Row]]:
    number = 0
    with _parquet_errors(path):
        file = _parquet_file(path)
        parse = json_columns.parser(file.schema_arrow)
        for batch in file.iter_batches(batch_size=1024):
            for row in batch.to_pylist():
                number += 1
                yield number, row if parse is None else parse(row)


def _parquet_total(path: Path) -> int:
    with _parquet_errors(path):
        total: int = _parquet_file(path).metadata.num_rows
        return total


def _parquet_file(path: Path) -> Any:
    from pyarrow import parquet  # type: ignore[import-untyped]  # pyarrow publishes no types

    return parquet.ParquetFile(path)


@contextmanager
def _parquet_errors(path: Path) -> Iterator[None]:
    require_package("pyarrow", extra="hub", reason=f"{path}: Parquet")
    import pyarrow

    try:
        with _reading(path):
            yield
    except pyarrow.ArrowException as error:
        raise DataError(
            f"{path}: damaged, or no Parquet file: {str(error).splitlines()[0]}",
            remedy="download or export the file again",
        ) from None


# ---- bytes, lines and their faults -----------------------------------------------------------------------------------


def _text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines, split at line feeds alone (JSON may hold U+2028), decoded as UTF-8, without a byte-order mark."""
    with _open_bytes(path) as file:
        for number, line in enumerate(_lines(file), start=1):
            if len(line) > LONGEST_LINE:
                raise DataError(
                    f"{path}, line {number}: longer than {LONGEST_LINE / 2**20:.3g} MiB", remedy="write one row a line"
                )
            if number == 1 and line[:2] in (b"\xff\xfe", b"\xfe\xff"):
                raise _encoding_error(path, "line 1: UTF-16", "UTF-16")
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                place = f"line {number}, byte {error.start + 1}: 0x{line[error.start]:02x}"
                raise _encoding_error(path, place, "WINDOWS-1252") from None


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    """Lines, cut a little above the longest that is read: a small gzip can hold a line of any length."""
    while line := file.readline(LONGEST_LINE + 1):
        yield line


def _encoding_error(path: Path, place: str, likely: str) -> DataError:
    source = f"zcat {path.name} | iconv" if path.suffix.lower() == ".gz" else f"< {path.name} iconv"
    remedy = f"save it as UTF-8, for instance: {source} -f {likely} -t UTF-8 > fixed{_suffix(path)}"
    return DataError(f"{path}, {place} is not UTF-8", remedy=remedy)


@contextmanager
def _open_bytes(path: Path) -> Iterator[IO[bytes]]:
    with _reading(path), path.open("rb") as raw:
        is_gzip = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        if not is_gzip:
            yield raw
            return
        with gzip.GzipFile(fileobj=raw) as stream:
            yield cast(IO[bytes], stream)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError:
        raise DataError(f"{path}: no permission to read it", remedy=f"chmod u+r {path}, or name another file") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"{path}: damaged gzip: {error or 'its end is missing'}",
            remedy="download the file again, or gzip it again",
        ) from None
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read: {error.strerror or error}", remedy="check the path and the disk"
        ) from None


def _parse(text: str, *, path: Path, line: int | None) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        at = line if line is not None else error.lineno
        fault = f"{error.msg} at column {error.colno}"
    except RecursionError:
        at, fault = line or 1, "nested too deeply"
    except ValueError as error:  # an integer of more than 4,300 digits
        at, fault = line or 1, str(error).split(";")[0]
    look = f"zcat {path.name} | sed -n {at}p" if path.suffix.lower() == ".gz" else f"sed -n {at}p {path.name}"
    remedy = f"fix or delete that line (see it with: {look})"
    raise DataError(f"{path}, line {at}: broken JSON: {fault}", remedy=remedy)


def _object(value: Any, *, path: Path, place: str) -> Row:
    if not isinstance(value, dict):
        raise DataError(
            f"{path}, {place}: {kind_of(value)} where an object with columns was expected",
            remedy='write every row as an object: {"prompt": …, "chosen": …, "rejected": …}',
        )
    return value


def _refuse_empty_or_pointer(path: Path) -> None:
    with _reading(path), path.open("rb") as file:
        head = file.read(len(_LFS_HEADER))
    if not head:
        raise DataError(f"{path}: the file is empty", remedy="name a file with at least one row")
    if head == _LFS_HEADER:
        raise DataError(
            f"{path}: a Git LFS pointer, not the data itself",
            remedy=f"fetch the data with: git lfs pull --include {path.name}",
        )


def _first_line_is_object(path: Path) -> bool:
    """Whether a `.json` file is JSON lines in truth, as many published ones are."""
    text = next((text for _, text in _text_lines(path) if text.strip()), "")
    try:
        return isinstance(json.loads(text), dict) and _has_second_row(path)
    except (ValueError, RecursionError):
        return False


def _has_second_row(path: Path) -> bool:
    numbers = (number for number, text in _text_lines(path) if text.strip())
    return next(numbers, None) is not None and next(numbers, None) is not None


def _starts_with(path: Path, mark: bytes) -> bool:
    return next((text for _, text in _text_lines(path) if text.strip()), "").lstrip().startswith(mark.decode())


def _suffix(path: Path) -> str:
    """The ending that names the format, in lower case; `.gz` is looked through."""
    plain = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    return plain.suffix.lower()
