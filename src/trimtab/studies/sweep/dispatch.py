"""The sweep's own loop: which job may start next, what came of each, and what is made again because it was lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from trimtab.progress import Reporter, duration
from trimtab.runtime.signals import Stop
from trimtab.studies.sweep.executor import Executor
from trimtab.studies.sweep.job import Job, Kind, LostJobError, Outcome
from trimtab.studies.sweep.run_table import Run, RunTable

TRIES = 3  # of one run, when its machine or its process is gone each time
POLL_SECONDS = 0.2  # between looks for a signal


class Source(Protocol):
    """Where further runs come from: a search, which proposes them from what there is."""

    def next_runs(self) -> Sequence[Run]:
        """What to make next; empty where there is nothing now."""

    def limits(self) -> Mapping[str, float]:
        """By step of a milestone, the held-out accuracy that a run must not be distinguishably below there."""


class Queue:
    """The runs that wait. What several share (reference, unaligned answers) is a job of its own, before them."""

    def __init__(self, runs: Sequence[Run], *, more_come: bool = False) -> None:
        """more_come: what a run needs may be shared with others that are not known yet."""
        self._more_come = more_come
        self._waiting = [run for run in runs if run.state == "waiting"]
        self._sharers = Counter(run.cache_key for run in self._waiting)
        self._keys_in_cache = {run.cache_key for run in runs if run.state == "done"}
        self._keys_in_work: set[str] = set()

    def next(self) -> tuple[Run, bool] | None:
        """A run, and whether its next job is the shared work; None where none may start now."""
        for place, run in enumerate(self._waiting):
            key = run.cache_key
            if key in self._keys_in_work:
                continue
            del self._waiting[place]
            is_shared = key not in self._keys_in_cache and (self._more_come or self._sharers[key] > 1)
            if is_shared:
                self._keys_in_work.add(key)
            return run, is_shared
        return None

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, runs: Sequence[Run]) -> None:
        self._waiting.extend(runs)

    def end(self, run: Run, *, is_shared: bool, in_cache: bool, is_next: bool) -> None:
        """What came of a job: whether the shared work is in the cache now, and whether its run is to start (again)."""
        if is_shared:
            self._keys_in_work.discard(run.cache_key)
        if in_cache:
            self._keys_in_cache.add(run.cache_key)
        if is_next:
            self._waiting.insert(0, run)


class Dispatcher:
    """Has every waiting run of the table made. A run that fails does not stop the others."""

    def __init__(
        self,
        table: RunTable,
        executor: Executor,
        *,
        folder: Path,
        stop_starved: bool,
        reporter: Reporter,
        stop: Stop,
        source: Source | None = None,
    ) -> None:
        self._table, self._executor, self._folder = table, executor, folder
        self._stop_starved, self._reporter, self._stop = stop_starved, reporter, stop
        self._source = source
        self._queue = Queue(table.runs(), more_come=source is not None)
        self._jobs: dict[Future[Outcome], tuple[Run, bool]] = {}
        self._losses: Counter[str] = Counter()

    def work(self) -> None:
        """Raises StopError once a signal has come and what was in work has stopped."""
        is_stopping = False
        while True:
            if self._stop and not is_stopping:
                is_stopping = True
                self._executor.stop()
            if not self._stop:
                self._submit()
            if not self._jobs:
                break
            for future in wait(self._jobs, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED).done:
                self._record(*self._jobs.pop(future), future)
        if self._stop:
            raise self._stop.error("runs in work have stopped with a checkpoint, and no further run is started")

    def _submit(self) -> None:
        while len(self._jobs) < self._executor.n_slots and not self._stop and (task := self._next()):
            run, is_shared = task
            limits = self._source.limits() if self._source else {}
            self._table.start(run)
            kind: Kind = "shared" if is_shared else "run"
            job = Job.of(run.name, kind, run.config, sweep=self._folder, stop_starved=self._stop_starved, limits=limits)
            self._jobs[self._executor.submit(job)] = task

    def _next(self) -> tuple[Run, bool] | None:
        """From the queue; where nothing waits, what the source proposes now."""
        if self._source is not None and not len(self._queue):
            self._queue.add(self._source.next_runs())
        return self._queue.next()

    def _record(self, run: Run, is_shared: bool, future: Future[Outcome]) -> None:
        try:
            outcome = future.result()
        except LostJobError as error:
            outcome = Outcome("stopped", 0.0, {}, error=error.message)
        is_lost = outcome.state == "stopped" and not self._stop
        if is_lost:
            outcome = self._after_loss(run, outcome)
        elif outcome.state != "stopped":
            self._reporter.say(_line(run, outcome))
        self._table.finish(run, outcome)
        in_cache = outcome.state == "done" or (is_shared and outcome.state == "waiting" and not is_lost)
        self._queue.end(run, is_shared=is_shared, in_cache=in_cache, is_next=outcome.state == "waiting")

    def _after_loss(self, run: Run, outcome: Outcome) -> Outcome:
        """Once more, from the last checkpoint. An attempt that was stopped in training, by a time limit, has got on."""
        if "training" not in outcome.task_seconds:
            self._losses[run.name] += 1
        if self._losses[run.name] < TRIES:
            self._reporter.say(f"{run.name}: lost ({outcome.error}); it is made again from its last checkpoint")
            return replace(outcome, state="waiting")
        error = f"lost {TRIES} times, the last time because {outcome.error}"
        self._reporter.say(f"{run.name}: {error}")
        return replace(outcome, state="failed", error=error)


def _line(run: Run, outcome: Outcome) -> str:
    match outcome.state:
        case "failed":
            return f"{run.name}: failed: {outcome.error}"
        case "starved" | "pruned":
            return f"{run.name}: {outcome.state}, {outcome.error}"
        case "waiting":
            return f"{run.name}: what it shares with others, done in {duration(outcome.seconds)}"
        case _:
            return f"{run.name}: {outcome.state} in {duration(outcome.seconds)}"
