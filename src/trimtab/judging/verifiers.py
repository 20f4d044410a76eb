"""Answers scored by a program: a Python function in a file, or a command, always in a process of its own.

    FILE.py:function   function(prompt, answer), or (prompt, answer, row), returns a number (True and False are 1 and 0)
    command:WORDS      reads one JSON line, {"prompt", "answer", "row"}, from standard input and prints a number

What fails, hangs or prints something else is a named failure and never a score. Text of a model's is handed to these
programs: what they run of it they run with the user's rights.
"""

from __future__ import annotations

import json
import math
import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from trimtab.errors import ConfigError
from trimtab.judging import verifier_worker
from trimtab.judging.judges import Submission
from trimtab.records import digest

DEFAULT_FUNCTION = "score"
_PYTHON = re.compile(r"(?P<file>.+\.py)(:(?P<function>\w+))?")
_COMMAND = "command:"
_START_SECONDS = 60.0  # for the file's imports
_LONGEST_OUTPUT = 100_000  # bytes that a program may print


@dataclass(frozen=True, slots=True)
class VerifierFailure:
    """Why an answer has no score: `kind` is failed, time limit or no number."""

    kind: str
    message: str


class Verifier(Protocol):
    """Scores answers, one after another. `digest` names all that decides a score but the answer."""

    @property
    def digest(self) -> str: ...

    def score(self, submission: Submission, /) -> float | VerifierFailure:
        """The score of one answer, a finite number."""

    def close(self) -> None:
        """End what runs."""


def verifier(name: str, *, seconds: float) -> Verifier:
    """The verifier of that name, ready. Raises ConfigError where its file, function or program is not there.

    seconds: the time limit of one answer.
    """
    program = _program(name, seconds)
    if isinstance(program, PythonVerifier):
        program.start()
    return program


def verifier_digest(name: str) -> str:
    """`Verifier.digest` of that name, for which nothing is started. Raises ConfigError as `verifier` does."""
    return _program(name, seconds=0).digest


def _program(name: str, seconds: float) -> PythonVerifier | CommandVerifier:
    match = _PYTHON.fullmatch(name)
    if match is None or name.startswith(_COMMAND):
        return CommandVerifier(_words(name), seconds)
    path = Path(match["file"])
    if not path.is_file():
        raise ConfigError(f"judge {name}: there is no file {path}", remedy="name a Python file, such as check.py:score")
    return PythonVerifier(path, match["function"] or DEFAULT_FUNCTION, seconds)


