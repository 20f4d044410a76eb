"""A job of a sweep: one of its runs, or the work that several of them share, as a value that any machine can be handed.

Whoever makes it must have the sweep's folder on its disk, by the same path: checkpoints and results are files there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from trimtab import store
from trimtab.errors import RunError
from trimtab.studies.sweep.grid import ConfigTree
from trimtab.studies.sweep.numbers import PointNumbers
from trimtab.version import __version__

State = Literal["waiting", "running", "done", "failed", "stopped", "starved", "pruned"]
Kind = Literal["run", "shared"]
TaskSeconds = Mapping[str, float]  # by what a stage calls its task
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
