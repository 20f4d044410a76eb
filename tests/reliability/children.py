"""Real processes that can be killed, at the cost of a fork: a server process imports torch once and forks the rest.

A child runs a function of a module beside this one, tells its parent what it has finished, and may be killed at any
moment. What it must not lose is what it has told.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["reliable_faults"])
# the server starts without pytest's path: it finds the modules beside this one, and the small runs of the stage tests
_HERE = Path(__file__).parent
os.environ["PYTHONPATH"] = os.pathsep.join([str(_HERE), str(_HERE.parent), os.environ.get("PYTHONPATH", "")])
for _folder in (_HERE, _HERE.parent):
    if str(_folder) not in sys.path:
        sys.path.insert(0, str(_folder))

Work = Callable[..., None]


class Child:
    """A running process. `told` is what it has said so far: every message was sent after what it names was done."""

    def __init__(self, work: Work, *arguments: Any) -> None:
        self._ears, mouth = _CONTEXT.Pipe(duplex=False)
        self._process = _CONTEXT.Process(target=_live, args=(mouth, dict(os.environ), work, arguments))
        self._process.start()
        mouth.close()
        self.told: list[Any] = []

    def hear(self, timeout: float = 120.0) -> Any:
        """The next message; EOFError when the child ended without one."""
        if not self._ears.poll(timeout):
            raise TimeoutError("the child says nothing")
        self.told.append(self._ears.recv())
        return self.told[-1]

    def send(self, number: signal.Signals) -> float:
        """Send it a signal; when that was."""
        if self._process.is_alive():
            os.kill(self._pid, number)
        return time.monotonic()

    @property
    def _pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def end(self, timeout: float = 120.0) -> int:
        """Wait for its end and hear the rest; the exit code, negative for a signal."""
        try:
            while True:
                self.hear(timeout)
        except EOFError:
            pass
        self._process.join(timeout)
        code = self._process.exitcode
        self._process.close()
        self._ears.close()
        assert code is not None
        return code

    def kill_after(self, seconds: float) -> int:
        """kill -9 in so many seconds."""
        time.sleep(seconds)
        self.send(signal.SIGKILL)
        return self.end()


def run(work: Work, *arguments: Any) -> tuple[int, list[Any]]:
    """A child's whole life: exit code and what it said."""
    child = Child(work, *arguments)
    return child.end(), child.told


def _live(mouth: Connection, environment: dict[str, str], work: Work, arguments: tuple[Any, ...]) -> None:
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from trimtab.errors import TrimtabError

    try:
        work(mouth.send, *arguments)
    except TrimtabError as error:
        mouth.send(("refused", str(error)))
        os._exit(error.exit_code)
    except KeyboardInterrupt:
        os._exit(130)
    mouth.close()
    os._exit(0)
