"""The bench's side of `worker.py`: contenders' processes, started when asked for, and stopped."""

from __future__ import annotations

import json
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import machine

HERE = Path(__file__).parent


class EndedError(Exception):
    """A contender's process ended instead of answering; its last line says why."""


@dataclass
class Worker:
    """A contender's process. `ready` is what it told before the first order."""

    process: subprocess.Popen[str]
    log: Path
    ready: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def start(
        cls, python: str, script: str, arguments: list[str], *, threads: int, log: Path, checkout: str = ""
    ) -> Worker:
        """Raises EndedError when the process ends before it is ready. `checkout`: whose trimtab is measured."""
        command = [python, str(HERE / script), "--threads", str(threads), *arguments]
        with log.open("a", encoding="utf-8") as stderr:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env=machine.environment(threads, checkout),
            )
        worker = cls(process, log)
        worker.ready = worker._answer()
        return worker

    def order(self, **order: Any) -> dict[str, Any]:
        """Raises EndedError when the process ends instead of answering."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended; the answer says so
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()
        return self._answer()

    def stop(self) -> None:
        """Close its stdin, which ends it."""
        with suppress(BrokenPipeError):  # it has ended
            self.process.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        self.stop()
        said = self.log.read_text(encoding="utf-8").strip().splitlines() or ["nothing was said"]
        raise EndedError(said[-1])


@dataclass(frozen=True)
class Contender:
    """Who is asked, and for what. Contenders with the same script and arguments share a process."""

    name: str
    python: str
    script: str
    arguments: tuple[str, ...]
    order: dict[str, Any]
    checkout: str = ""
    """Whose trimtab it is, where not this one's."""

    @property
    def process(self) -> tuple[str, ...]:
        return (self.checkout, self.python, self.script, *self.arguments)


class Processes:
    """Warm processes of contenders: all of them at once, or one at a time where memory would not do."""

    def __init__(self, *, threads: int, log: Path, one_at_a_time: bool) -> None:
        self._threads, self._log, self._alone = threads, log, one_at_a_time
        self._running: dict[tuple[str, ...], Worker] = {}

    def of(self, contender: Contender) -> Worker:
        if contender.process not in self._running:
            if self._alone:
                self.stop()
            checkout, python, script, *arguments = contender.process
            self._running[contender.process] = Worker.start(
                python, script, arguments, threads=self._threads, log=self._log, checkout=checkout
            )
        return self._running[contender.process]

    def stop(self, contender: Contender | None = None) -> None:
        """One contender's process, or all."""
        for process in [contender.process] if contender else list(self._running):
            if process in self._running:
                self._running.pop(process).stop()
