"""A worker: takes the next run of the ledger, has the pipeline of `trimtab run` make it, and writes down what came.

One works in the sweep's own process; several are processes of their own: `python -m trimtab.studies.sweep.worker`.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trimtab import store
from trimtab.commands import run
from trimtab.config import resolve
from trimtab.errors import StopError, TrimtabError
from trimtab.progress import Reporter, duration, reporter
from trimtab.runtime.signals import Stop, stop_on_signal
from trimtab.studies.sweep.ledger import NAME, Ledger, Row, State
from trimtab.studies.sweep.machines import STUDY, VARIABLE, Shared, opened
from trimtab.studies.sweep.result import run_numbers
from trimtab.studies.sweep.run_progress import Starved, Watching


def work(
    ledger: Ledger | Shared, *, reporter: Reporter, stop_starved: bool, wanted: Callable[[], bool] = lambda: True
) -> None:
    """Make runs until none is left, or `wanted` says that no more are. A run that fails does not stop the others.

    Raises StopError once a signal has come; the run that it met goes on with the next sweep.
    """
    with stop_on_signal() as stop:
        while wanted():
            if stop:
                raise stop.error("no further run of the sweep is started")
            row = ledger.take()
            if row is not None:
                _make(row, ledger, reporter=reporter, stop=stop, stop_starved=stop_starved)
            elif ledger.is_over():
                return
            else:
                time.sleep(ledger.look_again)


def _make(row: Row, ledger: Ledger | Shared, *, reporter: Reporter, stop: Stop, stop_starved: bool) -> None:
    watching = Watching(reporter, name=row.name, stop=stop, stop_starved=stop_starved)
    began = time.monotonic()

    def finish(state: State, **told: Any) -> None:
        ledger.finish(row, state, seconds=time.monotonic() - began, computed=watching.computed, **told)

    try:
        run.main(resolve(row.config), reporter=watching)
        finish("done", numbers=run_numbers(Path(row.folder)))
        reporter.say(f"{row.name}: done in {duration(time.monotonic() - began)}")
    except StopError as error:
        finish("stopped", error=error.message)
        raise
    except Starved as why:
        finish("starved", numbers=run_numbers(Path(row.folder)), error=str(why))
        reporter.say(f"{row.name}: starved, {why}")
    except (KeyboardInterrupt, SystemExit, BrokenPipeError):  # not the run's own doing
        finish("stopped", error="interrupted")
        raise
    except Exception as error:
        told = error.message if isinstance(error, TrimtabError) else f"unexpected {type(error).__name__}: {error}"
        finish("failed", error=told, trace=traceback.format_exc())
        reporter.say(f"{row.name}: failed: {told}")


@contextmanager
def met(ledger: Ledger, root: Path) -> Iterator[Ledger | Shared]:
    """The ledger, with the study that the sweep's own process has joined, if any: the environment names it."""
    if (study := os.environ.get(STUDY)) is None:
        yield ledger
        return
    with opened(os.environ[VARIABLE], study) as meeting:
        yield Shared(ledger, meeting, root=root)


def main(folder: str, parent: str, *switches: str) -> int:
    """A worker process on a sweep's folder; returns its exit code.

    Where the sweep that started it (process number `parent`) is gone, it finishes its run and takes no other.
    """
    try:
        with store.database(Path(folder) / NAME) as connection, met(Ledger(connection), Path(folder)) as ledger:
            work(
                ledger,
                reporter=reporter(quiet=True),
                stop_starved="--stop-starved" in switches,
                wanted=lambda: os.getppid() == int(parent),
            )
    except TrimtabError as error:
        if not isinstance(error, StopError):
            reporter(quiet=True).say(f"a worker ended: {error.message}")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
