"""Every row of a data set accounted for: what is kept, what is dropped and why, and what lengths give away.

Pure: no disk, network, clock or random numbers. One pass, constant work a row; duplicates are found by 16-byte hashes.

    auditor = Auditor(evaluation_prompts=...)
    for outcome in outcomes:                           # Pair | RowProblem, in the order of the source
        if (pair := auditor.see(outcome)) is not None:  # checks on text
            tokens = auditor.see_tokens(template.tokenize_pair(pair, ...))  # checks on tokens
    audit = auditor.finish(decode=template.decode)
    kept = [pair for pair in kept if pair.id not in audit.dropped_ids]      # contradictions show up late

Two rows contradict each other when they have the same prompt and the same two responses with opposite preference, or
the same response, good in one and bad in the other. There is nothing to learn from them and no telling which is right:
both are dropped. Of unpaired rows the good ones count as chosen here, the bad ones as rejected.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence, Set
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from trimtab.data.audit_result import Audit, Labels, Sample
from trimtab.data.control_tokens import template_mark
from trimtab.data.lengths import LengthBias, Lengths, length_bias, summarise
from trimtab.data.messages import roles_fault
from trimtab.data.problems import Reason, RowProblem, source_of
from trimtab.errors import DataError
from trimtab.records import Message, Pair, TokenPair, Unpaired

_MAX_SAMPLES = 16  # a sample is wanted that no later row contradicts
_UNITS = ("characters", "tokens")
_PARTS = ("prompt", "chosen", "rejected")


class Auditor:
    """Sees rows one after another; `finish` gives the audit.

    `evaluation_prompts` are texts passed through `normalise_prompt`; None means there is nothing to compare with.
    """

    def __init__(self, *, evaluation_prompts: Set[str] | None = None) -> None:
        self._evaluation_prompts = evaluation_prompts
        self._n_rows = 0
        self._dropped: list[tuple[int, RowProblem]] = []
        self._ids: list[str] = []  # of every readable pair; what follows are columns beside it
        self._places: dict[str, int] = {}
        self._row_number = array("Q")
        self._alive = bytearray()
        self._overlaps = bytearray()
        self._has = {"prompt": bytearray(), "chosen": bytearray(), "rejected": bytearray()}
        self._unpaired = bytearray()
        self._first_seen: dict[bytes, int] = {}
        self._lengths = {unit: {part: array("Q") for part in _PARTS} for unit in _UNITS}
        self._cut = {"chosen": bytearray(), "rejected": bytearray()}
        self._has_tokens = bytearray()
        self._samples: list[tuple[int, TokenPair]] = []
        self._template_marks: dict[int, str] = {}

    def see(self, outcome: Pair | Unpaired | RowProblem) -> Pair | Unpaired | None:
        """Count one row. It comes back when nothing is wrong with its text."""
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
        """What tokenising made of a row that `see` gave back. The tokens come back when nothing is wrong with them."""
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

    def finish(
        self,
        *,
        decode: Callable[[Sequence[int]], str] | None = None,
        notes: Iterable[str] = (),
        n_read: int | None = None,
    ) -> Audit:
        """The audit of all rows seen. `decode` spells ids with their special tokens; without it there is no sample.
        `n_read`: rows of the source, where what was seen was made of them."""
        alive, has_tokens, is_single = _flags(self._alive), _flags(self._has_tokens), _flags(self._unpaired)
        by_tokens = bool(has_tokens.any())
        assert not by_tokens or has_tokens[alive].all(), "see_tokens was not called for every pair that see gave back"
        columns = self._columns(alive, units=_UNITS if by_tokens else _UNITS[:1]) if alive.any() else {}
        return Audit(
            n_rows=self._n_rows,
            dropped_rows=tuple(row for _, row in sorted(self._dropped, key=lambda entry: entry[0])),
            lengths={
                unit: {part: summarise(sizes) for part, sizes in parts.items()} for unit, parts in columns.items()
            },
            bias={
                unit: length_bias(parts["chosen"], parts["rejected"], paired=not is_single[alive].any())
                for unit, parts in columns.items()
                if len(parts) == len(_PARTS)
            },
            cut_shares=self._cut_shares(alive) if "tokens" in columns else {},
            overlap=None if self._evaluation_prompts is None else self._ids_at(_flags(self._overlaps) & alive),
            sample=self._sample(decode),
            template_marks=tuple(
                (self._ids[place], mark) for place, mark in self._template_marks.items() if self._alive[place]
            ),
            notes=tuple(notes),
            labels=self._labels(alive & is_single),
            bias_by_source=self._bias_by_source(alive & ~is_single),
            n_read=n_read,
        )

    def _bias_by_source(self, rows: npt.NDArray[np.bool_]) -> dict[str, LengthBias]:
        """In characters, of these pairs by source; nothing where there is one source."""
        places: dict[str, list[int]] = {}
        for place in np.flatnonzero(rows):
            places.setdefault(source_of(self._ids[place]), []).append(int(place))
        if len(places) < 2:
            return {}
        chosen, rejected = (_column(self._lengths["characters"][side]) for side in ("chosen", "rejected"))
        return {source: length_bias(chosen[at], rejected[at]) for source, at in places.items()}

    def _labels(self, rows: npt.NDArray[np.bool_]) -> Labels | None:
        n_good = int(_flags(self._has["chosen"])[rows].sum())
        return Labels(n_good, int(rows.sum()) - n_good) if rows.any() else None

    def _columns(self, alive: npt.NDArray[np.bool_], *, units: Sequence[str]) -> dict[str, dict[str, Lengths]]:
        """Lengths of the kept rows, by unit and by the parts that any of them has."""
        rows = {part: alive & _flags(self._has[part]) for part in _PARTS}
        parts = [part for part in _PARTS if rows[part].any()]
        return {unit: {part: _column(self._lengths[unit][part])[rows[part]] for part in parts} for unit in units}

    def _cut_shares(self, alive: npt.NDArray[np.bool_]) -> dict[str, float]:
        rows = {side: alive & _flags(self._has[side]) for side in self._cut}
        return {side: float(_flags(self._cut[side])[of].mean()) for side, of in rows.items() if of.any()}

    def _ids_at(self, flags: npt.NDArray[np.bool_]) -> tuple[str, ...]:
        return tuple(self._ids[place] for place in np.flatnonzero(flags))

    def _place(self, pair: Pair | Unpaired) -> int:
        """A new line in every column."""
        if pair.id in self._places:
            raise DataError(f"two rows have the id {pair.id!r}", remedy="give every row an id of its own")
        place = self._places[pair.id] = len(self._ids)
        self._ids.append(pair.id)
        self._row_number.append(self._n_rows)
        for flags in (self._alive, self._overlaps, self._has_tokens, *self._cut.values()):
            flags.append(False)
        self._alive[place] = True
        sizes = {"prompt": sum(len(m.text) for m in pair.prompt)}
        sizes |= {side: len(response.text) for side, response in zip(_sides(pair), pair.responses, strict=True)}
        for part in _PARTS:
            self._has[part].append(part in sizes)
            self._lengths["characters"][part].append(sizes.get(part, 0))
            self._lengths["tokens"][part].append(0)
        self._unpaired.append(isinstance(pair, Unpaired))
        return place

    def _drop(self, place: int, problem: RowProblem) -> None:
        self._alive[place] = False
        self._dropped.append((self._row_number[place], problem))

    def _repetition(self, pair: Pair | Unpaired, place: int) -> RowProblem | None:
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
    outcomes: Iterable[Pair | Unpaired | RowProblem],
    *,
    tokenize: Callable[[Pair | Unpaired], TokenPair | RowProblem] | None = None,
    decode: Callable[[Sequence[int]], str] | None = None,
    evaluation_prompts: Set[str] | None = None,
    notes: Callable[[], Iterable[str]] = tuple,
    n_read: Callable[[], int | None] = lambda: None,
) -> Audit:
    """Audit a whole source where the kept pairs themselves are not wanted: on text, and on tokens with `tokenize`.

    `notes` and `n_read` are asked once all rows were read."""
    auditor = Auditor(evaluation_prompts=evaluation_prompts)
    for outcome in outcomes:
        pair = auditor.see(outcome)
        if pair is not None and tokenize is not None:
            auditor.see_tokens(tokenize(pair))
    return auditor.finish(decode=decode, notes=notes(), n_read=n_read())


def normalise_prompt(text: str) -> str:
    """The form in which prompts are compared with evaluation prompts: case and white space do not count."""
    return " ".join(text.casefold().split())


def _sides(pair: Pair | Unpaired) -> tuple[str, ...]:
    """Of its responses, in their order."""
    return ("chosen", "rejected") if isinstance(pair, Pair) else ("chosen" if pair.label else "rejected",)


def _text_problem(pair: Pair | Unpaired) -> RowProblem | None:
    fault = roles_fault(pair.prompt)
    if fault is not None:
        return RowProblem(pair.id, Reason.WRONG_ROLES, fault)
    if not pair.prompt[-1].text.strip():
        return RowProblem(pair.id, Reason.EMPTY_PROMPT, "the last user message is blank")
    names = _sides(pair) if isinstance(pair, Pair) else ("completion",)
    texts = [response.text.strip() for response in pair.responses]
    for name, text, response in zip(names, texts, pair.responses, strict=True):
        if not text:
            return RowProblem(pair.id, Reason.EMPTY_RESPONSE, f"'{name}' is {'blank' if response.content else 'empty'}")
    if len(set(texts)) < len(texts):
        return RowProblem(pair.id, Reason.IDENTICAL, f"both are {len(texts[0])} characters")
    return None


def _hashes(pair: Pair | Unpaired) -> tuple[bytes, bytes]:
    """Of the row, and of the row with its preference or label swapped. White space around responses does not count."""
    texts = [part for message in pair.prompt for part in (message.role, message.text)]
    prompt = _hash(*texts, *filter(None, [pair.template_arguments]))
    responses = [_hash(response.text.strip()) for response in pair.responses]
    if isinstance(pair, Unpaired):
        labels = (b"good", b"bad") if pair.label else (b"bad", b"good")
        own, opposite = (_hash_of_bytes(prompt, *responses, label) for label in labels)
        return own, opposite
    chosen, rejected = responses
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
