"""The only module that opens files for writing.

Two promises. A file or folder that has its final name is whole: it was written beside it, synced, and renamed. A folder
committed with `commit_folder` carries `manifest.json` with the size and sha256 of every file, so damage is found on
reading. What could not be written is a `StoreError` that names the path, the bytes needed and the bytes free.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, cast

from trimtab.disk import disk_errors, free, is_at_work, size, try_lock, writer
from trimtab.errors import StoreError

MANIFEST = "manifest.json"
_MANIFEST_FORMAT = 1  # raise when a manifest's keys change


def home() -> Path:
    """The global cache: `$TRIMTAB_HOME`, else the platform's cache folder."""
    if folder := os.environ.get("TRIMTAB_HOME"):
        return Path(folder).expanduser()
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "trimtab"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "trimtab"


def file_digest(path: Path) -> str:
    """sha256 (64 hex digits) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> Any:
    """One JSON value; a file that does not parse is a `StoreError` naming it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(
            f"cannot read {path}: {error}", remedy="delete the file; the stage that made it will make it again"
        ) from error


def write_json(path: Path, value: object) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Atomic replace: the old content or the new one, never a torn file.

    What UTF-8 cannot say (a lone surrogate, which foreign text may hold) is written as its escape; JSON reads it back.
    """
    _write_parts(path, (text,), needs=len(text))


def write_bytes(path: Path, content: bytes) -> None:
    """Atomic replace with bytes as they are."""
    _write_whole(path, "wb", lambda file: file.write(content), needs=len(content))


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """`write_text` of one JSON object a line, row by row."""
    _write_parts(path, (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))


def _write_parts(path: Path, parts: Iterable[str], *, needs: int | None = None) -> None:
    text = {"encoding": "utf-8", "errors": "backslashreplace", "newline": "\n"}
    _write_whole(path, "w", lambda file: file.writelines(parts), needs=needs, **text)


def _write_whole(
    path: Path, mode: str, write: Callable[[IO[Any]], object], *, needs: int | None = None, **options: str
) -> None:
    with disk_errors(path, needs=needs):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".tmp-{writer()}-{path.name}")
        try:
            with cast(IO[Any], temporary.open(mode, **options)) as file:  # type: ignore[call-overload]  # mode is a variable
                write(file)
                _sync(file)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Every whole line; a torn last line (a kill in the middle of an append) is left out."""
    return list(iter_jsonl(path))


def iter_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of `read_jsonl` one after another."""
    with path.open(encoding="utf-8") as file:
        number = 1
        try:
            for line in file:
                if not line.endswith("\n"):
                    return
                yield _object(json.loads(line))
                number += 1
        except (ValueError, RecursionError) as error:
            raise StoreError(
                f"{path}, line {number}: cannot be read: {error}",
                remedy="delete the file; the stage that made it will make it again",
            ) from error


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


class JsonLines:
    """An append-only log: one JSON object a line, on disk when `append` returns to the operating system."""

    def __init__(self, path: Path, *, keep: Callable[[dict[str, Any]], bool] = lambda _row: False) -> None:
        """Opens `path`; rows already there survive only when `keep` says so (a resumed run keeps what it had done)."""
        write_jsonl(path, (row for row in iter_jsonl(path) if keep(row)) if path.exists() else ())
        self._path = path
        with disk_errors(path):
            self._file = path.open("a", encoding="utf-8", errors="backslashreplace", newline="\n")

    def append(self, row: Mapping[str, Any]) -> None:
        line = json.dumps(row, ensure_ascii=False) + "\n"
        with disk_errors(self._path, needs=len(line)):
            self._file.write(line)
            self._file.flush()

    def close(self) -> None:
        with disk_errors(self._path):
            try:
                _sync(self._file)
            finally:
                self._file.close()

    def __enter__(self) -> JsonLines:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def commit_folder(target: Path, write: Callable[[Path], None], *, needs: int | None = None) -> Path:
    """Make `target` appear whole or not at all.

    `write(folder)` fills a hidden folder beside it; then each file is synced and given the mode 0666 & ~umask, the
    manifest (sizes, sha256) is written last, the folder is renamed and its parent synced. An existing `target` is
    replaced only after the new one is complete. A failing `write` leaves everything as it was. `needs`: bytes, about.
    """
    new_parents = [parent for parent in target.parents if not parent.exists()]
    with disk_errors(target, needs=needs):
        target.parent.mkdir(parents=True, exist_ok=True)
        _clear_leftovers(target.parent)
        temporary = target.parent / f".tmp-{writer()}-{target.name}"
        old = target.parent / f".old-{writer()}-{target.name}"
        temporary.mkdir()
        try:
            write(temporary)
            _seal(temporary)
            if problems := damage(temporary):  # before the rename: afterwards another writer's folder may stand there
                raise StoreError(f"{target} does not verify after writing: {problems[0]}", remedy="check the disk")
            _exchange(target, temporary, old)
            _sync_folder(target.parent)
        except BaseException:
            with suppress(OSError):  # nothing was set aside, or another writer's folder stands there: it is not empty
                old.rename(target)
            raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)
            if not target.exists():
                _remove_empty(new_parents)
    return target


def _exchange(target: Path, new: Path, old: Path) -> None:
    """`new` becomes `target`, and what was there `old`, also where another writer comes between the two renames."""
    for _ in range(100):  # a writer needs microseconds
        with suppress(FileNotFoundError):  # nothing there, or the other writer has just moved it
            target.rename(old)
        try:
            new.rename(target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            shutil.rmtree(old, ignore_errors=True)
        else:
            return
    raise StoreError(f"{target} is written by others without end", remedy="run fewer processes into one folder at once")


def damage(folder: Path, *, contents: bool = True) -> list[str]:
    """What is wrong with a committed folder: missing, resized or altered files. Empty when it verifies.

    `contents=False` reads no file but the manifest and so finds no alteration that leaves the size as it was.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files = {name: (entry["bytes"], entry["sha256"]) for name, entry in manifest["files"].items()}
        is_readable = manifest["format"] == _MANIFEST_FORMAT
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        is_readable = False
    if not is_readable:
        return [f"{folder.name}: no readable {MANIFEST}"]
    problems: list[str] = []
    for name, (n_bytes, sha256) in files.items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{folder.name}/{name}: missing")
        elif path.stat().st_size != n_bytes or (contents and file_digest(path) != sha256):
            problems.append(f"{folder.name}/{name}: damaged")
    return problems


