"""What the global cache and the runs' checkpoints take on the disk; pruning them, and moving the cache elsewhere.

Everything but the verdicts can be made again by the runs that need it; the pairs that Python handed over cannot.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trimtab import disk, store
from trimtab.commands.run_list import folder_bytes, runs_below
from trimtab.errors import ConfigError, StoreError
from trimtab.reporting.text import columns
from trimtab.runtime.folder import Folder

CHECKPOINTS = "checkpoints"
KINDS = {
    "reference": "log-probabilities of frozen models; a run computes them again",
    "answers": "decoded answers; a run decodes them again",
    "capability": "answers to `trimtab check`; it asks again",
    "gguf": "models unpacked from GGUF files; they are unpacked again",
    "merged": "adapters merged into their base; they are merged again",
    "benchmarks": "official texts; they are fetched again",
    "templates": "links to base models with a built-in chat template; a run makes them again",
    "pairs": "pairs that Python handed over: a stopped run needs them",
    "verdicts.sqlite": "judgments; they may have been paid for",
}
IRREPLACEABLE = ("pairs", "verdicts.sqlite")  # pruned only by name, never by `all`
DAY = 86_400.0  # seconds


@dataclass(frozen=True, slots=True)
class Share:
    """One kind: how many entries, their bytes on the disk, and what it means to lose them."""

    kind: str
    entries: int
    bytes: int
    meaning: str


@dataclass(frozen=True, slots=True)
class Cache:
    """`bytes_freed` and `moved_to`: what this command did."""

    folder: str
    runs: str
    shares: tuple[Share, ...]
    bytes_freed: int = 0
    is_dry_run: bool = False
    moved_to: str | None = None
    needs_variable: bool = False

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"shares": [asdict(share) for share in self.shares]}


def main(
    *, runs: str, prune: Sequence[str] = (), older_than: float = 0.0, move_to: str | None = None, dry_run: bool = False
) -> Cache:
    """Show; or delete what `prune` names and is older than so many days; or move the cache and leave a link.

    Checkpoints are those of reported runs below `runs`, whose model is there. Raises ConfigError for a kind or a target
    that cannot be, StoreError where the disk is full or the cache is in use.
    """
    home, kinds = store.home(), _kinds(prune)
    entries = {kind: _entries(kind, home, Path(runs)) for kind in (*KINDS, CHECKPOINTS)}
    moved_to, needs_variable, bytes_freed = None, False, 0
    old = time.time() - older_than * DAY
    for kind in kinds:
        for path in [path for path in entries[kind] if path.stat().st_mtime <= old]:
            bytes_freed += _bytes(path)
            if not dry_run:
                _delete(path, kind)
                entries[kind].remove(path)
    if move_to is not None:
        target = Path(move_to).expanduser().absolute()
        needs_variable = not _move(home, target)
        moved_to = str(target)
        entries |= {kind: _entries(kind, target, Path(runs)) for kind in KINDS}
    meanings = KINDS | {CHECKPOINTS: f"of reported runs in {runs}, to train on from; each run has its model"}
    shares = [Share(kind, len(paths), sum(map(_bytes, paths)), meanings[kind]) for kind, paths in entries.items()]
    return Cache(str(home), runs, tuple(shares), bytes_freed, dry_run, moved_to, needs_variable)


def lines(cache: Cache) -> list[str]:
    """For a terminal."""
    head = ["kind", "entries", "size", "what it is"]
    rows = [[share.kind, f"{share.entries:,}", disk.size(share.bytes), share.meaning] for share in cache.shares]
    text = [f"{cache.folder}", *columns([head, *rows])]
    text.append(f"  {disk.size(sum(share.bytes for share in cache.shares))} in all")
    if cache.bytes_freed or cache.is_dry_run:
        text.append(f"{'would free' if cache.is_dry_run else 'freed'} {disk.size(cache.bytes_freed)}")
    if cache.moved_to is not None:
        advice = ""
        if cache.needs_variable:
            advice = f"; no link could be left behind, so set TRIMTAB_HOME={cache.moved_to} from now on"
        text.append(f"moved to {cache.moved_to}{advice}")
    return text


def _kinds(names: Sequence[str]) -> list[str]:
    all_kinds = [*KINDS, CHECKPOINTS]
    kinds = [
        kind
        for name in names
        for kind in ([k for k in all_kinds if k not in IRREPLACEABLE] if name == "all" else [name])
    ]
    if unknown := [kind for kind in kinds if kind not in all_kinds]:
        raise ConfigError(
            f"--prune {unknown[0]} is no kind of cache",
            remedy=f"choose from: all, {', '.join(all_kinds)}; several with commas",
        )
    return list(dict.fromkeys(kinds))


def _entries(kind: str, home: Path, runs: Path) -> list[Path]:
    if kind == CHECKPOINTS:
        return [path for run in runs_below(runs) for path in _spare_checkpoints(run)] if runs.is_dir() else []
    path = home / kind
    return [path] if path.is_file() else sorted(path.iterdir()) if path.is_dir() else []


def _spare_checkpoints(run: Path) -> list[Path]:
    """Of a run that is reported: its model is there, whole, for every seed."""
    if not (run / "report.json").is_file():
        return []
    seeds = [Folder(run), *map(Folder, sorted(run.glob("seed-*")))]
    return [seed.checkpoints for seed in seeds if seed.checkpoints.is_dir() and not store.damage(seed.model)]


def _bytes(path: Path) -> int:
    return path.lstat().st_size if path.is_file() else folder_bytes(path)


def _delete(path: Path, kind: str) -> None:
    if kind == CHECKPOINTS:
        with store.lock(path.parent):
            store.remove(path)
    else:
        store.remove(path)


def _move(home: Path, target: Path) -> bool:
    """Move, and leave a link; whether there is one. Raises where the target is taken or the disk too small."""
    if not home.is_dir():
        raise ConfigError(f"there is no cache in {home}", remedy=f"set TRIMTAB_HOME={target}; a run fills it")
    source = home.resolve()
    if target.exists() or target.is_relative_to(source):
        raise ConfigError(
            f"{target} is there already, or inside the cache", remedy="name a folder that is not there yet"
        )
    disk.require_space(target, folder_bytes(source))
    with store.lock(source):  # two movers; runs hold their own folders, and the judgments their database
        _require_idle(source / "verdicts.sqlite")
    with disk.disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(source, target)
    try:
        if home.is_symlink():
            home.unlink()
        home.symlink_to(target, target_is_directory=True)
    except OSError:  # Windows lets few people make links
        return False
    return True


def _require_idle(database: Path) -> None:
    """Refuse while another process writes judgments; all of them are in the file itself afterwards."""
    if not database.is_file():
        return
    with store.database(database) as connection:
        busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        raise StoreError(f"{database} is in use", remedy="wait until no command judges, and move the cache then")
