"""How much of this machine other processes use meanwhile: why the same step may take twice as long.

Linux counts what each processor did in `/proc/stat`; this process's own part is known, the rest is other people's.
Where that file is missing, or does not list the processors that this process may use, nothing is said.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

NOTABLE = 0.25
"""Processors' worth of other work from which a step is noticeably longer."""


class OtherWork:
    """Looks at what other processes have used since its last look, or its making. Each source can be replaced."""

    def __init__(
        self,
        *,
        busy_seconds: Callable[[], float | None] | None = None,
        own_seconds: Callable[[], float] = time.process_time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._busy, self._own, self._clock = busy_seconds or _busy_seconds, own_seconds, clock
        self._last = self._counters()
        self._is_notable = False

    def words(self) -> dict[str, str]:
        """The figure for a progress line, `{"others": "0.9 of 2 CPUs"}`: from the first notable share on."""
        before, self._last = self._last, self._counters()
        if before is None or self._last is None or self._last[0] <= before[0]:
            return {}
        cpus = max(0.0, (self._last[1] - before[1]) / (self._last[0] - before[0]))
        self._is_notable |= cpus >= NOTABLE
        return {"others": f"{cpus:.1f} of {len(_processors())} CPUs"} if self._is_notable else {}

    def _counters(self) -> tuple[float, float] | None:
        """The clock, and what others have used so far; seconds."""
        busy = self._busy()
        return None if busy is None else (self._clock(), busy - self._own())


def _processors() -> set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


def _busy_seconds() -> float | None:
    """CPU seconds in user, nice and system mode since boot, of the processors that this process may use."""
    try:
        rows = [line.split() for line in Path("/proc/stat").read_text(encoding="ascii").splitlines()]
        ticks = {row[0]: sum(map(int, row[1:4])) for row in rows if row and row[0].startswith("cpu")}
        return sum(ticks[f"cpu{number}"] for number in _processors()) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, KeyError):
        return None
