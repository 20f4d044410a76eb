"""Several workers on one machine, each a process of its own that takes runs from the run table."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from trimtab.errors import RunError
from trimtab.runtime.signals import stop_on_signal

POLL_SECONDS = 0.1  # between looks at the workers and for a signal


def work_in_processes(
    folder: Path, *, workers: int, stop_starved: bool, environment: Sequence[tuple[str, str]]
) -> None:
    """Start the workers and wait for them; CPU threads are shared out among them unless OMP_NUM_THREADS says how many.

    environment: what to add to theirs. A signal is handed on to each, and `StopError` raised when all have stopped.
    Raises RunError when one of them ended otherwise; the run that it was making is free again then.
    """
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    variables = {"OMP_NUM_THREADS": str(max(1, n_cores // workers))} | dict(os.environ) | dict(environment)
    words = [sys.executable, "-m", "trimtab.studies.sweep.worker", str(folder), str(os.getpid())]
    words += ["--stop-starved"] * stop_starved
    processes: list[subprocess.Popen[bytes]] = []
    with stop_on_signal() as stop:
        try:
            for _ in range(workers):  # in sessions of their own: Ctrl-C reaches them through here only, and once
                processes.append(subprocess.Popen(words, env=variables, start_new_session=True))  # noqa: S603  # our own words
            is_terminated = False
            while any(process.poll() is None for process in processes):
                if stop and not is_terminated:
                    _terminate(processes)
                    is_terminated = True
                time.sleep(POLL_SECONDS)
        except BaseException:
            _terminate(processes)
            raise
    if stop:
        raise stop.error("the workers have stopped, their runs with a checkpoint")
    if failures := [process.returncode for process in processes if process.returncode]:
        raise RunError(
            f"{len(failures)} of {workers} workers ended with exit code {failures[0]}",
            remedy="the same command goes on with what is left",
        )


def _terminate(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
