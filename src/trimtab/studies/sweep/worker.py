"""A worker: a process that makes one job after another, `python -m trimtab.studies.sweep.worker`, and its other end.

Jobs come in as lines of JSON, outcomes go out as such. When the sweep that started it is gone, what it works on stops
as if by SIGTERM, with a checkpoint.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from queue import SimpleQueue

from trimtab.progress import reporter
from trimtab.runtime.signals import stop_on_signal
from trimtab.studies.sweep.job import Job, LostJobError, Outcome
from trimtab.studies.sweep.job_run import enter, make, refusal


class WorkerProcess:
    """A worker as its sweep sees it: started with its first job, and again after it died. One job at a time."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        """variables: what its environment has beside this one's."""
        self._variables = dict(variables)
        self._process: subprocess.Popen[str] | None = None

    def make(self, job: Job) -> Outcome:
        """Raises LostJobError where the process ends before the job does."""
        if self._process is None or self._process.poll() is not None:
            self._process = self._start()
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(job.to_json()) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError:
            line = ""
        if line.endswith("\n"):
            return Outcome.from_json(json.loads(line))
        self.close()
        raise LostJobError(f"its process ended with exit code {process.returncode}")

    def stop(self) -> None:
        """Ask for an end that loses nothing; from another thread."""
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()

    def close(self) -> None:
        """Without a job it ends at once."""
        process, self._process = self._process, None
        if process is not None:
            process.communicate()

    def _start(self) -> subprocess.Popen[str]:
        words = [sys.executable, "-m", "trimtab.studies.sweep.worker"]
        return subprocess.Popen(  # noqa: S603  # our own words; a session of its own: Ctrl-C comes through `stop`, once
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8",
            env=os.environ | self._variables, start_new_session=True,
        )  # fmt: skip


def main() -> int:
    """The worker itself; returns its exit code."""
    outcomes = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not stand between outcomes
    jobs: SimpleQueue[Job | None] = SimpleQueue()
    is_busy = threading.Event()

    def read_jobs() -> None:
        for line in sys.stdin:
            is_busy.set()
            jobs.put(Job.from_json(json.loads(line)))
        jobs.put(None)
        if is_busy.is_set():
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=read_jobs, daemon=True, name="jobs").start()
    while (job := jobs.get()) is not None:
        with stop_on_signal() as stop:
            if reason := refusal(job):
                outcome = Outcome("failed", 0.0, {}, error=reason)
            else:
                enter(job)
                outcome = make(job, reporter=reporter(quiet=True), stop=stop)
            is_busy.clear()
            outcomes.write(json.dumps(outcome.to_json()) + "\n")
            outcomes.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
