"""What the operating system refuses to write, in one sentence: the path, the bytes needed and free, a remedy."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trimtab.errors import StoreError


@contextmanager
def disk_errors(path: Path, *, needs: int | None = None) -> Iterator[None]:
    """Turn the operating system's refusal into one sentence with a remedy."""
    try:
        yield
    except Exception as error:
        if (refusal := _refusal(error)) is None:
            raise
        if refusal.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            space = ""
            remedy = "make the folder writable, or choose another one with --out (or $TRIMTAB_HOME for the cache)"
        else:
            need = "" if needs is None else f"about {size(needs)} needed, "
            space = f" ({need}{size(free(path))} free)"
            remedy = "free space or choose another --out (or $TRIMTAB_HOME for the cache)"
        raise StoreError(f"cannot write {path}: {refusal.strerror or refusal}{space}", remedy=remedy) from error


def _refusal(error: Exception) -> OSError | None:
    """The operating system's error that an exception is, or tells of: safetensors and tokenizers have their own."""
    if isinstance(error, OSError):
        return error
    number = re.search(r"\(os error (\d+)\)", str(error))  # how Rust's standard library ends such a message
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else None


def free(path: Path) -> int:
    """Bytes free where `path` is or would be."""
    return shutil.disk_usage(next(p for p in (path, *path.absolute().parents) if p.exists())).free


def require_space(path: Path, needed_bytes: int) -> None:
    """Refuse to start what will not fit."""
    if free(path) < needed_bytes:
        raise StoreError(
            f"{path}: {size(needed_bytes)} are needed and {size(free(path))} are free",
            remedy="free some space, or choose another folder with --out",
        )


def size(n_bytes: int) -> str:
    """`1.40 GB`, powers of ten."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= scale:
            return f"{n_bytes / scale:.2f} {unit}"
    return f"{n_bytes} bytes"
