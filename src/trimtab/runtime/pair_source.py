"""Where a run's rows come from: its sources as records or problems, and the set that is held out of training.

An objective reads pairs, or single responses with a label. Pairs are read as the latter too, two rows each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path

from trimtab.config import DataSection
from trimtab.data.formats import Format, detect_format
from trimtab.data.mixture import open_sources, read_mixture
from trimtab.data.pair_rules import Rule
from trimtab.data.problems import RowProblem
from trimtab.data.ranked import PairMaker, gather, group_starts, is_single
from trimtab.data.sources import Rows, read_rows
from trimtab.errors import ConfigError, DataError
from trimtab.objectives import Objective
from trimtab.records import Pair, Ranked, Unpaired, digest

Outcome = Pair | Unpaired | RowProblem


@dataclass(frozen=True, slots=True)
class PairSource:
    """Rows as records or problems, from the first again each time; `total` is their number where that is known.

    `names`: of the sources, as they stand in row ids; `format`: how their rows were read, in words.
    """

    outcomes: Callable[[], Iterator[Outcome]]
    total: int | None
    names: tuple[str, ...] = ()
    format: str = ""
    notes: Callable[[], list[str]] = list
    """What was left out of the rows so far, a sentence each."""
    n_read: Callable[[], int | None] = lambda: None
    """Rows of the sources that were read so far; None where these are no rows of files."""


def mixture(
    data: DataSection, *, limit: int | None = None, offline: bool, rule: Rule | None = None
) -> tuple[Rows, ...]:
    """The rows of every source, at most `limit` of those that the configuration means.

    `rule`: by which ranked rows will be made pairs, of which the weights are shares; None where they stay rows.
    """
    limit = min((n for n in (limit, data.limit) if n is not None), default=None)
    return read_mixture(
        data.sources,
        split=_split(data),
        limit=limit,
        seed=data.draw_seed,
        offline=offline,
        pairs_of_row=None if rule is None else partial(_pairs_of_row, data=data, rule=rule),
    )


def _pairs_of_row(rows: Rows, *, data: DataSection, rule: Rule) -> Fraction:
    """How many pairs a row of a source makes on average. Ranked rows are all read for it; a bad row of pairs counts."""
    if detect_format(rows.head, source=rows.source, columns=data.columns).name != "ranked":
        return Fraction(1)
    n_pairs = sum(isinstance(outcome, Pair) for outcome in pair_source([rows], data, rule=rule).outcomes())
    return Fraction(n_pairs, rows.size) if n_pairs else Fraction(1)


def evaluation_rows(data: DataSection, *, offline: bool) -> Rows | None:
    """The rows of `data.eval`; None without it. Raises DataError where these rows are trained on, too."""
    if data.eval is None or data.eval_label is None:
        return None
    rows = read_rows(data.eval, split=data.eval_split, split_key="data.eval_split", offline=offline)
    if data.eval in data.sources and data.eval_split in (None, data.split):
        raise DataError(
            f"{data.eval_label} is trained on and held out at once",
            remedy="leave data.eval out: data.holdout sets some aside",
        )
    names = {Path(source).name for source in data.sources if source != data.eval}
    return rows.named(data.eval_label) if Path(data.eval).name in names else rows


@dataclass(frozen=True, slots=True)
class RowDigests:
    """sha256 of all rows that a run may read: of each source, and of the held-out set, None without one."""

    sources: tuple[str, ...]
    evaluation: str | None

    @property
    def digest(self) -> str:
        """Names them all."""
        if self.evaluation is None and len(self.sources) == 1:
            return self.sources[0]
        return digest([self.sources, self.evaluation])


def row_digests(data: DataSection, *, offline: bool) -> RowDigests:
    """Of the rows as they are now. Raises DataError where a source cannot be read."""
    sources = tuple(rows.digest for rows in open_sources(data.sources, split=_split(data), offline=offline))
    rows = evaluation_rows(data, offline=offline)
    return RowDigests(sources, None if rows is None else rows.digest)


def pair_source(mixture: Sequence[Rows], data: DataSection, *, rule: Rule = "all") -> PairSource:
    """Each source in its own format. Ranked rows are made pairs by `data.pairs`, by `rule` where that is not set."""
    formats = [detect_format(rows.head, source=rows.source, columns=data.columns) for rows in mixture]
    mixture = [_whole_prompts(rows, shape) for rows, shape in zip(mixture, formats, strict=True)]
    is_ranked = any(shape.name == "ranked" for shape in formats)
    maker = PairMaker(data.pairs or rule, data.least_gap or 0.0)
    n_read = 0

    def records(rows: Rows, shape: Format) -> Iterator[Pair | Unpaired | Ranked | RowProblem]:
        nonlocal n_read
        for row_id, row in rows:
            n_read += 1
            yield shape.to_record(row_id, row)

    def outcomes() -> Iterator[Outcome]:
        nonlocal n_read
        n_read = 0
        maker.counts.clear()
        for rows, shape in zip(mixture, formats, strict=True):
            for record in gather(records(rows, shape)):
                if isinstance(record, Ranked):
                    yield from maker.pairs(record)
                else:
                    yield record

    totals = [None if is_ranked else rows.total for rows in mixture]
    return PairSource(
        outcomes,
        None if None in totals else sum(total or 0 for total in totals),
        tuple(rows.name for rows in mixture),
        ", ".join(dict.fromkeys(shape.name for shape in formats)),
        lambda: [*dict.fromkeys(note for shape in formats for note in shape.notes), *maker.counts.notes(maker.rule)],
        lambda: n_read,
    )


def _whole_prompts(rows: Rows, shape: Format) -> Rows:
    """The rows that a limit leaves, of no prompt but a part. Where each row has one of several responses to its prompt,
    the whole source is read for it."""
    reader = replace(shape, unread_columns={})
    if rows.limit is None or not any(is_single(reader.to_record("", row)) for row in rows.head):
        return rows
    return rows.grouped(group_starts(reader.to_record(row_id, row) for row_id, row in replace(rows, limit=None)))


def refuse_idle(data: DataSection, source: PairSource) -> None:
    """Raises ConfigError where a key of ranked rows is set and these sources have none."""
    for key in ("pairs", "least_gap"):
        if getattr(data, key) is not None and "ranked" not in source.format:
            raise ConfigError(
                f"data.{key} has no effect here: no source has several scored responses to a prompt",
                remedy=f"leave data.{key} out",
            )


def read_for(objective: Objective, source: PairSource) -> PairSource:
    """The rows as the objective reads them; a single response where pairs are wanted raises DataError, and so does one
    without a label where labels are, or one that is labelled bad where responses are imitated."""

    def outcomes() -> Iterator[Outcome]:
        for outcome in source.outcomes():
            if isinstance(outcome, Unpaired) and objective.imitates:
                yield _demonstration(outcome, objective)
            elif isinstance(outcome, Unpaired) and "demonstrations" in source.format:
                raise DataError(
                    f"{outcome.id} is a response without a label or another one to compare it with, and "
                    f"{objective.name} learns from preferences",
                    remedy="write --objective sft to imitate such rows, or bring pairs or labels",
                )
            elif objective.is_unpaired and isinstance(outcome, Pair):
                yield from Unpaired.of_pair(outcome)
            elif isinstance(outcome, Unpaired) and not objective.is_unpaired:
                raise DataError(
                    f"{outcome.id} is a single response with a label, and {objective.name} reads pairs",
                    remedy="choose an objective for such rows: --objective apo_hinge_zero_unpaired, "
                    "apo_zero_unpaired or kto",
                )
            elif objective.needs_score_gaps and isinstance(outcome, Pair) and outcome.score_gap is None:
                raise DataError(
                    f"{outcome.id} has no scores, and {objective.name} reads how far they lie apart",
                    remedy="bring columns score_chosen and score_rejected, or ranked rows with scores; or choose dpo",
                )
            else:
                yield outcome

    return replace(source, outcomes=outcomes)


def _demonstration(row: Unpaired, objective: Objective) -> Unpaired:
    if row.label:
        return row
    raise DataError(
        f"{row.id} is labelled as a bad response, and {objective.name} imitates every row",
        remedy="leave such rows out, or choose an objective for labels: --objective apo_hinge_zero_unpaired",
    )


def _split(data: DataSection) -> str | None:
    """The split to read of what has splits. Raises ConfigError where none has."""
    files = [source for source in data.sources if Path(source).is_file()]
    if len(files) < len(data.sources):
        return data.split
    if data.split != "train":
        raise ConfigError(f"{files[0]} is one file: it has no split {data.split!r}", remedy="leave data.split out")
    return None
