"""Runs shared out among processes with one folder of work: each makes the first missing run that no other is making."""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from trimtab import store

WAIT = 10.0  # seconds
Job = tuple[str, Callable[[], Mapping[str, Any]]]
"""The name of a run, and what makes it and returns its numbers."""


def work_off(
    missing: Callable[[], Iterable[Job]], *, results: Path, work: Path, minutes: float | None = None, once: bool = False
) -> None:
    """Make what is missing, each run's numbers into `results` when it ends. `minutes`: start none after so long."""
    results.mkdir(parents=True, exist_ok=True)
    work.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    while any(True for _ in missing()):
        if minutes is not None and time.monotonic() - start > 60 * minutes:
            return
        if not _make_one(missing(), results=results, work=work):
            time.sleep(WAIT)  # what is missing is being made by others, and tells what comes next
        elif once:
            return


def _make_one(jobs: Iterable[Job], *, results: Path, work: Path) -> bool:
    """False where every run is being made by another process."""
    for name, make in jobs:
        path = results / f"{name}.json"
        with (work / f"{name}.lock").open("w", encoding="utf-8") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            if path.exists():
                continue
            numbers = make()
            store.write_text(path, json.dumps(numbers) + "\n")
            print(f"{name}: accuracy {numbers['accuracy']:.3f}, {numbers['seconds']['all']:.0f} s", flush=True)
            return True
    return False
