"""Where rows come from: `read_rows` turns a path or a Hub name into rows that can be visited more than once."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from trimtab.data import hub
from trimtab.data.files import SUFFIXES, open_local_file
from trimtab.errors import DataError

HEAD_ROWS = 64  # enough that a handful of faulty rows is no majority
_OF_DRAWS = 0xD4A7A  # second word of the key, so that a draw shares no stream with the order of an epoch


class _Source(Protocol):
    """What rows are read from: a local file, or a split in Arrow form."""

    def rows(self, places: Sequence[int] | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
        """Numbered rows; only those at `places`, ascending and from 0, where they are given."""

    def size(self) -> int:
        """How many rows there are."""

    def digest(self) -> str:
        """sha256 that names all of the rows."""


@dataclass(frozen=True)
class Rows:
    """Rows of one source as `(row id, columns)`; every iteration starts anew from the first row.

    Row ids name the file or data set and the row for people: `pairs.jsonl:17` is line 17. Where there is a `limit`,
    that many rows are drawn from the whole source with `seed`, in the source's order; without a seed they are the
    first. Where rows belong together, `starts` are the places, from 0, at which such groups begin: whole groups are
    kept, as many of those drawn as fit into the limit, and one at least. `total` is the
    number of rows an iteration gives, where that is known beforehand. Iterating raises `DataError` at a row that is no
    data.
    """

    source: str
    name: str
    known_size: int | None
    _from: _Source = field(repr=False)
    limit: int | None = None
    seed: int | None = None
    starts: tuple[int, ...] = ()

    def __iter__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        is_drawn = self.limit is not None and (self.seed is not None or bool(self.starts))
        numbered = self._from.rows(self._places) if is_drawn else islice(self._from.rows(), self.limit)
        for number, row in numbered:
            yield f"{self.name}:{number}", row

    def limited(self, limit: int | None, *, seed: int | None) -> Rows:
        """The same source, `limit` rows of it."""
        return replace(self, limit=limit, seed=seed)

    def grouped(self, starts: Sequence[int]) -> Rows:
        """The same rows, of which those from a start to the next belong together."""
        return replace(self, starts=tuple(starts))

    def named(self, name: str) -> Rows:
        """The same rows under another name in their ids."""
        return replace(self, name=name)

    @property
    def total(self) -> int | None:
        return self.known_size if self.known_size is None or self.limit is None else min(self.known_size, self.limit)

    @cached_property
    def size(self) -> int:
        """Rows of the whole source; a text file is read once for it."""
        return self._from.size() if self.known_size is None else self.known_size

    @cached_property
    def _places(self) -> list[int]:
        limit = self.limit or 0
        if self.starts:
            return draw_groups(self.starts, self.size, limit, seed=self.seed)
        return draw(self.size, limit, seed=self.seed or 0)

    @cached_property
    def head(self) -> tuple[dict[str, Any], ...]:
        """The first rows (at most 64), from which the format is told."""
        return tuple(row for _, row in islice(self, HEAD_ROWS))

    @cached_property
    def digest(self) -> str:
        """sha256 that names the whole source (not the limit): the file's bytes, or the Hub's revision and split."""
        return self._from.digest()


def draw(n: int, k: int, *, seed: int) -> list[int]:
    """`k` of `n` places (all, where there are no more), ascending. More of them hold all that fewer do."""
    return sorted(_permutation(n, seed)[:k])


def draw_groups(starts: Sequence[int], n: int, limit: int, *, seed: int | None) -> list[int]:
    """The places of whole groups, ascending: in the order in which they are drawn (without a seed their own), up to
    the first that would pass `limit` places, and one at least. A higher limit holds all that a lower one does.

    `starts`: the first place of each group, ascending from 0; `n`: all places.
    """
    groups = [range(start, end) for start, end in pairwise([*starts, n])]
    places: list[int] = []
    for number in range(len(groups)) if seed is None else _permutation(len(groups), seed):
        if places and len(places) + len(groups[number]) > limit:
            break
        places += groups[number]
    return sorted(places)


def _permutation(n: int, seed: int) -> list[int]:
    """By keys from Philox, a counter-based generator whose stream numpy keeps fixed between releases."""
    keys = np.random.Philox(key=np.array([seed % 2**64, _OF_DRAWS], dtype=np.uint64)).random_raw(n)
    return [int(place) for place in np.argsort(keys, kind="stable")]


def read_rows(
    source: str,
    *,
    split: str | None = None,
    split_key: str = "data.split",
    limit: int | None = None,
    seed: int | None = None,
    offline: bool = False,
) -> Rows:
    """Open a source of rows.

    `source` is a JSON-lines, JSON, CSV, TSV or Parquet file (the text ones plain or gzipped), a folder made by
    `save_to_disk`, or else a data set on the Hub (`owner/name`, `owner/name:subset`, `…@revision`). `split` chooses
    among the splits of the latter two (without it: the only one), and `split_key` is the key that says so. `limit`
    rows are kept: drawn with `seed`, or the first where that is None.

    Raises `DataError` when there is no such source, it cannot be read, or it has no rows.
    """
    if limit is not None and limit < 1:
        raise DataError(f"limit is {limit}; at least one row is needed", remedy="give a limit of 1 or more, or none")
    rows = _open_source(source, split=split, split_key=split_key, offline=offline).limited(limit, seed=seed)
    if not rows.head:
        raise DataError(f"{source}: there are no rows in it", remedy="name a source with at least one row")
    return rows


def _open_source(source: str, *, split: str | None, split_key: str, offline: bool) -> Rows:
    path = Path(source).expanduser()
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except OSError as error:
        raise DataError(f"{source}: cannot be looked up: {error.strerror}", remedy="check the path") from None
    if is_folder:
        return _saved_rows(path, split=split, split_key=split_key)
    if exists:
        return _file_rows(path, split=split, split_key=split_key)
    return _hub_rows(source, path, split=split, split_key=split_key, offline=offline)


def _file_rows(path: Path, *, split: str | None, split_key: str) -> Rows:
    if split is not None:
        raise DataError(f"{path}: a file has no splits, so none is called '{split}'", remedy=f"leave {split_key} out")
    file = open_local_file(path)
    return Rows(str(path), path.name, file.total, file)


def _saved_rows(folder: Path, *, split: str | None, split_key: str) -> Rows:
    if not hub.is_saved_dataset(folder):
        files = sorted(str(file) for file in _data_files(folder))
        remedy = f"name one file, for instance: {files[0]}" if files else "name a data file, or a Hub data set"
        files_here = f"{len(files)} data files are in it" if files else "no data file is in it"
        raise DataError(f"{folder}: a folder, but not one made by save_to_disk; {files_here}", remedy=remedy)
    return _split_rows(hub.load_saved(folder, split=split, split_key=split_key), source=str(folder), name=folder.name)


def _hub_rows(source: str, path: Path, *, split: str | None, split_key: str, offline: bool) -> Rows:
    name = hub.parse_hub_name(source)
    if name is None or _looks_like_a_path(source, path):
        raise DataError(f"{source}: no such file", remedy=_path_remedy(source, path))
    loaded = hub.load_hub(name, split=split, split_key=split_key, offline=offline)
    return _split_rows(loaded, source=source, name=source)


def _split_rows(split: hub.LoadedSplit, *, source: str, name: str) -> Rows:
    return Rows(source, f"{name}[{split.name}]", split.size(), split)


def _looks_like_a_path(source: str, path: Path) -> bool:
    """A data ending, or a folder that exists here, says that a file was meant and not a name on the Hub."""
    plain = path.with_suffix("") if path.suffix == ".gz" else path
    return plain.suffix.lower() in SUFFIXES or source.startswith((".", "/", "~")) or source.endswith("/")


def _path_remedy(source: str, path: Path) -> str:
    if "://" in source:
        return "download the file first, then name it; trimtab reads local files and Hub data sets"
    try:
        siblings = [file.name for file in _data_files(path.parent)] if path.parent.is_dir() else None
    except OSError:
        siblings = []
    if siblings is None:
        return f"check the path: there is no folder {path.parent} either"
    close = difflib.get_close_matches(path.name, siblings, n=1)
    return (
        f"did you mean {path.parent / close[0]}?" if close else "check the path, or name a Hub data set as owner/name"
    )


def _data_files(folder: Path) -> list[Path]:
    """Data files in a folder and one level below it (`data/train-00000.parquet` in a downloaded repository)."""
    return [
        file
        for pattern in ("*", "*/*")
        for file in folder.glob(pattern)
        if file.is_file() and (file.with_suffix("") if file.suffix == ".gz" else file).suffix.lower() in SUFFIXES
    ]
