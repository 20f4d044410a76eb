"""Matches, a keeper in memory, and a session over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from trimtab.errors import StoreError
from trimtab.studies.arena import Choice, Match, Session


def matches(n: int, *, turns: int = 1) -> list[Match]:
    return [
        Match(
            f"p{i}",
            tuple(f"question {i}.{t}" for t in range(turns)),
            tuple(f"a's answer {i}.{t}" for t in range(turns)),
            tuple(f"b's answer {i}.{t}" for t in range(turns)),
            "math",
        )
        for i in range(n)
    ]


@dataclass
class MemoryKeeper:
    """Keeps choices in a dictionary; refuses while `full`."""

    chosen: dict[str, Choice] = field(default_factory=dict)
    skipped: set[str] = field(default_factory=set)
    full: bool = False

    def keep(self, match: Match, choice: Choice, /) -> None:
        if self.full:
            raise StoreError("cannot use verdicts.sqlite: the disk is full", remedy="free space")
        self.chosen[match.content] = choice
        self.skipped.discard(match.content)

    def skip(self, match: Match, /) -> None:
        self.skipped.add(match.content)

    def forget(self, match: Match, /) -> None:
        self.chosen.pop(match.content, None)
        self.skipped.discard(match.content)


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def a_session(
    asked: Sequence[Match], keeper: MemoryKeeper | None = None, *, seed: int = 0, clock: Clock | None = None
) -> Session:
    """A sitting that goes on from what the keeper holds."""
    keeper = keeper or MemoryKeeper()
    return Session(
        asked,
        seed=seed,
        keeper=keeper,
        choices={m.content: keeper.chosen[m.content] for m in asked if m.content in keeper.chosen},
        skips=keeper.skipped,
        clock=clock or Clock(),
    )


def a_summary() -> dict[str, Any]:
    return {
        "headline": "runs/b is preferred: 75.0 % (95 % CI 50.0 to 100.0)",
        "shares": [
            {"kind": "first", "name": "runs/a", "n": 1},
            {"kind": "tie", "name": "tie", "n": 0},
            {"kind": "bad", "name": "both bad", "n": 0},
            {"kind": "second", "name": "runs/b", "n": 3},
        ],
        "lines": ["Left was chosen 2 of 4 times (50 %, 95 % CI 15 to 85)."],
    }
