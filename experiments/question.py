"""What a question hands to the page, and the store in which every number that it shows is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from experiments.measurement import Measurement
from experiments.read_sweeps import Sweep
from trimtab.reporting.sections import Table

Sweeps = Mapping[str, Sweep]  # by name


@dataclass(frozen=True, slots=True)
class Picture:
    """`svg` lies beside the page as figures/<name>.svg; the caption ends with the command that made its numbers."""

    name: str
    svg: str
    caption: str


@dataclass(frozen=True, slots=True)
class Answer:
    """One question answered. `sentences` are whole, with their figures; `short`, or else the first of them, stands at
    the page's top."""

    sentences: Sequence[str]
    short: str = ""
    table: Table | None = None
    picture: Picture | None = None
    meaning: Sequence[str] = ()
    limits: Sequence[str] = ()


@dataclass(slots=True)
class Numbers:
    """Numbers by name, as `numbers.json` keeps them: with n, interval, command and the revision that made the runs."""

    revisions: Mapping[str, str]
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, name: str, measurement: Measurement, *, sweep: Sweep, command: str | None = None) -> Measurement:
        """A number of a sweep's."""
        revision = self.revisions.get(sweep.name, "unknown")
        return self.put(name, measurement, command=command or sweep.command, revision=revision)

    def put(self, name: str, measurement: Measurement, *, command: str, revision: str) -> Measurement:
        """Write the measurement down and hand it back. A name stands once."""
        assert name not in self.entries, f"two numbers are called {name}"
        self.entries[name] = measurement.to_json() | {"command": command, "revision": revision}
        return measurement


@dataclass(frozen=True, slots=True)
class Question:
    """`needs`: the sweeps without which there is no answer; `optional`: those that add to it; `prefix`: of the names of
    its numbers, where its runs are no sweeps."""

    title: str
    text: str
    needs: Sequence[str]
    answer: Callable[[Sweeps, Numbers], Answer]
    optional: Sequence[str] = ()
    prefix: str = ""
