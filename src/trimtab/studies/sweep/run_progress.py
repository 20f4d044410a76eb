"""A reporter that looks on while a run works: what it computed, whether it starves, whether a signal has come.

What a stage computes it shows as a task; what a cache gives it only says. So the tasks of a run are its own work.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from trimtab.analysis.regime import STARVED_BELOW
from trimtab.progress import Advance, Figure, Reporter
from trimtab.runtime.signals import Stop

TRAINING = "training"  # the train stage's task; its figure `active` is the row's active/pair


class StarvedRun(Exception):  # noqa: N818  # no error: it ends a run that would learn nothing more
    """Next to no pair has a gradient any more, before half of the steps."""


class RunProgress:
    """Passes everything on, with the run's name before it. `computed` is seconds by task."""

    def __init__(self, inner: Reporter, *, name: str, stop: Stop, stop_starved: bool) -> None:
        self._inner, self._name, self._stop, self._stop_starved = inner, name, stop, stop_starved
        self.computed: dict[str, float] = {}

    def say(self, line: str, /) -> None:
        self._check()
        self._inner.say(f"{self._name} | {line}")

    @contextmanager
    def track(self, description: str, /, *, total: int | None, unit: str, n_done: int = 0) -> Iterator[Advance]:
        self._check()
        is_checked = self._stop_starved and description == TRAINING
        check = StarvationCheck(total, steps_done=n_done) if is_checked and total is not None else None
        start = time.monotonic()
        try:
            with self._inner.track(f"{self._name} | {description}", total=total, unit=unit, n_done=n_done) as inner:

                def advance(n: int = 1, /, **figures: Figure) -> None:
                    inner(n, **figures)
                    if check is not None and "active" in figures:
                        check.add(float(figures["active"]))

                yield advance
        finally:
            self.computed[description] = self.computed.get(description, 0.0) + time.monotonic() - start

    def _check(self) -> None:
        """Between stages, where no stage listens for signals."""
        if self._stop:
            raise self._stop.error(f"{self._name} is stopped between two of its stages")


class StarvationCheck:
    """Looks at the share of active pairs (in [0, 1]) over a sliding tenth of the steps, as the regime is named."""

    def __init__(self, total: int, *, steps_done: int = 0) -> None:
        self._total, self._step = total, steps_done
        self._recent: deque[float] = deque(maxlen=max(1, total // 10))

    def add(self, active: float) -> None:
        """Raises `StarvedRun` once the mean is below 5 % before half of the steps. A resumed run needs a full tenth."""
        self._step += 1
        self._recent.append(active)
        mean = sum(self._recent) / len(self._recent)
        if len(self._recent) == self._recent.maxlen and 2 * self._step <= self._total and mean < STARVED_BELOW:
            raise StarvedRun(
                f"stopped after step {self._step} of {self._total}: {mean:.1%} of the pairs were still active, less "
                f"than {STARVED_BELOW:.0%} before half of the steps"
            )
