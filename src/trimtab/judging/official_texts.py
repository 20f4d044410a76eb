"""Texts that belong to others: found in a folder the user names, in the cache, or at their official source.

None is carried along here; each is known by its address and its sha256. A file in the user's folder that has an
official name and other content is used, since people test with corrected or reduced sets, and is marked
`official=False`. What is fetched must be the official bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from trimtab import store
from trimtab.errors import DataError
from trimtab.judging.official_fetch import MAX_BYTES, UnreachableError, fetch
from trimtab.records import digest

MAX_LOOKED_AT = 20_000  # entries of a user's folder
MAX_DEPTH = 8  # folders below the user's; deeper ones are somebody's disk


class TextMissingError(DataError):
    """An official text is neither in the folder nor in the cache, and cannot be fetched."""


@dataclass(frozen=True, slots=True)
class Text:
    """One official file. `known_as` are the ends of the paths under which people keep it, the best first.

    `n_bytes`, where it is known, spares reading files that cannot be it. `rows` is the digest of its [instruction,
    output, dataset] rows: the same rows written as other JSON are as good.
    """

    name: str
    url: str
    sha256: str
    known_as: tuple[str, ...]
    n_bytes: int | None = None
    rows: str | None = None

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.known_as[0]).suffix


@dataclass(frozen=True, slots=True)
class TextFile:
    """Where a text lies, what its bytes are, and whether its content is the official one."""

    text: Text
    path: Path
    sha256: str
    official: bool

    @property
    def note(self) -> str | None:
        """What must be said beside numbers made with it; None for the official text."""
        if self.official:
            return None
        return (
            f"{self.text.name}: {self.path} is not the official file (sha256 {self.sha256[:12]}…, "
            f"official {self.text.sha256[:12]}…): numbers made with it are not comparable with the leaderboard's"
        )

    def to_json(self) -> dict[str, Any]:
        return {"sha256": self.sha256, "official": self.official}


@dataclass(frozen=True, slots=True)
class Source:
    """Where to look: `folder` (`--benchmark-dir`) first, then `cache`, then the network unless `offline`."""

    folder: Path | None = None
    cache: Path = field(default_factory=lambda: store.home() / "benchmarks")
    offline: bool = False
    fetch: Callable[[str], bytes] = fetch

    def find(self, text: Text) -> TextFile:
        """The text's file. Raises TextMissingError when it cannot be had, DataError when other bytes were fetched."""
        if self.folder is not None:
            if not self.folder.is_dir():
                raise DataError(f"--benchmark-dir {self.folder} is no folder", remedy="name a folder, or leave it out")
            if text_file := _in_folder(text, self.folder):
                return text_file
        cache_path = self.cache / text.sha256
        if cache_path.is_file() and store.file_digest(cache_path) == text.sha256:
            return TextFile(text, cache_path, text.sha256, official=True)
        if self.offline:
            raise self._missing(text, "is not cached, and --offline forbids fetching it")
        try:
            content = self.fetch(text.url)
        except UnreachableError as error:
            raise self._missing(text, f"cannot be fetched: {error}") from error
        sha256 = hashlib.sha256(content).hexdigest()
        if sha256 != text.sha256:
            raise DataError(
                f"{text.name}: {text.url} has sha256 {sha256}, not {text.sha256}: it is not the published text",
                remedy=f"to use another text knowingly, give it as {text.known_as[0]} in a --benchmark-dir",
            )
        store.write_bytes(cache_path, content)
        return TextFile(text, cache_path, sha256, official=True)

    def _missing(self, text: Text, reason: str) -> TextMissingError:
        place = "" if self.folder is None else f" is not in {self.folder},"
        return TextMissingError(
            f"{text.name} ({text.known_as[0]}){place} {reason}",
            remedy=f"download {text.url} elsewhere and give its folder as --benchmark-dir",
        )


def _in_folder(text: Text, folder: Path) -> TextFile | None:
    """The official bytes anywhere below, else the official rows, else whatever has one of the official names."""
    candidates = [path for path in _files(folder) if path.suffix == text.suffix and path.stat().st_size <= MAX_BYTES]
    by_name = _by_name(text, candidates)
    other_paths = [path for path in candidates if path not in set(by_name)]
    for path in (*by_name, *other_paths):
        if text.n_bytes in {None, path.stat().st_size} and store.file_digest(path) == text.sha256:
            return TextFile(text, path, text.sha256, official=True)
    for path in by_name:
        if text.rows is not None and rows_digest(path) == text.rows:
            return TextFile(text, path, store.file_digest(path), official=True)
    return TextFile(text, by_name[0], store.file_digest(by_name[0]), official=False) if by_name else None


def _by_name(text: Text, candidates: list[Path]) -> list[Path]:
    """Those with an official name, the best name first and then the least deep."""

    def rank(path: Path) -> int | None:
        ends = ((number, PurePosixPath(name).parts) for number, name in enumerate(text.known_as))
        return next((number for number, end in ends if path.parts[-len(end) :] == end), None)

    order = [(number, len(path.parts), path) for path in candidates if (number := rank(path)) is not None]
    return [path for _, _, path in sorted(order)]


def _files(folder: Path) -> Iterator[Path]:
    """Files below, hidden ones and links to folders left out; no deeper and no more than is sensible."""
    n_seen = 0
    top = folder.resolve()
    for parent, folders, files in os.walk(top):
        parent_path = Path(parent)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if len(parent_path.relative_to(top).parts) >= MAX_DEPTH:
            folders.clear()
        for name in sorted(files):
            n_seen += 1
            if n_seen > MAX_LOOKED_AT:
                return
            if (parent_path / name).is_file():
                yield parent_path / name


def rows_digest(path: Path) -> str | None:
    """Digest of the [instruction, output, dataset] rows of a JSON list; None for a file of another form."""
    try:
        rows = json.loads(path.read_bytes())
        return digest([[row["instruction"], row["output"], row["dataset"]] for row in rows])
    except (OSError, ValueError, LookupError, TypeError):
        return None
