"""One session of a person who judges: which match is shown, what was chosen or set aside, what can be undone.

Every change is handed to the caller's store before it counts here, so a choice that could not be kept was not made.
Requests come from several threads; each method is one step under a lock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from threading import RLock
from typing import Any, Literal, Protocol

from trimtab.progress import printable
from trimtab.studies.arena.matches import Choice, Match, Pick


class Keeper(Protocol):
    """Where choices outlive the session. Each call is on disk when it returns, or raises."""

    def keep(self, match: Match, choice: Choice, /) -> None: ...

    def skip(self, match: Match, /) -> None: ...

    def forget(self, match: Match, /) -> None:
        """Neither chosen nor skipped any more."""


class StaleError(Exception):
    """The request was about a view that is no longer the current one: another tab, or the same key twice."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one match: chosen, skipped, or not reached. Identical answers are reached, or not, too: counted
    all at once they would outweigh the few that were judged when a person stops early.
    """

    match: Match
    choice: Choice | None
    was_skipped: bool
    was_reached: bool = True

    @property
    def preference(self) -> float | None:
        """1 first, 2 second, 1.5 neither is better; None where there is no verdict."""
        if self.match.identical:
            return 1.5 if self.was_reached else None
        return None if self.choice is None else self.choice.preference(self.match)


@dataclass(frozen=True, slots=True)
class Progress:
    """Counts of matches. Those with identical answers are not among the `n_total` that a person judges."""

    n_total: int
    n_judged: int
    n_skipped: int
    n_identical: int


@dataclass(frozen=True, slots=True)
class MatchView:
    """One match as the page shows it, a text a turn."""

    prompt: tuple[str, ...]
    left: tuple[str, ...]
    right: tuple[str, ...]
    skipped_before: bool

    def to_json(self) -> dict[str, Any]:
        return {
            "asked": list(self.prompt),
            "left": list(self.left),
            "right": list(self.right),
            "skipped_before": self.skipped_before,
        }


@dataclass(frozen=True, slots=True)
class View:
    """What the page shows. It holds no name of a model, run or file."""

    state: Literal["asking", "done", "finished"]
    ticket: int
    progress: Progress
    can_undo: bool
    match: MatchView | None

    def to_json(self) -> dict[str, Any]:
        tree = {
            "state": self.state,
            "ticket": self.ticket,
            "progress": {name.removeprefix("n_"): n for name, n in asdict(self.progress).items()},
            "can_undo": self.can_undo,
        }
        return tree if self.match is None else tree | {"match": self.match.to_json()}


class Session:
    """`choices` and `skips` (by `Match.content`) are what earlier sessions left; skipped matches come last."""

    def __init__(
        self,
        matches: Sequence[Match],
        *,
        seed: int,
        keeper: Keeper,
        choices: Mapping[str, Choice] | None = None,
        skips: Iterable[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._matches, self._seed, self._keeper, self._clock = tuple(matches), seed, keeper, clock
        self._choices = dict(choices or {})
        self._skips = set(skips) - self._choices.keys()
        self._aside: set[str] = set()
        self._history: list[tuple[Match, bool]] = []  # with whether it had been skipped before
        self._finished = False
        self._ticket = 0
        self._view_ticket: int | None = None  # the ticket that was on the page last, and since when
        self._view_time = 0.0
        self._lock = RLock()

    @property
    def is_finished(self) -> bool:
        return self._finished

    def outcomes(self) -> list[Outcome]:
        """Every match in the order of asking; as large a part of the identical ones is reached as of the others."""
        with self._lock:
            open_contents = [match.content for match in self._matches if not match.identical]
            is_done = [content in self._choices or content in self._skips for content in open_contents]
            place, outcomes = 0, []  # `place` counts the matches to be judged that stand before
            for match in self._matches:
                if match.identical:
                    was_reached = place < sum(is_done) or all(is_done)
                else:
                    was_reached = is_done[place]
                    place += 1
                choice, was_skipped = self._choices.get(match.content), match.content in self._skips
                outcomes.append(Outcome(match, choice, was_skipped, was_reached=was_reached))
            return outcomes

    def n_open(self) -> int:
        """Matches that a person has still to choose on, skipped ones included."""
        return sum(outcome.preference is None and not outcome.match.identical for outcome in self.outcomes())

    def view(self) -> View:
        """What the page shows."""
        with self._lock:
            match = None if self._finished else self._current()
            if match is not None and self._view_ticket != self._ticket:
                self._view_ticket, self._view_time = self._ticket, self._clock()
            return View(
                state="finished" if self._finished else "asking" if match else "done",
                ticket=self._ticket,
                progress=self._progress(),
                can_undo=bool(self._history) and not self._finished,
                match=None if match is None else self._match_view(match),
            )

    def choose(self, pick: Pick, *, ticket: int) -> None:
        """Keep what was chosen of the match that `ticket` showed."""
        with self._lock:
            match = self._match_of(ticket)
            seconds = self._clock() - self._view_time if self._view_ticket is not None else 0.0
            choice = Choice(pick, match.low_on_left(seed=self._seed), seconds)
            self._keeper.keep(match, choice)
            self._step(match)
            self._choices[match.content] = choice
            self._skips.discard(match.content)

    def skip(self, *, ticket: int) -> None:
        """Set the match aside: no verdict now; it comes again on request and in the next session."""
        with self._lock:
            match = self._match_of(ticket)
            self._keeper.skip(match)
            self._step(match)
            self._skips.add(match.content)
            self._aside.add(match.content)

    def undo(self, *, ticket: int) -> None:
        """Take back the last choice or skip of this session and show that match again."""
        with self._lock:
            self._require(ticket)
            if not self._history:
                raise StaleError
            match, skipped_before = self._history[-1]
            self._keeper.forget(match)
            if skipped_before:
                self._keeper.skip(match)
            self._history.pop()
            self._choices.pop(match.content, None)
            (self._skips.add if skipped_before else self._skips.discard)(match.content)
            self._aside.discard(match.content)
            self._ticket += 1

    def ask_skipped(self, *, ticket: int) -> None:
        """Bring back what was set aside in this session."""
        with self._lock:
            self._require(ticket)
            self._aside.clear()
            self._ticket += 1

    def finish(self, *, ticket: int) -> None:
        """No more choices: from here on names may be shown."""
        with self._lock:
            self._require(ticket)
            self._finished = True
            self._ticket += 1

    def _step(self, match: Match) -> None:
        self._history.append((match, match.content in self._skips))
        self._ticket += 1

    def _require(self, ticket: int) -> None:
        if self._finished or ticket != self._ticket:
            raise StaleError

    def _match_of(self, ticket: int) -> Match:
        self._require(ticket)
        match = self._current()
        if match is None:
            raise StaleError
        return match

    def _current(self) -> Match | None:
        queue = [match for match in self._matches if self._is_open(match)]
        return next((match for match in queue if match.content not in self._skips), next(iter(queue), None))

    def _is_open(self, match: Match) -> bool:
        return not match.identical and match.content not in self._choices and match.content not in self._aside

    def _progress(self) -> Progress:
        to_judge = [match for match in self._matches if not match.identical]
        return Progress(
            n_total=len(to_judge),
            n_judged=sum(match.content in self._choices for match in to_judge),
            n_skipped=sum(match.content in self._skips for match in to_judge),
            n_identical=len(self._matches) - len(to_judge),
        )

    def _match_view(self, match: Match) -> MatchView:
        left, right = match.first, match.second
        if match.low_on_left(seed=self._seed) is not match.first_is_low:
            left, right = right, left
        return MatchView(_visible(match.prompt), _visible(left), _visible(right), match.content in self._skips)


def _visible(texts: Sequence[str]) -> tuple[str, ...]:
    """Characters that reorder a line or show nothing are written out: answers must look as different as they are."""
    return tuple(printable(text.replace("\r\n", "\n"), keep_newlines=True) for text in texts)
