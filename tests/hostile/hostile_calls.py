"""One command as a user would type it, in this process, with a time limit, and what may come of it.

A good ending is an exit code of 0, 1 or 2 and, where it is not 0, one message that is no traceback and no admission of
a defect.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from trimtab import cli, store

LIMIT = 20.0  # seconds of CPU: a loaded machine is no hang
WAITING = 10.0  # times as long on the clock: who waits for ever uses no CPU
HIDDEN = {"\u202e": "\\u202e", "\x1b": "\\x1b", "\u2066": "\\u2066", "\x07": "\\x07"}


@dataclass(frozen=True)
class Said:
    """What one command left behind."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err


class HungError(BaseException):
    """No `Exception`, so that no `except Exception` on the way can take it for something else."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise HungError where the block takes longer."""

    def ring(_number: int, _frame: FrameType | None) -> None:
        raise HungError(f"still running after {seconds:g} s")

    clocks = ((signal.SIGPROF, signal.ITIMER_PROF, seconds), (signal.SIGALRM, signal.ITIMER_REAL, WAITING * seconds))
    before = [signal.signal(number, ring) for number, _, _ in clocks]
    for _, clock, limit in clocks:
        signal.setitimer(clock, limit)
    try:
        yield
    finally:
        for (number, clock, _), handler in zip(clocks, before, strict=True):
            signal.setitimer(clock, 0)
            signal.signal(number, handler)


class _Wide(io.TextIOWrapper):
    """A stream that encodes as a UTF-8 terminal does, so that what cannot be encoded is found out."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", errors="strict", write_through=True)

    @property
    def text(self) -> str:
        self.flush()
        held = self.buffer
        assert isinstance(held, io.BytesIO)
        return held.getvalue().decode("utf-8")


def say(*words: str | Path, seconds: float = LIMIT) -> Said:
    """Run a command and return how it ended; nothing is asserted."""
    out, err = _Wide(), _Wide()
    err.errors  # noqa: B018  # stderr escapes what it cannot encode, as Python's own does
    err.reconfigure(errors="backslashreplace")
    code = 0
    with redirect_stdout(out), redirect_stderr(err), within(seconds), _no_stdin():
        try:
            cli.main([str(word) for word in words])
        except SystemExit as stopped:
            code = int(stopped.code or 0)
    return Said(code, out.text, err.text)


@contextmanager
def _no_stdin() -> Iterator[None]:
    """Whoever asks a question at the terminal gets no answer: nobody is there."""
    before = sys.stdin
    with Path(os.devnull).open(encoding="utf-8") as nothing:
        sys.stdin = nothing
        try:
            yield
        finally:
            sys.stdin = before


def harmless(*words: str | Path, seconds: float = LIMIT) -> Said:
    """Run a command and require a good ending."""
    told = say(*words, seconds=seconds)
    shown = f"trimtab {' '.join(map(str, words))}\n{told.err[-3000:]}"
    assert told.code in (0, 1, 2), f"exit code {told.code}: {shown}"
    assert "Traceback" not in told.text, shown
    assert "unexpected" not in told.err or "defect of trimtab" not in told.err, shown
    if told.code:
        assert told.err.startswith("trimtab: ") or "\ntrimtab: " in told.err, f"no message: {shown}"
        assert "→" in told.err, f"no remedy: {shown}"
    for character, name in HIDDEN.items():
        assert character not in told.text.replace("\\", ""), f"{name} reached the terminal: {shown}"
    return told


def refused(*words: str | Path, seconds: float = LIMIT) -> str:
    """Run a command that must be refused as the user's mistake; its message."""
    told = harmless(*words, seconds=seconds)
    assert told.code == 2, f"exit code {told.code}, not 2: {told.text[-2000:]}"
    return told.err


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file and link below a folder, with size and modification time."""
    found = {}
    for path in sorted(folder.rglob("*")):
        told = path.lstat()
        found[str(path.relative_to(folder))] = (told.st_size if path.is_file() else 0, told.st_mtime_ns)
    return found


@contextmanager
def nothing_new(folder: Path, *, but: Sequence[str] = ()) -> Iterator[None]:
    """No file below `folder` appears, changes or goes within the block, but below the places named."""
    before = snapshot(folder)
    yield
    after = snapshot(folder)
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    outside = {
        name
        for name in changed
        if not any(name == place or name.startswith(f"{place}/") for place in but) and not (folder / name).is_dir()
    }
    assert not outside, f"written outside of the places meant for it: {sorted(outside)}"


def put(path: Path, content: str | bytes | Any) -> Path:
    """Write text, bytes or a JSON value, making folders on the way."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, str):
        path.write_text(content, encoding="utf-8", errors="surrogatepass")
    else:
        path.write_text(json.dumps(content), encoding="utf-8")
    return path


def put_as_left(run: Path, name: str, content: str | bytes | Any) -> Path:
    """`put` into a run folder, as if the stage that makes the file had left this."""
    path = put(run / name, content)
    for note in (run / ".stages").glob("*.json"):
        told = json.loads(note.read_text(encoding="utf-8"))
        if name in told["outputs"]:
            told["outputs"][name] = store.file_digest(path)
            put(note, told)
    return path


def jsonl(rows: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)
