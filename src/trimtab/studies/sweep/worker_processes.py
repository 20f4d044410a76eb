"""Several workers on one machine, each a process of its own that takes runs from the ledger."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from trimtab.errors import RunError
from trimtab.runtime.signals import stop_on_signal

_LOOK_EVERY = 0.1  # seconds


def work_in_processes(
    folder: Path, *, workers: int, stop_starved: bool, joined: Mapping[str, str] | None = None
) -> None:
    """Start the workers and wait for them; CPU threads are shared out among them unless OMP_NUM_THREADS says how many.

    joined: what to add to their environment. A signal is handed on to each, and `StopError` raised when all have
    stopped. Raises RunError when one of them ended otherwise; the run that it was making is free again then.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    environment = {"OMP_NUM_THREADS": str(max(1, allowed // workers))} | dict(os.environ) | dict(joined or {})
    words = [sys.executable, "-m", "trimtab.studies.sweep.worker", str(folder), str(os.getpid())]
    words += ["--stop-starved"] * stop_starved
    running: list[subprocess.Popen[bytes]] = []
    with stop_on_signal() as stop:
        try:
            for _ in range(workers):  # in sessions of their own: Ctrl-C reaches them through here only, and once
                running.append(subprocess.Popen(words, env=environment, start_new_session=True))  # noqa: S603  # our own words
            told = False
            while any(process.poll() is None for process in running):
                if stop and not told:
                    _tell(running)
                    told = True
                time.sleep(_LOOK_EVERY)
        except BaseException:
            _tell(running)
            raise
    if stop:
        raise stop.error("the workers have stopped, their runs with a checkpoint")
    if lost := [process.returncode for process in running if process.returncode]:
        raise RunError(
            f"{len(lost)} of {workers} workers ended with exit code {lost[0]}",
            remedy="the same command goes on with what is left",
        )


def _tell(running: list[subprocess.Popen[bytes]]) -> None:
    for process in running:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
