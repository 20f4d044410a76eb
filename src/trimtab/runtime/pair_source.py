"""Where a run's pairs come from: its sources as pairs or problems, and the set that is held out of training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from trimtab.config import DataSection
from trimtab.data.formats import detect_format
from trimtab.data.mixture import read_mixture
from trimtab.data.problems import RowProblem
from trimtab.data.sources import Rows, read_rows
from trimtab.errors import ConfigError, DataError
from trimtab.records import Pair, digest


@dataclass(frozen=True, slots=True)
class PairSource:
    """Rows as pairs or problems, from the first again each time; `total` is their number where that is known.

    `names`: of the sources, as they stand in row ids; `format`: how their rows were read, in words.
    """

    outcomes: Callable[[], Iterator[Pair | RowProblem]]
    total: int | None
    names: tuple[str, ...] = ()
    format: str = ""
    notes: Callable[[], list[str]] = list
    """What was left out of the rows so far, a sentence each."""


def mixture(data: DataSection, *, limit: int | None = None, offline: bool) -> tuple[Rows, ...]:
    """The rows of every source, at most `limit` of those that the configuration means."""
    limit = min((n for n in (limit, data.limit) if n is not None), default=None)
    return read_mixture(data.sources, split=_split(data), limit=limit, seed=data.draw_seed, offline=offline)


def evaluation_rows(data: DataSection, *, offline: bool) -> Rows | None:
    """The rows of `data.eval`; None without it. Raises DataError where the pairs come from the same file."""
    if data.eval is None:
        return None
    if data.eval in data.sources:
        raise DataError(
            f"{data.eval} is trained on and held out at once",
            remedy="leave data.eval out: data.holdout sets some aside",
        )
    rows = read_rows(data.eval, offline=offline)
    names = {Path(source).name for source in data.sources}
    return rows.named(rows.source) if Path(data.eval).name in names else rows


def digest_of(data: DataSection, *, offline: bool) -> str:
    """Names all rows that a run may read."""
    digests = [rows.digest for rows in mixture(data, offline=offline)]
    held = evaluation_rows(data, offline=offline)
    if held is None and len(digests) == 1:
        return digests[0]
    return digest([digests, None if held is None else held.digest])


def pair_source(mixture: Sequence[Rows], *, columns: dict[str, str] | None) -> PairSource:
    """Each source in its own format."""
    formats = [detect_format(rows.head, source=rows.source, columns=columns) for rows in mixture]

    def outcomes() -> Iterator[Pair | RowProblem]:
        for rows, shape in zip(mixture, formats, strict=True):
            yield from (shape.to_pair(row_id, row) for row_id, row in rows)

    totals = [rows.total for rows in mixture]
    return PairSource(
        outcomes,
        None if None in totals else sum(total or 0 for total in totals),
        tuple(rows.name for rows in mixture),
        ", ".join(dict.fromkeys(shape.name for shape in formats)),
        lambda: list(dict.fromkeys(note for shape in formats for note in shape.notes)),
    )


def _split(data: DataSection) -> str | None:
    """The split to read of what has splits. Raises ConfigError where none has."""
    files = [source for source in data.sources if Path(source).is_file()]
    if len(files) < len(data.sources):
        return data.split
    if data.split != "train":
        raise ConfigError(f"{files[0]} is one file: it has no split {data.split!r}", remedy="leave data.split out")
    return None
