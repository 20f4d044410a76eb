"""SIGTERM and SIGINT set a flag; the work looks at it where it can stop without losing anything.

The first SIGINT is answered with a line. The second signal of the same kind finds the system's own handler again and
ends the process at once.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

from trimtab.engine.processes import ALONE, Interruption, Processes
from trimtab.errors import StopError


class Stop:
    """Whether a signal has asked for an end. `signal`: the one that came to this process; `number`: the one by which
    all processes end. To one alone they are the same; several agree on it (`agree`), so that all end at one place."""

    def __init__(self, processes: Processes = ALONE) -> None:
        self.signal: int | None = None
        self._agreed: int | None = None
        self._alone = processes.alone

    @property
    def number(self) -> int | None:
        return self.signal if self._alone else self._agreed

    def __bool__(self) -> bool:
        return self.number is not None

    def check(self) -> None:
        """Raise `Interruption` once a signal has come to this process."""
        if self.signal is not None:
            raise Interruption(self.signal)

    def agree(self, signals: Iterable[int | None]) -> None:
        """All processes take the first of the signals that came to any of them, in order of rank."""
        self._agreed = next((number for number in signals if number is not None), self._agreed)

    def error(self, message: str) -> StopError:
        """The error with which a stage ends after it has saved its work."""
        assert self.number is not None
        name = signal.Signals(self.number).name
        return StopError(f"{name}: {message}", signal_number=self.number, remedy="the same command goes on from there")


@contextmanager
def stop_on_signal(processes: Processes = ALONE) -> Iterator[Stop]:
    """Within, SIGTERM and SIGINT only mark the `Stop`. Outside the main thread signals stay with whoever has them."""
    stop = Stop(processes)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def note(number: int, _frame: FrameType | None) -> None:
        stop.signal = number
        signal.signal(number, signal.SIG_DFL)
        # a step may take minutes; and no buffer, which the signal may have found half full
        if number == signal.SIGINT and processes.is_first:
            os.write(2, b"stopping where nothing is lost; Ctrl-C once more ends at once\n")

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
