"""Making a job of a sweep, in a process that stands where the sweep stands."""

from __future__ import annotations

import os
import socket
import time
import traceback
from pathlib import Path

from trimtab import config, store
from trimtab.errors import StopError, StoreError, TrimtabError
from trimtab.progress import Reporter
from trimtab.runtime.signals import Stop
from trimtab.studies.sweep.job import GPU_VARIABLE, IDENTITY_FILE, Job, Outcome, State
from trimtab.studies.sweep.run_progress import MilestoneLimits, PrunedRun, RunProgress, StarvedRun
from trimtab.version import __version__

FOLDER_SECONDS = 60.0  # a worker that is told to stop writes its checkpoint in that time


def make(job: Job, *, reporter: Reporter, stop: Stop) -> Outcome:
    """Make it in this process. What goes wrong is an outcome; only an interrupt without a checkpoint is raised."""
    from trimtab.commands import run as pipeline  # with torch

    limits = MilestoneLimits(Path(job.config["out"]), job.limits) if job.limits else None
    progress = RunProgress(reporter, name=job.name, stop=stop, stop_starved=job.stop_starved, limits=limits)
    start = time.monotonic()

    def outcome(state: State, error: str | None = None, trace: str | None = None) -> Outcome:
        from trimtab.studies.sweep.read import read_run  # with torch

        numbers = read_run(Path(job.config["out"])) if state in ("done", "starved") else None
        seconds = time.monotonic() - start
        return Outcome(state, seconds, progress.computed, numbers, error, trace, place=this_place())

    wait_for_folder(Path(job.config["out"]))
    try:
        if job.kind == "shared":
            pipeline.make_shared_work(config.resolve(job.config), reporter=progress)
            return outcome("waiting")
        pipeline.main(config.resolve(job.config), reporter=progress)
        return outcome("done")
    except StopError as error:
        stop.signal = error.exit_code - 128  # the signal came to a stage, which listens itself
        return outcome("stopped", error.message)
    except StarvedRun as reason:
        return outcome("starved", str(reason))
    except PrunedRun as reason:
        return outcome("pruned", str(reason))
    except (KeyboardInterrupt, SystemExit, BrokenPipeError):  # not the run's own doing
        raise
    except Exception as error:
        message = error.message if isinstance(error, TrimtabError) else f"unexpected {type(error).__name__}: {error}"
        return outcome("failed", message, traceback.format_exc())


def refusal(job: Job) -> str | None:
    """Why this process cannot make a job that another machine handed out; None where it can."""
    if job.version != __version__:
        return f"{socket.gethostname()} has trimtab {__version__}, and the sweep was started by {job.version}"
    if not (Path(job.sweep) / IDENTITY_FILE).is_file():
        return (
            f"{socket.gethostname()} does not see {job.sweep}: a sweep on several machines needs --out, and "
            "TRIMTAB_HOME, on a disk that all of them have at the same path"
        )
    return None


def wait_for_folder(folder: Path) -> None:
    """Until a process of a sweep that died, or of a node that was given up, has left the run; not for ever."""
    deadline = time.monotonic() + FOLDER_SECONDS
    while (folder / ".lock").is_file() and time.monotonic() < deadline:
        try:
            with store.lock(folder):
                return
        except StoreError:
            time.sleep(0.2)


def enter(job: Job) -> None:
    """Stand where the sweep stands: its working folder, its cache."""
    os.chdir(job.working_folder)
    os.environ["TRIMTAB_HOME"] = job.home


def this_place() -> str:
    """This machine, and the GPU where processes are given theirs."""
    gpus = os.environ.get(GPU_VARIABLE)
    return f"{socket.gethostname()}, GPU {gpus}" if gpus else socket.gethostname()
