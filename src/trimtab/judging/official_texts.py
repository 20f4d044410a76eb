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
MAX_DEPTH = 8


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
class Found:
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

    def find(self, text: Text) -> Found:
        """The text's file. Raises TextMissingError when it cannot be had, DataError when other bytes were fetched."""
        if self.folder is not None:
            if not self.folder.is_dir():
                raise DataError(f"--benchmark-dir {self.folder} is no folder", remedy="name a folder, or leave it out")
            if found := _in_folder(text, self.folder):
                return found
        kept = self.cache / text.sha256
        if kept.is_file() and store.file_digest(kept) == text.sha256:
            return Found(text, kept, text.sha256, official=True)
        if self.offline:
            raise self._missing(text, "is not cached, and --offline forbids fetching it")
        try:
            content = self.fetch(text.url)
        except UnreachableError as error:
            raise self._missing(text, f"cannot be fetched: {error}") from error
        told = hashlib.sha256(content).hexdigest()
        if told != text.sha256:
            raise DataError(
                f"{text.name}: {text.url} has sha256 {told}, not {text.sha256}: it is not the text that was published",
                remedy=f"to use another text knowingly, give it as {text.known_as[0]} in a --benchmark-dir",
            )
        store.write_bytes(kept, content)
        return Found(text, kept, told, official=True)

    def _missing(self, text: Text, why: str) -> TextMissingError:
        looked = "" if self.folder is None else f" is not in {self.folder},"
        return TextMissingError(
            f"{text.name} ({text.known_as[0]}){looked} {why}",
            remedy=f"download {text.url} elsewhere and give its folder as --benchmark-dir",
        )


def _in_folder(text: Text, folder: Path) -> Found | None:
    """The official bytes anywhere below, else the official rows, else whatever has one of the official names."""
    candidates = [path for path in _files(folder) if path.suffix == text.suffix and path.stat().st_size <= MAX_BYTES]
    named = _by_name(text, candidates)
    rest = [path for path in candidates if path not in set(named)]
    for path in (*named, *rest):
        if text.n_bytes in {None, path.stat().st_size} and store.file_digest(path) == text.sha256:
            return Found(text, path, text.sha256, official=True)
    for path in named:
        if text.rows is not None and rows_digest(path) == text.rows:
            return Found(text, path, store.file_digest(path), official=True)
    return Found(text, named[0], store.file_digest(named[0]), official=False) if named else None


def _by_name(text: Text, candidates: list[Path]) -> list[Path]:
    """Those with an official name, the best name first and then the least deep."""

    def rank(path: Path) -> int | None:
        ends = ((number, PurePosixPath(name).parts) for number, name in enumerate(text.known_as))
        return next((number for number, end in ends if path.parts[-len(end) :] == end), None)

    ranked = [(number, len(path.parts), path) for path in candidates if (number := rank(path)) is not None]
    return [path for _, _, path in sorted(ranked)]


def _files(folder: Path) -> Iterator[Path]:
    """Files below, hidden ones and links to folders left out; no deeper and no more than is sensible."""
    seen = 0
    top = folder.resolve()
    for where, folders, files in os.walk(top):
        here = Path(where)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if len(here.relative_to(top).parts) >= MAX_DEPTH:
            folders.clear()
        for name in sorted(files):
            seen += 1
            if seen > MAX_LOOKED_AT:
                return
            if (here / name).is_file():
                yield here / name


def rows_digest(path: Path) -> str | None:
    """Digest of the [instruction, output, dataset] rows of a JSON list; None for a file of another form."""
    try:
        rows = json.loads(path.read_bytes())
        return digest([[row["instruction"], row["output"], row["dataset"]] for row in rows])
    except (OSError, ValueError, LookupError, TypeError):
        return None
