"""A worker: takes the next run, has the pipeline of `trimtab run` make it, and writes down what came of it.

One works in the sweep's own process; several are processes of their own: `python -m trimtab.studies.sweep.worker`.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from trimtab.commands.run import main as make_run
from trimtab.config import resolve
from trimtab.errors import StopError, TrimtabError
from trimtab.progress import Reporter, duration, reporter
from trimtab.runtime.signals import Stop, stop_on_signal
from trimtab.studies.sweep.read import read_run
from trimtab.studies.sweep.run_progress import RunProgress, StarvedRun
from trimtab.studies.sweep.run_table import Outcome, Run, State
from trimtab.studies.sweep.shared_runs import Runs, open_runs
from trimtab.studies.sweep.shared_study import StudyAddress


def work(runs: Runs, *, reporter: Reporter, stop_starved: bool, may_start: Callable[[], bool] = lambda: True) -> None:
    """Make runs until none is left, or `may_start` says no. A run that fails does not stop the others.

    Raises StopError once a signal has come; the run that it interrupts goes on with the next sweep.
    """
    with stop_on_signal() as stop:
        while may_start():
            if stop:
                raise stop.error("no further run of the sweep is started")
            run = runs.take()
            if run is not None:
                _make(run, runs, reporter=reporter, stop=stop, stop_starved=stop_starved)
            elif runs.is_over():
                return
            else:
                time.sleep(runs.poll_seconds)


def _make(run: Run, runs: Runs, *, reporter: Reporter, stop: Stop, stop_starved: bool) -> None:
    progress = RunProgress(reporter, name=run.name, stop=stop, stop_starved=stop_starved)
    start = time.monotonic()

    def finish(state: State, *, error: str | None = None, trace: str | None = None) -> None:
        numbers = read_run(Path(run.folder)) if state in ("done", "starved") else None
        runs.finish(run, Outcome(state, time.monotonic() - start, progress.computed, numbers, error, trace))

    try:
        make_run(resolve(run.config), reporter=progress)
        finish("done")
        reporter.say(f"{run.name}: done in {duration(time.monotonic() - start)}")
    except StopError as error:
        finish("stopped", error=error.message)
        raise
    except StarvedRun as reason:
        finish("starved", error=str(reason))
        reporter.say(f"{run.name}: starved, {reason}")
    except (KeyboardInterrupt, SystemExit, BrokenPipeError):  # not the run's own doing
        finish("stopped", error="interrupted")
        raise
    except Exception as error:
        message = error.message if isinstance(error, TrimtabError) else f"unexpected {type(error).__name__}: {error}"
        finish("failed", error=message, trace=traceback.format_exc())
        reporter.say(f"{run.name}: failed: {message}")


def main(folder: str, parent: str, *switches: str) -> int:
    """A worker process on a sweep's folder; returns its exit code. The environment names the study, if there is one.

    Where the sweep that started it (process number `parent`) is gone, it finishes its run and takes no other.
    """
    try:
        with open_runs(Path(folder), StudyAddress.from_environment()) as runs:
            work(
                runs,
                reporter=reporter(quiet=True),
                stop_starved="--stop-starved" in switches,
                may_start=lambda: os.getppid() == int(parent),
            )
    except TrimtabError as error:
        if not isinstance(error, StopError):
            reporter(quiet=True).say(f"a worker ended: {error.message}")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
