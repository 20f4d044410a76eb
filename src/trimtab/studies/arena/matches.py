"""Two answers to one prompt, and what a person chose. Pure.

A match knows its answers as first and second (A and B of the command). What is shown knows them as left and right, and
what is stored as low and high, the order of their texts: a verdict means the same whichever run was named first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

from trimtab.records import digest

Pick = Literal["left", "tie", "right", "both bad"]
PICKS: tuple[Pick, ...] = get_args(Pick)


@dataclass(frozen=True, slots=True)
class Match:
    """One prompt (its user turns) and two answers with one text a turn. `content` names it in any order."""

    prompt_id: str
    prompt: tuple[str, ...]
    first: tuple[str, ...]
    second: tuple[str, ...]
    dataset: str = ""
    content: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        assert len(self.prompt) == len(self.first) == len(self.second) > 0, "one answer a turn on either side"
        object.__setattr__(self, "content", digest([self.prompt, sorted([self.first, self.second])]))

    @property
    def identical(self) -> bool:
        """Nothing to choose: a tie that nobody is asked about."""
        return self.first == self.second

    @property
    def first_is_low(self) -> bool:
        return self.first <= self.second

    def low_on_left(self, *, seed: int) -> bool:
        """A coin that knows neither run: the same two texts lie on the same sides whichever was named first."""
        return int(digest([seed, "side", self.content]), 16) % 2 == 0


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen, whether the low text stood on the left then, and how long it was looked at (seconds)."""

    pick: Pick
    low_on_left: bool
    seconds: float

    @property
    def value(self) -> float:
        """1 = the low text is better, 2 = the high one, 1.5 = neither; that both are bad is a tie with a reason."""
        if self.pick in {"tie", "both bad"}:
            return 1.5
        return 1.0 if (self.pick == "left") == self.low_on_left else 2.0

    def preference(self, match: Match) -> float:
        """1 = the first answer is better, 2 = the second, 1.5 = neither."""
        return self.value if match.first_is_low else 3.0 - self.value

    def first_on_left(self, match: Match) -> bool:
        return self.low_on_left == match.first_is_low

    def note(self) -> dict[str, Any]:
        """All but the value, JSON-able."""
        return {"said": self.pick, "left": "low" if self.low_on_left else "high", "seconds": round(self.seconds, 3)}

    @classmethod
    def from_note(cls, note: Mapping[str, Any]) -> Choice:
        """The inverse of `note`."""
        pick = cast(Pick, note["said"])
        assert pick in PICKS, f"a stored choice says {pick!r}"
        return cls(pick, low_on_left=note["left"] == "low", seconds=float(note["seconds"]))


def in_order(matches: Iterable[Match], *, seed: int, limit: int | None = None) -> list[Match]:
    """A seeded shuffle, so that stopping early leaves a random sample; a larger `limit` adds to a smaller one."""
    return sorted(matches, key=lambda match: digest([seed, "order", match.content]))[:limit]
