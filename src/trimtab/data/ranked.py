"""Rows with several responses to a prompt and how good each is: how they are told and read, and the pairs they make.

    instruction, completions                    UltraFeedback as published: `response` and `overall_score` of each
    prompt, answers                             Nectar: `answer` and `rank` of each, 1 for the best
    prompt, response, helpfulness               HelpSteer2: a response a row, those of a prompt behind each other
    prompt, chosen, rejected                    RewardBench 2: lists of texts, the chosen ones above the rejected ones
    prompt, completions, scores (or ranks)      lists beside each other; completion and score where rows have one each

A response without a score is left out, and so is one that has two different scores in one row: both are counted.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeGuard

from trimtab.data.messages import is_filled
from trimtab.data.pair_rules import Rule, pairs_by_rule
from trimtab.data.problems import Reason, RowFaultError, RowProblem
from trimtab.data.readers import Parts, Reader, Row, read_prompt, response_of
from trimtab.records import Message, Pair, Ranked, Unpaired

RANKED_COLUMNS = (
    "completions", "scores", "ranks", "answers", "response", "helpfulness", "completion", "score", "chosen", "rejected",
)  # fmt: skip

RECORD_KEYS = {"completions": ("response", "overall_score"), "answers": ("answer", "rank")}  # that are read of each


def reader_of_ranked(rows: Sequence[Row]) -> Reader | None:
    """The reader that fits most of these rows; None where there is none."""
    readers = Counter(reader for row in rows for reader, fits in _READERS.items() if fits(row))
    return next((reader for reader, n in readers.most_common(1) if 2 * n > len(rows)), None)


def _read_completions(row: Row) -> Parts:
    """UltraFeedback's records, or texts and messages with a list of scores or ranks."""
    completions = _list(row, "completions")
    if all(isinstance(completion, Mapping) and "response" in completion for completion in completions):
        return _records(row, "completions", sign=1)
    name, sign = ("scores", 1) if is_filled(row.get("scores")) else ("ranks", -1)
    scores = _list(row, name)
    if len(scores) != len(completions):
        detail = f"{len(completions)} in 'completions' and {len(scores)} in '{name}'"
        raise RowFaultError(Reason.UNREADABLE, detail)
    responses = tuple(response_of({"completions": value}, "completions") for value in completions)
    return Parts(read_prompt(row), responses, scores=tuple(sign * _score(score) for score in scores))


def _read_answers(row: Row) -> Parts:
    return _records(row, "answers", sign=-1)


def _read_lists(row: Row) -> Parts:
    sides = [[response_of({side: text}, side) for text in _list(row, side)] for side in ("chosen", "rejected")]
    scores = [1.0] * len(sides[0]) + [0.0] * len(sides[1])
    return Parts(read_prompt(row), tuple(sides[0] + sides[1]), scores=tuple(scores))


def _read_helpsteer(row: Row) -> Parts:
    return Parts(read_prompt(row), (response_of(row, "response"),), scores=(_score(row.get("helpfulness")),))


def _read_scored(row: Row) -> Parts:
    return Parts(read_prompt(row), (response_of(row, "completion"),), scores=(_score(row.get("score")),))


def _records(row: Row, column: str, *, sign: int) -> Parts:
    text, score = RECORD_KEYS[column]
    entries = [entry for entry in _list(row, column) if isinstance(entry, Mapping)]
    responses = tuple(response_of({column: entry.get(text)}, column) for entry in entries)
    return Parts(read_prompt(row), responses, scores=tuple(sign * _score(entry.get(score)) for entry in entries))


def _list(row: Row, column: str) -> list[object]:
    value = row.get(column)
    if not isinstance(value, list):
        raise RowFaultError(Reason.UNREADABLE, f"'{column}' is no list")
    return value


def _score(value: object) -> float:
    """NaN where there is none ("N/A" and the like, or one without an end)."""
    try:
        score = float(value) if isinstance(value, int | float | str) else math.nan
    except ValueError:
        return math.nan
    return score if math.isfinite(score) else math.nan


def _texts(row: Row, *columns: str) -> bool:
    cells = [row.get(column) for column in columns]
    return all(isinstance(cell, list) and cell and all(isinstance(text, str) for text in cell) for cell in cells)


def _has(*columns: str) -> Callable[[Row], bool]:
    return lambda row: all(is_filled(row.get(column)) for column in columns)


_READERS: dict[Reader, Callable[[Row], bool]] = {
    _read_completions: lambda row: isinstance(row.get("completions"), list) and not is_filled(row.get("chosen")),
    _read_answers: lambda row: isinstance(row.get("answers"), list) and not is_filled(row.get("chosen")),
    _read_lists: lambda row: _texts(row, "chosen", "rejected"),
    _read_helpsteer: _has("prompt", "response", "helpfulness"),
    _read_scored: _has("completion", "score"),
}


# --- the pairs that they make ----------------------------------------------------------------------------------------


