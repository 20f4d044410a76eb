"""SIGTERM and SIGINT set a flag; the work looks at it where it can stop without losing anything.

The first SIGINT is answered with a line. The second signal of the same kind finds the system's own handler again and
ends the process at once.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from trimtab.errors import StopError


class Interrupted(Exception):  # noqa: N818  # no error: it unwinds a step that will be done again
    """Raised by `Stop.check` to leave a half-done step."""


class Stop:
    """Whether a signal has asked for an end."""

    def __init__(self) -> None:
        self.number: int | None = None

    def __bool__(self) -> bool:
        return self.number is not None

    def check(self) -> None:
        """Raise `Interrupted` once a signal has come."""
        if self:
            raise Interrupted

    def error(self, message: str) -> StopError:
        """The error with which a stage ends after it has saved its work."""
        assert self.number is not None
        name = signal.Signals(self.number).name
        return StopError(f"{name}: {message}", signal_number=self.number, remedy="the same command goes on from there")


@contextmanager
def stop_on_signal() -> Iterator[Stop]:
    """Within, SIGTERM and SIGINT only mark the `Stop`. Outside the main thread signals stay with whoever has them."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def note(number: int, _frame: FrameType | None) -> None:
        stop.number = number
        signal.signal(number, signal.SIG_DFL)
        if number == signal.SIGINT:  # a step may take minutes; and no buffer, which the signal may have found half full
            os.write(2, b"stopping where nothing is lost; Ctrl-C once more ends at once\n")

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
