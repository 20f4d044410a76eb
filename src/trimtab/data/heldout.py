"""Which pairs are kept out of training: a share of the prompts, or a set of one's own, whose prompts are then trained
on nowhere else.

A prompt goes to one side with all of its pairs, decided by its text and nothing else, so that the split stays as it is
when the data grow. Prompts that differ in case and white space alone are one prompt, and go where one of its spellings
would, whatever their order: so all are looked at before the first is placed. No disk, network or random numbers.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal

import numpy as np

from trimtab.data.audit import normalise_prompt
from trimtab.data.audit_result import Labels
from trimtab.data.problems import RowProblem, source_of
from trimtab.records import Pair, Unpaired, digest

Side = Literal["train", "heldout", "leaked"]
SIDES: tuple[Side, ...] = ("train", "heldout", "leaked")


PLACES = 1 << 32


def prompt_place(pair: Pair | Unpaired) -> int:
    """Of a prompt as it is spelled. Its lower 32 bits are its place in the order in which shares of prompts are held
    out, the upper ones its rank among other spellings of it; both are uniform."""
    spelling = digest([message.to_json() for message in pair.prompt])
    return int(spelling[8:16] + spelling[:8], 16)


def prompt_key(pair: Pair | Unpaired) -> int:
    """Of the whole prompt, 64 bits; case and white space do not count."""
    whole = blake2b(digest_size=8)
    for message in pair.prompt:
        whole.update(f"{message.role}\0{normalise_prompt(message.content)}\0".encode("utf-8", "surrogatepass"))
    return int.from_bytes(whole.digest())


@dataclass(frozen=True, slots=True)
class SourceCount:
    """Rows of one source by what became of them."""

    source: str
    train: int
    heldout: int
    leaked: int
    dropped: int

    def to_json(self) -> dict[str, Any]:
        return {
            "source": self.source, "rows": self.train + self.heldout + self.leaked + self.dropped,
            "train": self.train, "heldout": self.heldout, "leaked": self.leaked, "dropped": self.dropped,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class SplitCounts:
    """Pairs on each side, prompts on the first two, and the same by source.

    share: of the prompts that was asked for; evaluation: the name of the held-out set in its place. `leaked` pairs have
    a prompt of that set and are left out of training. train_labels: of the rows to train on; None where they are pairs.
    """

    share: float
    evaluation: str | None
    train: int
    heldout: int
    leaked: int
    train_prompts: int
    heldout_prompts: int
    sources: tuple[SourceCount, ...]
    train_labels: Labels | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "train": self.train,
            "heldout": self.heldout,
            "leaked": self.leaked,
            "train_prompts": self.train_prompts,
            "heldout_prompts": self.heldout_prompts,
            "evaluation": self.evaluation,
            "sources": [source.to_json() for source in self.sources],
        }

    @property
    def warning(self) -> str | None:
        """Where a share was asked for and nothing is held out."""
        if self.heldout or not self.share or self.evaluation is not None:
            return None
        prompts = "1 prompt" if self.train_prompts == 1 else f"{self.train_prompts:,} prompts"
        return (
            f"nothing is held out: data.holdout is {self.share:g}, the pairs have {prompts}, and a prompt goes to one "
            "side with all of its pairs; bring more prompts, raise data.holdout, or name a file with --data.eval"
        )

    def lines(self) -> list[str]:
        """The split in plain sentences."""
        lines = [
            f"{self.train:,} to train on (prompts: {self.train_prompts:,}), {self.heldout:,} held out (prompts: "
            f"{self.heldout_prompts:,}{'' if self.evaluation is None else f', from {self.evaluation}'})"
        ]
        if self.evaluation is not None:
            share = self.leaked / max(1, self.train + self.leaked)
            lines.append(
                f"{self.leaked:,} pairs ({share:.1%}) have a prompt of {self.evaluation} and are left out of training"
            )
        if len(self.sources) > 1:
            total = max(1, sum(source.train for source in self.sources))
            lines += [
                f"  {source.source}: {source.train:,} to train on ({source.train / total:.1%}), "
                f"{source.heldout:,} held out, {source.leaked:,} left out, {source.dropped:,} dropped"
                for source in self.sources
            ]
        return lines if self.warning is None else [*lines, f"warning: {self.warning}"]


class Split:
    """Puts pairs on their side one after another, and counts.

    share: of prompts to hold out; which they are is settled once all pairs were `see`n. evaluation: the name of a
    held-out set in its place, whose pairs are `hold` first. `counts` are by all that is known in the end.
    """

    def __init__(self, share: float, *, evaluation: str | None = None) -> None:
        self._share, self._evaluation = share, evaluation
        self._spellings = array("Q")  # key and place of each pair's prompt: 16 bytes, as pairs may be millions
        self._held_keys: set[int] | None = None if evaluation is None else set()  # None: not settled
        self._pairs: list[tuple[str, int, bool]] = []  # id, prompt, whether of the held-out set
        self._labels: dict[str, bool] = {}  # of single responses

    @property
    def n_pairs(self) -> int:
        """Pairs so far, of all sides."""
        return len(self._pairs)

    def see(self, pair: Pair | Unpaired) -> None:
        """Take note of how a pair of the sources spells its prompt."""
        if self._evaluation is None:
            self._spellings.extend((prompt_key(pair), prompt_place(pair)))
            self._held_keys = None

    def watch(self, outcomes: Iterable[Pair | Unpaired | RowProblem]) -> Iterator[Pair | Unpaired | RowProblem]:
        """The same rows, each pair of which is `see`n as it passes."""
        for outcome in outcomes:
            if not isinstance(outcome, RowProblem):
                self.see(outcome)
            yield outcome

    def hold(self, pair: Pair | Unpaired) -> None:
        """A pair of the held-out set."""
        self._keys().add(self._note(pair, is_held=True))

    def add(self, pair: Pair | Unpaired) -> None:
        """A pair of the sources, whose side may not be settled yet."""
        self._note(pair, is_held=False)

    def side(self, pair: Pair | Unpaired) -> Side:
        """Of a pair of the sources, all of which were `see`n."""
        return self._side(self._note(pair, is_held=False))

    def _note(self, pair: Pair | Unpaired, *, is_held: bool) -> int:
        key = prompt_key(pair)
        self._pairs.append((pair.id, key, is_held))
        if isinstance(pair, Unpaired) and not is_held:
            self._labels[pair.id] = pair.label
        return key

    def _side(self, key: int) -> Side:
        """Of the sources' pairs with this prompt."""
        if key not in self._keys():
            return "train"
        return "heldout" if self._evaluation is None else "leaked"

    def _keys(self) -> set[int]:
        """Of the prompts that are held out."""
        if self._held_keys is None:
            self._held_keys = _drawn_keys(self._spellings, self._share)
        return self._held_keys

    def counts(self, dropped_ids: Iterable[str] = (), *, sources: Sequence[str]) -> SplitCounts:
        """Of the pairs whose ids are not among the dropped ones. `sources`: their names, in order."""
        dropped: Set[str] = frozenset(dropped_ids)
        pairs = [
            (pair_id, "heldout" if is_held else self._side(key), key)
            for pair_id, key, is_held in self._pairs
            if pair_id not in dropped
        ]
        sides = Counter(side for _, side, _ in pairs)
        prompts = {side: len({key for _, of, key in pairs if of == side}) for side in SIDES}
        by_source = Counter((source_of(pair_id), side) for pair_id, side, _ in pairs)
        dropped_by_source = Counter(map(source_of, dropped))
        labels = Counter(
            self._labels[pair_id] for pair_id, side, _ in pairs if side == "train" and pair_id in self._labels
        )
        return SplitCounts(
            share=self._share,
            evaluation=self._evaluation,
            train=sides["train"],
            heldout=sides["heldout"],
            leaked=sides["leaked"],
            train_prompts=prompts["train"],
            heldout_prompts=prompts["heldout"],
            sources=tuple(
                SourceCount(
                    source=name,
                    train=by_source[name, "train"],
                    heldout=by_source[name, "heldout"],
                    leaked=by_source[name, "leaked"],
                    dropped=dropped_by_source[name],
                )
                for name in sources
            ),
            train_labels=Labels(labels[True], labels[False]) if labels else None,
        )


def _drawn_keys(spellings: array[int], share: float) -> set[int]:
    """Of the prompts whose spelling of the lowest rank lies in the share; `spellings`: keys and places in turns."""
    rows = np.frombuffer(spellings, dtype=np.uint64).reshape(-1, 2)
    rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
    is_first = np.diff(rows[:, 0], prepend=~rows[:1, 0]) != 0
    keys, places = rows[is_first].T
    return set(keys[places % np.uint64(PLACES) < share * PLACES].tolist())