def newest_valid(parent: Path, prefix: str) -> tuple[Path | None, list[str]]:
    """The last `prefix*` folder (by name) whose manifest verifies, and what was wrong with later ones."""
    problems: list[str] = []
    for folder in sorted((f for f in parent.glob(f"{prefix}*") if f.is_dir()), reverse=True):
        wrong = damage(folder)
        if not wrong:
            return folder, problems
        problems += wrong
    return None, problems


def prune(
    parent: Path, prefix: str, *, keep: int, valid_name: str | None = None, keep_names: frozenset[str] = frozenset()
) -> None:
    """Delete the oldest `prefix*` folders but the last `keep` valid ones and those of `keep_names`.

    Before anything goes, two that stay are known to be valid byte for byte: `valid_name`, which `commit_folder` has
    just read back, and one more that is read here. Those beyond two are looked at for missing and resized files only.
    """
    assert keep >= 2, "always two valid checkpoints"
    folders = [f for f in sorted(parent.glob(f"{prefix}*"), reverse=True) if f.is_dir() and f.name not in keep_names]
    n_valid = 0
    for folder in folders:
        if n_valid >= keep:
            shutil.rmtree(folder)
        elif folder.name == valid_name or not damage(folder, contents=n_valid < 2):
            n_valid += 1


def remove(path: Path) -> None:
    """Delete a file or folder, if it is there."""
    with disk_errors(path):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def database(path: Path) -> Iterator[sqlite3.Connection]:
    """An SQLite database in which every statement is a transaction of its own, on disk when it returns.

    Several processes may hold it: readers do not wait, and a writer waits up to a minute for another.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        connection = sqlite3.connect(path, timeout=60, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            if (problem := connection.execute("PRAGMA integrity_check(1)").fetchone()[0]) != "ok":
                raise sqlite3.DatabaseError(problem)
            yield connection
        finally:
            connection.close()
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
            raise StoreError(
                f"cannot use {path}: {error} ({size(free(path))} free)", remedy="free space or make the folder writable"
            ) from error
        raise StoreError(f"{path} is damaged: {error}", remedy="move the file away; what it held is lost") from error


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Several statements on a connection of `database` that take effect together or not at all."""
    assert connection.isolation_level is None, "open it with store.database: transactions are explicit here"
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite itself takes back what met a full disk
            connection.execute("ROLLBACK")
        raise


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold the run folder; a second process that asks for it is refused."""
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("a", encoding="utf-8")
    try:
        if not try_lock(file):
            raise StoreError(
                f"{folder} is in use by another trimtab process",
                remedy="wait for it, or give this run another folder with --out",
            )
        yield
    finally:
        file.close()


def _seal(folder: Path) -> None:
    mode = 0o666 & ~_umask()
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        path.chmod(mode)
        with path.open("rb+") as file:
            os.fsync(file.fileno())
        files[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": file_digest(path)}
    with (folder / MANIFEST).open("w", encoding="utf-8") as manifest:
        json.dump({"format": _MANIFEST_FORMAT, "files": files}, manifest, indent=1)
        _sync(manifest)
    for inner in (p for p in folder.rglob("*") if p.is_dir()):
        _sync_folder(inner)
    _sync_folder(folder)


def _clear_leftovers(parent: Path) -> None:
    """What a killed writer left: half-written folders and files go; a folder only just set aside comes back."""
    for leftover in parent.glob(".tmp-*-*"):
        if not is_at_work(leftover):
            remove(leftover)
    for folder in parent.glob(".old-*-*"):
        name = folder.name.split("-", 2)[2]
        if not is_at_work(folder) and not (parent / name).exists():
            folder.rename(parent / name)
        elif not is_at_work(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _remove_empty(folders: Iterable[Path]) -> None:
    with suppress(OSError):  # at the first that is not empty
        for folder in folders:
            folder.rmdir()


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def _sync(file: IO[Any]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # folders cannot be opened there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
