"""A job of a sweep: one of its runs, or the work that several of them share, as a value that any machine can be handed.

Whoever makes it must have the sweep's folder on its disk, by the same path: checkpoints and results are files there.
"""

from __future__ import annotations

import os
import socket
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from trimtab import config, store
from trimtab.errors import RunError, StopError, StoreError, TrimtabError
from trimtab.progress import Reporter
from trimtab.runtime.signals import Stop
from trimtab.studies.sweep.grid import ConfigTree
from trimtab.studies.sweep.numbers import PointNumbers
from trimtab.studies.sweep.run_progress import MilestoneLimits, PrunedRun, RunProgress, StarvedRun
from trimtab.version import __version__

State = Literal["waiting", "running", "done", "failed", "stopped", "starved", "pruned"]
Kind = Literal["run", "shared"]
TaskSeconds = Mapping[str, float]  # by what a stage calls its task
FOLDER_SECONDS = 60.0  # a worker that is told to stop writes its checkpoint in that time
GPU_VARIABLE = "CUDA_VISIBLE_DEVICES"
IDENTITY_FILE = "grid.json"  # in the sweep's folder, written before any job is handed out


@dataclass(frozen=True, slots=True)
class Job:
    """`kind`: the run itself, or only what it shares with others (prepared data, reference, unaligned answers).

    limits: by step of a milestone, the held-out accuracy that the run must not be distinguishably below there.
    sweep: the sweep's folder. working_folder: where the paths of `config` begin. home: the global cache.
    """

    name: str
    kind: Kind
    config: ConfigTree
    sweep: str
    working_folder: str
    home: str
    stop_starved: bool = False
    limits: Mapping[str, float] = field(default_factory=dict)
    version: str = __version__

    @classmethod
    def of(
        cls,
        name: str,
        kind: Kind,
        tree: ConfigTree,
        *,
        sweep: Path,
        stop_starved: bool,
        limits: Mapping[str, float] | None = None,
    ) -> Job:
        """A job whose paths are those of this process."""
        home = str(store.home().absolute())
        return cls(name, kind, tree, str(sweep.absolute()), str(Path.cwd()), home, stop_starved, limits or {})

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Job:
        return cls(**tree)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an attempt at a job: seconds and work are this attempt's alone. `place`: where it was made."""

    state: State
    seconds: float
    task_seconds: TaskSeconds
    numbers: PointNumbers | None = None
    error: str | None = None
    trace: str | None = None
    place: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "state": self.state,
            "seconds": self.seconds,
            "task_seconds": dict(self.task_seconds),
            "numbers": None if self.numbers is None else self.numbers.to_json(),
            "error": self.error,
            "trace": self.trace,
            "place": self.place,
        }

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Outcome:
        numbers = tree["numbers"]
        return cls(**{**tree, "numbers": None if numbers is None else PointNumbers.from_json(numbers)})


class LostJobError(RunError):
    """The process or the machine that made a job is gone; a run's last checkpoint is still in its folder."""


def make(job: Job, *, reporter: Reporter, stop: Stop) -> Outcome:
    """Make it in this process. What goes wrong is an outcome; only an interrupt without a checkpoint is raised."""
    from trimtab.commands import run as pipeline

    limits = MilestoneLimits(Path(job.config["out"]), job.limits) if job.limits else None
    progress = RunProgress(reporter, name=job.name, stop=stop, stop_starved=job.stop_starved, limits=limits)
    start = time.monotonic()

    def outcome(state: State, error: str | None = None, trace: str | None = None) -> Outcome:
        from trimtab.studies.sweep.read import read_run

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
