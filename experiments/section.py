"""What a question hands to the page, and the book in which every number that it shows is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from experiments.figures_of import Figure
from experiments.sweeps_read import Sweep

Sweeps = Mapping[str, Sweep]


@dataclass(frozen=True, slots=True)
class Table:
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Drawing:
    """`svg` lies beside the page as figures/<name>.svg; the caption ends with the command that made its numbers."""

    name: str
    svg: str
    caption: str


@dataclass(frozen=True, slots=True)
class Section:
    """One question answered. `answers` are whole sentences with their figures; `short`, or else the first of them,
    stands at the page's top."""

    answers: Sequence[str]
    short: str = ""
    table: Table | None = None
    drawing: Drawing | None = None
    meaning: Sequence[str] = ()
    limits: Sequence[str] = ()


@dataclass(slots=True)
class Book:
    """Numbers by name, as `numbers.json` keeps them: with n, interval, command and the revision that made the runs."""

    revisions: Mapping[str, str]
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)

    def keep(self, name: str, figure: Figure, *, sweep: Sweep, command: str | None = None) -> Figure:
        """Write the figure down and hand it back. A name stands once."""
        assert name not in self.entries, f"two numbers are called {name}"
        self.entries[name] = figure.to_json() | {
            "command": command or sweep.command,
            "revision": self.revisions.get(sweep.name, "unknown"),
        }
        return figure


@dataclass(frozen=True, slots=True)
class Question:
    """`key` is the page's anchor, `needs` the sweeps without which there is no answer, `wants` those that add to it."""

    key: str
    title: str
    asked: str
    needs: Sequence[str]
    answer: Callable[[Sweeps, Book], Section]
    wants: Sequence[str] = ()
