"""Every row of a data set accounted for: what is kept, what is dropped and why, and what lengths give away.

Pure: no disk, network, clock or random numbers. One pass, constant work a row; duplicates are found by 16-byte hashes.

    auditor = Auditor(evaluation_prompts=...)
    for outcome in outcomes:                           # Pair | RowProblem, in the order of the source
        if (pair := auditor.see(outcome)) is not None:  # checks on text
            tokens = auditor.see_tokens(template.tokenize_pair(pair, ...))  # checks on tokens
    audit = auditor.finish(decode=template.decode)
    kept = [pair for pair in kept if pair.id not in audit.dropped_ids]      # contradictions show up late

Two rows contradict each other when they have the same prompt and the same two responses with opposite preference. There
is nothing to learn from them and no telling which is right: both are dropped.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.data.control_tokens import template_mark
from trimtab.data.lengths import LengthBias, Lengths, LengthSummary, length_bias, summarise
from trimtab.data.messages import roles_fault
from trimtab.data.problems import Reason, RowProblem
from trimtab.errors import DataError
from trimtab.records import Message, Pair, TokenPair

DroppedRow = RowProblem
_MAX_SAMPLES = 16  # a sample is wanted that no later row contradicts
_UNITS = ("characters", "tokens")
_PARTS = ("prompt", "chosen", "rejected")


@dataclass(frozen=True, slots=True)
class Sample:
    """The first kept row as the model will see it, special tokens spelled out.

    `mask_spans` are the half-open ranges, in the row of tokens `[prompt][chosen][rejected]`, that carry the loss.
    """

    id: str
    prompt: str
    chosen: str
    rejected: str
    mask_spans: tuple[tuple[int, int], tuple[int, int]]

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "prompt": self.prompt,
            "chosen": self.chosen,
            "rejected": self.rejected,
            "mask_spans": [list(span) for span in self.mask_spans],
        }


@dataclass(frozen=True)
class Audit:
    """What an audit found. `n_rows` = `n_kept` + `len(dropped)`, always.

    `lengths` and `bias` are by unit, `characters` and, when tokens were seen, `tokens`, over the kept rows; token
    lengths are those after cutting. `cut` are shares of kept responses that were cut. `overlap` names the kept rows
    with a user message that is an evaluation prompt (None when there was nothing to compare with). `template_marks` are
    kept rows whose text holds a mark of some chat template, with the mark: (row id, mark). `notes` are further
    sentences: what was left out where rows were read and tokenised.
    """

    n_rows: int
    dropped_rows: tuple[DroppedRow, ...]
    lengths: dict[str, dict[str, LengthSummary]]
    bias: dict[str, LengthBias]
    cut_shares: dict[str, float]
    overlap: tuple[str, ...] | None
    sample: Sample | None
    template_marks: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def n_kept(self) -> int:
        return self.n_rows - len(self.dropped_rows)

    @property
    def dropped_share(self) -> float:
        return len(self.dropped_rows) / self.n_rows if self.n_rows else 0.0

    @cached_property
    def dropped_ids(self) -> frozenset[str]:
        return frozenset(row.id for row in self.dropped_rows)

    @cached_property
    def dropped_by_reason(self) -> dict[Reason, int]:
        """Counts of the reasons that occurred, most frequent first."""
        return dict(Counter(row.reason for row in self.dropped_rows).most_common())

    @property
    def remarks(self) -> list[str]:
        """What is to be known of the kept rows: marks of a template in their text, and the notes."""
        if not self.template_marks:
            return list(self.notes)
        (row, mark), n_rows = self.template_marks[0], len(self.template_marks)
        sentence = f"{n_rows:,} kept rows hold marks of another chat template (first: {row}, {mark!r}): "
        return [sentence + "their text seems to have been rendered once already", *self.notes]

    def to_json(self) -> dict[str, Any]:
        return {
            "rows": self.n_rows,
            "kept": self.n_kept,
            "dropped": len(self.dropped_rows),
            "dropped_share": self.dropped_share,
            "dropped_by_reason": {reason.value: count for reason, count in self.dropped_by_reason.items()},
            "lengths": {
                unit: {part: summary.to_json() for part, summary in parts.items()}
                for unit, parts in self.lengths.items()
            },
            "length_bias": {unit: bias.to_json() for unit, bias in self.bias.items()},
            "cut": dict(self.cut_shares),
            "overlap_with_evaluation": None
            if self.overlap is None
            else {"rows": len(self.overlap), "first_ids": list(self.overlap[:10])},
            "sample": None if self.sample is None else self.sample.to_json(),
            "template_marks": {
                "rows": len(self.template_marks),
                "first_ids": [row for row, _ in self.template_marks[:10]],
            },
            "notes": self.remarks,
        }

    def lines(self) -> list[str]:
        """The audit in plain sentences, one a line."""
        lines = [
            f"{self.n_rows:,} rows: {self.n_kept:,} kept, {len(self.dropped_rows):,} dropped ({self.dropped_share:.1%})"
        ]
        for reason, count in self.dropped_by_reason.items():
            example = next(row for row in self.dropped_rows if row.reason is reason)
            lines.append(f"  {count:,} {reason.value}: {reason.sentence} (first: {_example(example)})")
        for unit, parts in self.lengths.items():
            medians = ", ".join(f"{part} {summary.median:,.0f} ({summary.p95:,.0f})" for part, summary in parts.items())
            lines.append(f"{unit}, median (95th percentile): {medians}")
        lines.extend(_bias_line(unit, bias) for unit, bias in self.bias.items())
        if self.cut_shares:
            lines.append(
                f"cut at the limit: {self.cut_shares['chosen']:.1%} of chosen, "
                f"{self.cut_shares['rejected']:.1%} of rejected"
            )
        if self.overlap is not None:
            first = f" (first: {self.overlap[0]})" if self.overlap else ""
            lines.append(f"{len(self.overlap):,} kept rows hold an evaluation prompt{first}")
        return [*lines, *self.remarks]


class Auditor:
    """Sees rows one after another; `finish` gives the audit.

    `evaluation_prompts` are texts passed through `normalise_prompt`; None means there is nothing to compare with.
    """

    def __init__(self, *, evaluation_prompts: Set[str] | None = None) -> None:
        self._evaluation_prompts = evaluation_prompts
        self._n_rows = 0
        self._dropped: list[tuple[int, DroppedRow]] = []
        self._ids: list[str] = []  # of every readable pair; what follows are columns beside it
        self._places: dict[str, int] = {}
        self._row_number = array("Q")
        self._alive = bytearray()
        self._overlaps = bytearray()
        self._first_seen: dict[bytes, int] = {}
        self._lengths = {unit: {part: array("Q") for part in _PARTS} for unit in _UNITS}
        self._cut = {"chosen": bytearray(), "rejected": bytearray()}
        self._has_tokens = bytearray()
        self._samples: list[tuple[int, TokenPair]] = []
        self._template_marks: dict[int, str] = {}

    def see(self, outcome: Pair | RowProblem) -> Pair | None:
        """Count one row. The pair comes back when nothing is wrong with its text."""
        self._n_rows += 1
        if isinstance(outcome, RowProblem):
            self._dropped.append((self._n_rows, outcome))
            return None
        place = self._place(outcome)
        problem = _text_problem(outcome) or self._repetition(outcome, place)
        if problem is not None:
            self._drop(place, problem)
            return None
        texts = [message.text for message in (*outcome.prompt, *outcome.responses)]
        if (mark := next(filter(None, map(template_mark, texts)), None)) is not None:
            self._template_marks[place] = mark
        if self._evaluation_prompts:
            self._overlaps[place] = _holds_any(outcome.prompt, self._evaluation_prompts)
        return outcome

    def see_tokens(self, outcome: TokenPair | RowProblem) -> TokenPair | None:
        """What tokenising made of a pair that `see` gave back. The tokens come back when nothing is wrong with them."""
        place = self._places[outcome.id]
        if isinstance(outcome, TokenPair) and outcome.chosen_ids == outcome.rejected_ids:
            cause = "after cutting" if outcome.chosen_cut else "though the texts differ"
            detail = f"both responses are the same {len(outcome.chosen_ids)} tokens {cause}"
            outcome = RowProblem(outcome.id, Reason.IDENTICAL_AFTER_CUT, detail)
        if isinstance(outcome, RowProblem):
            self._drop(place, outcome)
            return None
        sizes = (len(outcome.prompt_ids), len(outcome.chosen_ids), len(outcome.rejected_ids))
        for part, size in zip(_PARTS, sizes, strict=True):
            self._lengths["tokens"][part][place] = size
        self._cut["chosen"][place], self._cut["rejected"][place] = outcome.chosen_cut, outcome.rejected_cut
        self._has_tokens[place] = True
        if len(self._samples) < _MAX_SAMPLES:
            self._samples.append((place, outcome))
        return outcome

    def finish(self, *, decode: Callable[[Sequence[int]], str] | None = None, notes: Iterable[str] = ()) -> Audit:
        """The audit of all rows seen. `decode` spells ids with their special tokens; without it there is no sample."""
        alive, has_tokens = _flags(self._alive), _flags(self._has_tokens)
        by_tokens = bool(has_tokens.any())
        assert not by_tokens or has_tokens[alive].all(), "see_tokens was not called for every pair that see gave back"
        columns = self._columns(alive, units=_UNITS if by_tokens else _UNITS[:1]) if alive.any() else {}
        return Audit(
            n_rows=self._n_rows,
            dropped_rows=tuple(row for _, row in sorted(self._dropped, key=lambda entry: entry[0])),
            lengths={unit: {part: summarise(parts[part]) for part in _PARTS} for unit, parts in columns.items()},
            bias={unit: length_bias(parts["chosen"], parts["rejected"]) for unit, parts in columns.items()},
            cut_shares=self._cut_shares(alive) if "tokens" in columns else {},
            overlap=None if self._evaluation_prompts is None else self._ids_at(_flags(self._overlaps) & alive),
            sample=self._sample(decode),
            template_marks=tuple(
                (self._ids[place], mark) for place, mark in self._template_marks.items() if self._alive[place]
            ),
            notes=tuple(notes),
        )

    def _columns(self, alive: npt.NDArray[np.bool_], *, units: Sequence[str]) -> dict[str, dict[str, Lengths]]:
        """Lengths of the kept rows, by unit and part."""
        return {unit: {part: _column(self._lengths[unit][part])[alive] for part in _PARTS} for unit in units}

    def _cut_shares(self, alive: npt.NDArray[np.bool_]) -> dict[str, float]:
        return {side: float(_flags(flags)[alive].mean()) for side, flags in self._cut.items()}

    def _ids_at(self, flags: npt.NDArray[np.bool_]) -> tuple[str, ...]:
        return tuple(self._ids[place] for place in np.flatnonzero(flags))

    def _place(self, pair: Pair) -> int:
        """A new line in every column."""
        if pair.id in self._places:
            raise DataError(f"two pairs have the id {pair.id!r}", remedy="give every pair an id of its own")
        place = self._places[pair.id] = len(self._ids)
        self._ids.append(pair.id)
        self._row_number.append(self._n_rows)
        for flags in (self._alive, self._overlaps, self._has_tokens, *self._cut.values()):
            flags.append(False)
        self._alive[place] = True
        sizes = (sum(len(m.text) for m in pair.prompt), *(len(response.text) for response in pair.responses))
        for part, size in zip(_PARTS, sizes, strict=True):
            self._lengths["characters"][part].append(size)
            self._lengths["tokens"][part].append(0)
        return place

    def _drop(self, place: int, problem: RowProblem) -> None:
        self._alive[place] = False
        self._dropped.append((self._row_number[place], problem))

    def _repetition(self, pair: Pair, place: int) -> RowProblem | None:
        """A duplicate or a contradiction of an earlier row. A contradicted earlier row is dropped here, too."""
        own_hash, opposite_hash = _hashes(pair)
        if (first := self._first_seen.setdefault(own_hash, place)) != place:
            return RowProblem(pair.id, Reason.DUPLICATE, f"same as {self._ids[first]}")
        if (opposite := self._first_seen.get(opposite_hash)) is None:
            return None
        if self._alive[opposite]:
            self._drop(opposite, RowProblem(self._ids[opposite], Reason.CONTRADICTORY, f"the opposite of {pair.id}"))
        return RowProblem(pair.id, Reason.CONTRADICTORY, f"the opposite of {self._ids[opposite]}")

    def _sample(self, decode: Callable[[Sequence[int]], str] | None) -> Sample | None:
        first = next((tokens for place, tokens in self._samples if self._alive[place]), None)
        if first is None or decode is None:
            return None
        start = len(first.prompt_ids)
        middle = start + len(first.chosen_ids)
        spans = ((start, middle), (middle, first.n_tokens))
        return Sample(first.id, decode(first.prompt_ids), decode(first.chosen_ids), decode(first.rejected_ids), spans)


def audit(
    outcomes: Iterable[Pair | RowProblem],
    *,
    tokenize: Callable[[Pair], TokenPair | RowProblem] | None = None,
    decode: Callable[[Sequence[int]], str] | None = None,
    evaluation_prompts: Set[str] | None = None,
    notes: Callable[[], Iterable[str]] = tuple,
) -> Audit:
    """Audit a whole source where the kept pairs themselves are not wanted: on text, and on tokens with `tokenize`.

    `notes` is asked once all rows were read."""
    auditor = Auditor(evaluation_prompts=evaluation_prompts)
    for outcome in outcomes:
        pair = auditor.see(outcome)
        if pair is not None and tokenize is not None:
            auditor.see_tokens(tokenize(pair))
    return auditor.finish(decode=decode, notes=notes())


def normalise_prompt(text: str) -> str:
    """The form in which prompts are compared with evaluation prompts: case and white space do not count."""
    return " ".join(text.casefold().split())


def _text_problem(pair: Pair) -> RowProblem | None:
    fault = roles_fault(pair.prompt)
    if fault is not None:
        return RowProblem(pair.id, Reason.WRONG_ROLES, fault)
    if not pair.prompt[-1].text.strip():
        return RowProblem(pair.id, Reason.EMPTY_PROMPT, "the last user message is blank")
    chosen, rejected = (response.text.strip() for response in pair.responses)
    for side, text, content in (("chosen", chosen, pair.chosen), ("rejected", rejected, pair.rejected)):
        if not text:
            return RowProblem(pair.id, Reason.EMPTY_RESPONSE, f"'{side}' is {'blank' if content else 'empty'}")
    if chosen == rejected:
        return RowProblem(pair.id, Reason.IDENTICAL, f"both are {len(chosen)} characters")
    return None


def _hashes(pair: Pair) -> tuple[bytes, bytes]:
    """Of the pair, and of the pair with its preference swapped. White space around responses does not count."""
    texts = [part for message in pair.prompt for part in (message.role, message.text)]
    prompt = _hash(*texts, *filter(None, [pair.template_arguments]))
    chosen, rejected = (_hash(response.text.strip()) for response in pair.responses)
    return _hash_of_bytes(prompt, chosen, rejected), _hash_of_bytes(prompt, rejected, chosen)


def _hash(*texts: str) -> bytes:
    return _hash_of_bytes(*(text.encode("utf-8", "surrogatepass") for text in texts))


def _hash_of_bytes(*parts: bytes) -> bytes:
    whole = blake2b(digest_size=16)
    for part in parts:
        whole.update(len(part).to_bytes(8, "little"))
        whole.update(part)
    return whole.digest()


def _holds_any(prompt: Iterable[Message], evaluation_prompts: Set[str]) -> bool:
    return any(m.role == "user" and normalise_prompt(m.content) in evaluation_prompts for m in prompt)


def _column(lengths: array[int]) -> Lengths:
    return np.frombuffer(lengths, dtype=np.uint64).astype(np.int64) if lengths else np.zeros(0, dtype=np.int64)


def _flags(flags: bytearray) -> npt.NDArray[np.bool_]:
    return np.array(flags, dtype=np.uint8).astype(np.bool_)


def _bias_line(unit: str, bias: LengthBias) -> str:
    size = "" if bias.cohens_d is None else f", Cohen's d {bias.cohens_d:+.2f}"
    return (
        f"length bias in {unit}: chosen longer in {bias.chosen_longer:.1%} of pairs, equal in {bias.same_length:.1%}"
        f"{size}, AUC of length alone {bias.auc:.3f}"
    )


def _example(row: DroppedRow) -> str:
    return f"{row.id}, {row.detail}" if row.detail else row.id