@dataclass(slots=True)
class RankedCounts:
    """What became of the rows so far. `ties`: pairs that the rule would have made of scores that are equal, or nearer
    than the least gap; `two_scores`: responses that one row scores twice, differently."""

    rows: int = 0
    pairs: int = 0
    ties: int = 0
    no_score: int = 0
    two_scores: int = 0
    first_two_scores: str = ""

    def clear(self) -> None:
        """Before the rows are read again."""
        self.rows = self.pairs = self.ties = self.no_score = self.two_scores = 0
        self.first_two_scores = ""

    def notes(self, rule: Rule) -> list[str]:
        """A sentence each; none where no row was of this kind."""
        if not self.rows:
            return []
        made = f"with scored responses made {_count(self.pairs, 'pair')} ({rule}); {_count(self.ties, 'tie')}"
        notes = [f"{_count(self.rows, 'prompt')} {made}"]
        if self.two_scores:
            first = f"(first: {self.first_two_scores})"
            many = _count(self.two_scores, "response")
            notes.append(f"{many} with two scores that contradict each other {first}: left out")
        if self.no_score:
            notes.append(f"{_count(self.no_score, 'response')} without a score: left out")
        return notes


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


@dataclass(frozen=True, slots=True)
class PairMaker:
    """Makes the pairs of ranked rows, and counts."""

    rule: Rule
    least_gap: float = 0.0
    counts: RankedCounts = field(default_factory=RankedCounts)

    def pairs(self, record: Ranked) -> Iterator[Pair | RowProblem]:
        """Those of one row, or the reason why there is none."""
        self.counts.rows += 1
        scores = self._clear_scores(record)
        places = list(scores)
        if len(scores) < 2:
            detail = f"{_count(len(record.responses), 'response')}, of which {len(scores)} can be compared"
            yield RowProblem(record.id, Reason.ONE_RESPONSE, detail)
            return
        rule_pairs = pairs_by_rule(list(scores.values()), rule=self.rule, least_gap=self.least_gap)
        self.counts.ties += rule_pairs.n_ties
        self.counts.pairs += len(rule_pairs.places)
        if not rule_pairs.places:
            same = len(set(scores.values())) == 1
            detail = f"all {len(scores)} scores are equal" if same else f"no two scores are {self.least_gap:g} apart"
            yield RowProblem(record.id, Reason.NO_PREFERENCE, detail)
        for better, worse in rule_pairs.places:
            yield _pair(record, places[better], places[worse])

    def _clear_scores(self, record: Ranked) -> dict[int, float]:
        """Place → score, of each text once, where its score is known."""
        by_text: dict[str, dict[int, float]] = {}
        for place, (response, score) in enumerate(zip(record.responses, record.scores, strict=True)):
            if math.isnan(score):
                self.counts.no_score += 1
            else:
                by_text.setdefault(response.text.strip(), {})[place] = score
        clear: dict[int, float] = {}
        for scores in by_text.values():
            if len(set(scores.values())) > 1:
                self.counts.two_scores += 1
                self.counts.first_two_scores = self.counts.first_two_scores or record.id
                continue
            place, score = next(iter(scores.items()))
            clear[place] = score
        return clear


def _pair(record: Ranked, better: int, worse: int) -> Pair:
    """Named after its row and the places of its responses, from 1."""
    chosen, rejected = record.responses[better], record.responses[worse]
    return Pair(
        f"{record.id}/{better + 1}-{worse + 1}",
        record.prompt,
        chosen.content,
        rejected.content,
        plain=record.plain,
        meta=record.meta,
        chosen_extras=chosen.extras,
        rejected_extras=rejected.extras,
        template_arguments=record.template_arguments,
        score_gap=record.scores[better] - record.scores[worse],
    )


def gather(records: Iterable[Pair | Unpaired | Ranked | RowProblem]) -> Iterator[Pair | Unpaired | Ranked | RowProblem]:
    """Rows of one scored response each, those of a prompt that stand behind each other made one."""
    group: Ranked | None = None
    for record in records:
        if group is not None and is_single(record) and _same_prompt(group, record):
            group = _joined(group, record)
            continue
        if group is not None:
            yield group
        group = record if is_single(record) else None
        if group is None:
            yield record
    if group is not None:
        yield group


def group_starts(records: Iterable[Pair | Unpaired | Ranked | RowProblem]) -> list[int]:
    """Places, from 0, of the records at which `gather` begins anew."""
    starts: list[int] = []
    previous: Pair | Unpaired | Ranked | RowProblem | None = None
    for place, record in enumerate(records):
        if not (is_single(previous) and is_single(record) and _same_prompt(previous, record)):
            starts.append(place)
        previous = record
    return starts


def is_single(record: object) -> TypeGuard[Ranked]:
    """Whether a row has one scored response, to be compared with those of other rows."""
    return isinstance(record, Ranked) and len(record.responses) == 1


def _same_prompt(a: Ranked, b: Ranked) -> bool:
    return (a.prompt, a.template_arguments) == (b.prompt, b.template_arguments)


def _joined(group: Ranked, record: Ranked) -> Ranked:
    """`rows.jsonl:3` and its follower are `rows.jsonl:3..4`."""
    first, last = group.id.partition("..")[0], record.id.rpartition(":")[2]
    responses: tuple[Message, ...] = group.responses + record.responses
    return replace(group, id=f"{first}..{last}", responses=responses, scores=group.scores + record.scores)
