"""Several sources as one: how many rows of each, which rows, and under which names."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from trimtab.data.sources import Rows, read_rows
from trimtab.errors import DataError


def open_sources(sources: Mapping[str, float | None], *, split: str | None = None, offline: bool = False) -> list[Rows]:
    """All rows of each source (see `read_rows`), in the order given, under names of their own. `split` is of Hub and
    saved sets; files have none. Raises DataError where a source cannot be read."""
    names = Counter(Path(source).name for source in sources)
    opened: list[Rows] = []
    for source in sources:
        rows = read_rows(source, split=None if Path(source).is_file() else split, offline=offline)
        opened.append(rows if names[Path(source).name] == 1 else rows.named(rows.source))
    return opened


def read_mixture(
    sources: Mapping[str, float | None],
    *,
    split: str | None = None,
    limit: int | None = None,
    seed: int | None = None,
    offline: bool = False,
    pairs_of_row: Callable[[Rows], Fraction] | None = None,
) -> tuple[Rows, ...]:
    """The rows of each source (see `open_sources`), as many as the configuration means.

    `sources`: names with their weights, all of them None or none: without weights every row of every source counts,
    with them `row_counts` says how many. They are shares of the pairs that `pairs_of_row` says a row of a source makes
    on average; without it, of rows. `limit` is of all rows together, drawn with `seed`, or the first of each source
    where that is None. Raises DataError where a source cannot be read, or would give no row.
    """
    opened = open_sources(sources, split=split, offline=offline)
    weights = [Fraction(repr(weight)) for weight in sources.values() if weight is not None]
    if len(opened) == 1:
        counts: list[int | None] = [limit]
    elif limit is None and not weights:
        return tuple(opened)
    else:
        opened = [replace(rows, known_size=rows.size) for rows in opened]  # counted once
        if weights and pairs_of_row is not None:
            weights = [weight / pairs_of_row(rows) for weight, rows in zip(weights, opened, strict=True)]
        counts = [*row_counts([rows.size for rows in opened], weights or None, limit=limit)]
    for source, count in zip(sources, counts, strict=True):
        if count == 0:
            raise DataError(
                f"{source} would give no row at these weights",
                remedy="raise its weight, or data.limit, or leave it out",
            )
    return tuple(rows.limited(count, seed=seed) for rows, count in zip(opened, counts, strict=True))


def row_counts(sizes: Sequence[int], weights: Sequence[Fraction] | None, *, limit: int | None) -> list[int]:
    """Rows of each source: as many in all as `limit` and the sizes allow while their shares are those of the weights,
    no row twice. Without weights a source's weight is its size. Fractions go to the largest remainders."""
    exact = weights or [Fraction(size) for size in sizes]
    whole = sum(exact)
    total = min(math.floor(size * whole / weight) for size, weight in zip(sizes, exact, strict=True))
    total = total if limit is None else min(total, limit)
    quotas = [total * weight / whole for weight in exact]
    counts = [math.floor(quota) for quota in quotas]
    by_remainder = sorted(range(len(quotas)), key=lambda place: counts[place] - quotas[place])
    for place in by_remainder[: total - sum(counts)]:
        counts[place] += 1
    return [min(count, size) for count, size in zip(counts, sizes, strict=True)]
