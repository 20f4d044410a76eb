"""One sitting: which match is shown, what was chosen, what is set aside, what can be undone.

Every change is handed to the caller's store before it counts here, so a choice that could not be kept was not made.
Requests come from several threads; each method is one step under a lock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from threading import RLock
from typing import Any, Protocol

from trimtab.progress import printable
from trimtab.studies.arena.matches import Choice, Match, Said


class Keeper(Protocol):
    """Where choices outlive the sitting. Each call is on disk when it returns, or raises."""

    def keep(self, match: Match, choice: Choice, /) -> None: ...

    def skip(self, match: Match, /) -> None: ...

    def forget(self, match: Match, /) -> None:
        """Neither chosen nor skipped any more."""


class StaleError(Exception):
    """The request was about a view that is no longer the current one: another tab, or the same key twice."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one match: chosen, skipped, or not `reached`. Identical answers are reached, or not, too: counted
    all at once they would outweigh the few that were judged when a person stops early.
    """

    match: Match
    choice: Choice | None
    skipped: bool
    reached: bool = True

    @property
    def preference(self) -> float | None:
        """1 first, 2 second, 1.5 neither is better; None where there is no verdict."""
        if self.match.identical:
            return 1.5 if self.reached else None
        return None if self.choice is None else self.choice.preference(self.match)


class Session:
    """`chosen` and `skipped` (by `Match.content`) are what earlier sittings left; skipped matches come last."""

    def __init__(
        self,
        matches: Sequence[Match],
        *,
        seed: int,
        keeper: Keeper,
        chosen: Mapping[str, Choice] | None = None,
        skipped: Iterable[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._matches, self._seed, self._keeper, self._clock = tuple(matches), seed, keeper, clock
        self._chosen = dict(chosen or {})
        self._skipped = set(skipped) - self._chosen.keys()
        self._aside: set[str] = set()
        self._done_now: list[tuple[Match, bool]] = []  # with whether it had been skipped before
        self._finished = False
        self._ticket = 0
        self._shown: tuple[int, float] | None = None
        self._lock = RLock()

    @property
    def finished(self) -> bool:
        return self._finished

    def outcomes(self) -> list[Outcome]:
        """Every match in the order of asking; as large a part of the identical ones is reached as of the others."""
        with self._lock:
            asked = [match.content for match in self._matches if not match.identical]
            done = [content in self._chosen or content in self._skipped for content in asked]
            before, found = 0, []
            for match in self._matches:
                reached = before < sum(done) or all(done)
                if not match.identical:
                    reached = done[before]
                    before += 1
                found.append(
                    Outcome(match, self._chosen.get(match.content), match.content in self._skipped, reached=reached)
                )
            return found

    def n_open(self) -> int:
        """Matches that a person has still to choose on, skipped ones included."""
        return sum(one.preference is None and not one.match.identical for one in self.outcomes())

    def view(self) -> dict[str, Any]:
        """What the page shows, JSON-able. It holds no name of a model, run or file."""
        with self._lock:
            match = self._current()
            seen: dict[str, Any] = {
                "state": "finished" if self._finished else "asking" if match else "done",
                "ticket": self._ticket,
                "progress": self._progress(),
                "can_undo": bool(self._done_now) and not self._finished,
            }
            if match is not None and not self._finished:
                if self._shown is None or self._shown[0] != self._ticket:
                    self._shown = (self._ticket, self._clock())
                seen["match"] = self._laid_out(match)
            return seen

    def choose(self, said: Said, *, ticket: int) -> None:
        """Keep what was said of the match that `ticket` showed."""
        with self._lock:
            match = self._asked(ticket)
            seconds = self._clock() - self._shown[1] if self._shown else 0.0
            choice = Choice(said, match.low_on_left(seed=self._seed), seconds)
            self._keeper.keep(match, choice)
            self._step(match)
            self._chosen[match.content] = choice
            self._skipped.discard(match.content)

    def skip(self, *, ticket: int) -> None:
        """Set the match aside: no verdict now; it comes again on request and in the next sitting."""
        with self._lock:
            match = self._asked(ticket)
            self._keeper.skip(match)
            self._step(match)
            self._skipped.add(match.content)
            self._aside.add(match.content)

    def undo(self, *, ticket: int) -> None:
        """Take back the last choice or skip of this sitting and show that match again."""
        with self._lock:
            self._require(ticket)
            if not self._done_now:
                raise StaleError
            match, skipped_before = self._done_now[-1]
            self._keeper.forget(match)
            if skipped_before:
                self._keeper.skip(match)
            self._done_now.pop()
            self._chosen.pop(match.content, None)
            (self._skipped.add if skipped_before else self._skipped.discard)(match.content)
            self._aside.discard(match.content)
            self._ticket += 1

    def ask_skipped(self, *, ticket: int) -> None:
        """Bring back what was set aside in this sitting."""
        with self._lock:
            self._require(ticket)
            self._aside.clear()
            self._ticket += 1

    def finish(self, *, ticket: int) -> None:
        """No more choices: from here on names may be told."""
        with self._lock:
            self._require(ticket)
            self._finished = True
            self._ticket += 1

    def _step(self, match: Match) -> None:
        self._done_now.append((match, match.content in self._skipped))
        self._ticket += 1

    def _require(self, ticket: int) -> None:
        if self._finished or ticket != self._ticket:
            raise StaleError

    def _asked(self, ticket: int) -> Match:
        self._require(ticket)
        match = self._current()
        if match is None:
            raise StaleError
        return match

    def _current(self) -> Match | None:
        waiting = [match for match in self._matches if self._is_open(match)]
        return next((match for match in waiting if match.content not in self._skipped), next(iter(waiting), None))

    def _is_open(self, match: Match) -> bool:
        return not match.identical and match.content not in self._chosen and match.content not in self._aside

    def _progress(self) -> dict[str, int]:
        asked = [match for match in self._matches if not match.identical]
        return {
            "total": len(asked),
            "judged": sum(match.content in self._chosen for match in asked),
            "skipped": sum(match.content in self._skipped for match in asked),
            "identical": len(self._matches) - len(asked),
        }

    def _laid_out(self, match: Match) -> dict[str, Any]:
        left, right = match.first, match.second
        if match.low_on_left(seed=self._seed) is not match.first_is_low:
            left, right = right, left
        shown = {"asked": match.asked, "left": left, "right": right}
        laid: dict[str, Any] = {name: [_visible(text) for text in texts] for name, texts in shown.items()}
        return laid | {"skipped_before": match.content in self._skipped}


def _visible(text: str) -> str:
    """Characters that reorder a line or show nothing are written out: answers must look as different as they are."""
    return printable(text.replace("\r\n", "\n"), keep_newlines=True)
