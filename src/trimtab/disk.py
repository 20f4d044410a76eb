"""What the operating system refuses to write, in one sentence: the path, the bytes needed and free, a remedy; and what
else of it differs from system to system: the lock on a file, whether a process runs, who is at work on what."""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

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


def try_lock(file: IO[str]) -> bool:
    """Hold an open file until it is closed; False where another process holds it. A dead process holds none."""
    try:
        import fcntl
    except ImportError:
        return _try_lock_on_windows(file)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _try_lock_on_windows(file: IO[str]) -> bool:
    """One byte, which need not be there; written after the documentation, and run against a stand-in alone."""
    import msvcrt

    file.seek(0)
    try:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]  # Windows only
    except OSError:
        return False
    return True


def is_running(pid: int) -> bool:
    """Whether there is a process of that number, which may not be ours."""
    if os.name == "nt":
        return _is_running_on_windows(pid)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _is_running_on_windows(pid: int) -> bool:
    """Signal 0 is Ctrl-C there. Written after the documentation, and run against a stand-in alone."""
    import ctypes

    kernel, exit_code = ctypes.windll.kernel32, ctypes.c_ulong()  # type: ignore[attr-defined, unused-ignore]
    handle = kernel.OpenProcess(0x1000, False, pid)  # PROCESS_QUERY_LIMITED_INFORMATION
    if not handle:
        return bool(kernel.GetLastError() == 5)  # ERROR_ACCESS_DENIED: it is there, and not ours
    kernel.GetExitCodeProcess(handle, ctypes.byref(exit_code))
    kernel.CloseHandle(handle)
    return exit_code.value == 259  # STILL_ACTIVE


def writer() -> str:
    """This process's part of the names of what it is writing: its number, and its host, for disks that hosts share."""
    return f"{os.getpid()}@{_HOST}"


def is_at_work(leftover: Path) -> bool:
    """Whether the process that named this file or folder still runs (this one does not count: it is not writing here
    now). Of a process on another host nothing is known but how old its work is."""
    number, _, host = leftover.name.split("-", 2)[1].partition("@")
    if host not in ("", _HOST):
        try:
            return time.time() - leftover.stat().st_mtime < _ABANDONED_AFTER
        except OSError:  # gone by now
            return True
    return number.isdigit() and int(number) != os.getpid() and is_running(int(number))


_HOST = socket.gethostname().replace("-", "_")
_ABANDONED_AFTER = 86_400.0  # seconds