@dataclass(slots=True)
class PythonVerifier:
    """A function of a Python file in a process that lives until an answer takes too long."""

    path: Path
    function: str
    seconds: float
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def digest(self) -> str:
        """Of the file's bytes: what it imports is not followed."""
        return digest(["python", self.path.read_bytes().hex(), self.function])

    def start(self) -> None:
        """Load the file. Raises ConfigError with the reason where it cannot be."""
        command = [sys.executable, verifier_worker.__file__, str(self.path), self.function]
        self._process = subprocess.Popen(  # noqa: S603  # the user's own file
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        reply = self._reply(_START_SECONDS)
        if not reply.get("ready"):
            self.close()
            reason = reply.get("fault") or f"it does not load within {_START_SECONDS:g} s"
            raise ConfigError(f"judge {self.path}:{self.function}: {reason}", remedy="mend the file, or name another")

    def score(self, submission: Submission) -> float | VerifierFailure:
        if self._process is None:
            self.start()
        assert self._process is not None
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended: the reply says so
            self._process.stdin.write(_line(submission))
            self._process.stdin.flush()
        reply = self._reply(self.seconds)
        if "value" in reply:
            return _number(reply["value"])
        if "fault" in reply:
            return VerifierFailure("failed", reply["fault"])
        exit_code = self._process.poll()
        self.close()
        return (
            _over(self.seconds) if exit_code is None else VerifierFailure("failed", f"its process ended ({exit_code})")
        )

    def close(self) -> None:
        if self._process is not None:
            _end(self._process)
            self._process = None

    def _reply(self, seconds: float) -> dict[str, Any]:
        """The next line; nothing where none comes in time, or the process has ended."""
        assert self._process is not None
        assert self._process.stdout is not None
        line, deadline = b"", time.monotonic() + seconds
        pipe = self._process.stdout.fileno()
        while not line.endswith(b"\n"):
            if not select.select([pipe], [], [], max(deadline - time.monotonic(), 0.0))[0]:
                return {}
            chunk = os.read(pipe, 65536)
            if not chunk:
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(1)
                return {}
            line += chunk
        reply: dict[str, Any] = json.loads(line)
        return reply


@dataclass(frozen=True, slots=True)
class CommandVerifier:
    """A program, started for every answer."""

    words: tuple[str, ...]
    seconds: float

    @property
    def digest(self) -> str:
        """Of its words, and the bytes of those that are files."""
        files = [path.read_bytes().hex() for path in map(Path, self.words) if path.is_file()]
        return digest(["command", self.words, files])

    def score(self, submission: Submission) -> float | VerifierFailure:
        with tempfile.TemporaryFile() as line:  # no pipe, which a program that reads nothing would let fill
            line.write(_line(submission))
            line.seek(0)
            process = subprocess.Popen(  # noqa: S603  # the user's own words
                self.words, stdin=line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
            )
        try:
            texts = _texts(process, self.seconds)
        finally:
            _end(process)
        if texts is None:
            return _over(self.seconds)
        output, errors = texts
        if len(output) >= _LONGEST_OUTPUT:
            return VerifierFailure("no number", f"it printed {_LONGEST_OUTPUT:,} bytes or more")
        if process.returncode:
            last_line = errors.rpartition("\n")[2][:200]
            return VerifierFailure("failed", f"exit code {process.returncode}{last_line and f': {last_line}'}")
        return _number(output)

    def close(self) -> None:
        """Nothing runs between answers."""


def _texts(process: subprocess.Popen[bytes], seconds: float) -> tuple[str, str] | None:
    """What a program printed and complained of once it has ended, the former cut where it prints too much; None where
    it goes on for longer."""
    assert process.stdout is not None
    assert process.stderr is not None
    output, errors = bytearray(), bytearray()
    parts = {process.stdout.fileno(): output, process.stderr.fileno(): errors}
    deadline = time.monotonic() + seconds
    while parts and len(output) < _LONGEST_OUTPUT:
        ready, _, _ = select.select(list(parts), [], [], max(deadline - time.monotonic(), 0.0))
        if not ready:
            return None
        for pipe in ready:
            chunk = os.read(pipe, 65536)
            if chunk:
                parts[pipe] += chunk
                del errors[:-_LONGEST_OUTPUT]
            else:
                del parts[pipe]
    try:
        if not parts:
            process.wait(max(deadline - time.monotonic(), 0.0))
    except subprocess.TimeoutExpired:
        return None
    return output.decode("utf-8", "replace").strip(), errors.decode("utf-8", "replace").strip()


def _words(name: str) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(name.removeprefix(_COMMAND)))
    except ValueError as error:
        raise ConfigError(f"judge {name}: {error}", remedy="close the quotes") from None
    if not words or shutil.which(words[0]) is None:
        raise ConfigError(
            f"judge {name}: there is no program {words[0] if words else ''!r}", remedy="name one, with its arguments"
        )
    return words


def _line(submission: Submission) -> bytes:
    row = json.loads(submission.row or "{}")
    line = {"prompt": submission.text, "answer": submission.answer, "row": row}
    return json.dumps(line).encode("ascii") + b"\n"


def _number(value: object) -> float | VerifierFailure:
    try:
        number = float(value)  # type: ignore[arg-type]  # anything else is no number
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        return VerifierFailure("no number", f"it gave {str(value)[:100]!r}")
    return number


def _over(seconds: float) -> VerifierFailure:
    return VerifierFailure("time limit", f"no score within {seconds:g} s")


def _end(process: subprocess.Popen[bytes]) -> None:
    """The process and what it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with suppress(BrokenPipeError):
                pipe.close()
