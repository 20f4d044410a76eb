"""A reporter that looks on while a run works: what it computed, whether it is worth going on, whether a signal came.

What a stage computes it shows as a task; what a cache gives it only says. So the tasks of a run are its own work.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from trimtab import store
from trimtab.analysis.intervals import wilson_interval
from trimtab.analysis.regime import STARVED_BELOW
from trimtab.progress import Advance, Figure, Reporter
from trimtab.runtime.signals import Stop

TRAINING = "training"  # the train stage's task; its figure `active` is the row's active/pair


class StarvedRun(Exception):  # noqa: N818  # no error: it ends a run that would learn nothing more
    """Next to no pair has a gradient any more, before half of the steps."""


class PrunedRun(Exception):  # noqa: N818  # no error: it ends a run that others have outdone
    """At a milestone its held-out accuracy is distinguishably below what earlier runs had there."""


class RunProgress:
    """Passes everything on, with the run's name before it. `computed` is seconds by task."""

    def __init__(
        self, inner: Reporter, *, name: str, stop: Stop, stop_starved: bool, limits: MilestoneLimits | None = None
    ) -> None:
        self._inner, self._name, self._stop, self._stop_starved = inner, name, stop, stop_starved
        self._limits = limits
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
                    if self._limits is not None and description == TRAINING:
                        self._limits.check()

                yield advance
        finally:
            self.computed[description] = self.computed.get(description, 0.0) + time.monotonic() - start

    def _check(self) -> None:
        """Between stages, where no stage listens for signals."""
        if self._stop:
            raise self._stop.error(f"{self._name} is stopped between two of its stages")


class MilestoneLimits:
    """Looks at a run's milestones as they appear in its folder; `limits` are shares of held-out pairs, by step."""

    def __init__(self, folder: Path, limits: Mapping[str, float]) -> None:
        self._files = {int(step): folder / "milestones" / f"step-{int(step):08d}" / "evidence.json" for step in limits}
        self._limits = {int(step): limit for step, limit in limits.items()}

    def check(self) -> None:
        """Raises `PrunedRun` where the 95 % interval of the accuracy ends below the limit."""
        for step in [step for step, file in self._files.items() if file.is_file()]:
            gaps = np.array(store.read_json(self._files.pop(step))["rewards"]["reward_gaps"], dtype=np.float64)
            accuracy, limit = float((gaps > 0).mean()), self._limits[step]
            highest = wilson_interval(float((gaps > 0).sum()), n=len(gaps))[1]
            if highest < limit:
                raise PrunedRun(
                    f"ended after step {step}: held-out accuracy {accuracy:.3f} (at most {highest:.3f}, of {len(gaps)} "
                    f"pairs), where half of the earlier runs had {limit:.3f} or more"
                )


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
