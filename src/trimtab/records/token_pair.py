"""A pair as the model sees it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trimtab.records.pairs import Pair, Unpaired

Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class TokenPair:
    """A pair as the model sees it: ids of the prompt (with the assistant header) and of each response.

    A response ends with exactly one end-of-turn id unless it was cut at the limit. `chosen_foreign` and
    `rejected_foreign` are half-open ranges of its ids that the assistant did not write (results of tools on its way):
    they are read, and neither scored nor learnt. An unpaired row has one of the two:
    a good completion is a chosen response with nothing beside it, a bad one a rejected response; the other has no ids.
    """

    id: str
    prompt_ids: tuple[int, ...]
    chosen_ids: tuple[int, ...]
    rejected_ids: tuple[int, ...]
    chosen_cut: bool = False
    rejected_cut: bool = False
    score_gap: float | None = None
    chosen_foreign: Ranges = ()
    rejected_foreign: Ranges = ()

    @classmethod
    def of(
        cls,
        row: Pair | Unpaired,
        prompt_ids: tuple[int, ...],
        responses: Sequence[tuple[int, ...]],
        *,
        room: int,
        foreign: Sequence[Ranges] = ((), ()),
    ) -> TokenPair:
        """The row with the ids of its prompt and of its responses, each cut to `room` tokens."""
        gap = None if isinstance(row, Unpaired) else row.score_gap
        if isinstance(row, Unpaired):
            responses = [*responses, ()] if row.label else [(), *responses]
            foreign = [foreign[0], ()] if row.label else [(), foreign[0]]
        chosen, rejected = responses
        ranges = [tuple((start, min(end, room)) for start, end in of if start < room) for of in foreign]
        cuts = len(chosen) > room, len(rejected) > room
        return cls(row.id, prompt_ids, chosen[:room], rejected[:room], *cuts, gap, *ranges)

    @property
    def own_lengths(self) -> tuple[int, int]:
        """Tokens of each response that the assistant wrote."""
        return (
            len(self.chosen_ids) - sum(end - start for start, end in self.chosen_foreign),
            len(self.rejected_ids) - sum(end - start for start, end in self.rejected_foreign),
        )

    @property
    def sides(self) -> tuple[tuple[int, tuple[int, ...]], ...]:
        """The responses that are there, each with its side: 0 for chosen, 1 for rejected."""
        return tuple((side, ids) for side, ids in enumerate((self.chosen_ids, self.rejected_ids)) if ids)

    @property
    def n_tokens(self) -> int:
        """Tokens of one prompt group: the prompt once and both responses."""
        return len(self.prompt_ids) + len(self.chosen_ids) + len(self.rejected_ids)

    def to_json(self) -> dict[str, Any]:
        return {  # written out: `asdict` copies every single id, which took half of the time of preparing data
            "id": self.id,
            "prompt_ids": list(self.prompt_ids),
            "chosen_ids": list(self.chosen_ids),
            "rejected_ids": list(self.rejected_ids),
            "chosen_cut": self.chosen_cut,
            "rejected_cut": self.rejected_cut,
            **{f"{side}_foreign": ranges for side, ranges in self._foreign.items() if ranges},
        } | ({} if self.score_gap is None else {"score_gap": self.score_gap})

    @property
    def _foreign(self) -> dict[str, Ranges]:
        return {"chosen": self.chosen_foreign, "rejected": self.rejected_foreign}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> TokenPair:
        return cls(
            id=row["id"],
            prompt_ids=tuple(row["prompt_ids"]),
            chosen_ids=tuple(row["chosen_ids"]),
            rejected_ids=tuple(row["rejected_ids"]),
            chosen_cut=row.get("chosen_cut", False),
            rejected_cut=row.get("rejected_cut", False),
            score_gap=row.get("score_gap"),
            chosen_foreign=_ranges(row.get("chosen_foreign", ())),
            rejected_foreign=_ranges(row.get("rejected_foreign", ())),
        )


def _ranges(pairs: Iterable[Sequence[int]]) -> Ranges:
    return tuple((start, end) for start, end in pairs)
