"""`trimtab winrate FILE`."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from trimtab.analysis.summary import summarise
from trimtab.errors import ConfigError
from trimtab.judging.annotations import read_annotations
from trimtab.judging.mt_bench import read_marks
from trimtab.studies.winrate.numbers import Numbers, WinRateNumbers, mark_numbers
from trimtab.studies.winrate.read import Kind, absent, kind_of, require_judged, source_of, tables_of


def main(
    file: str,
    *,
    kind: str = "alpaca_eval",
    difficulty: str | None = None,
    gamed: str | None = None,
    questions: str | None = None,
    benchmark_dir: str | None = None,
    allow_missing: bool = False,
    offline: bool = False,
) -> Numbers:
    """Everything known about one file of judgments.

    `difficulty` and `gamed` win over the official tables, which are looked for in `benchmark_dir`, the cache, and,
    unless `offline`, at their source. Raises RunError when more than 1 % is missing and that was not allowed.
    """
    path = Path(file)
    _require_kind(path, kind)
    if kind == "mt_bench":
        _refuse(kind, difficulty=difficulty, gamed=gamed, benchmark_dir=benchmark_dir)
        return mark_numbers(file, read_marks(path), questions=questions, allow_missing=allow_missing)
    _refuse(kind, questions=questions)
    annotations = read_annotations(path)
    verdicts = annotations.verdicts
    n_absent, n_unjudged = absent(verdicts), sum(v.preference is None for v in verdicts)
    require_judged(file, n=len(verdicts) + n_absent, n_missing=n_unjudged + n_absent, allow_missing=allow_missing)
    tables = tables_of(verdicts, difficulty, gamed, source_of(benchmark_dir, offline=offline))
    summary = summarise(
        verdicts,
        difficulty=tables.difficulty,
        regularisers=tables.regularisers,
        instructions=tables.instructions,
    )
    return WinRateNumbers(
        file=file,
        summary=summary,
        n_repeated=annotations.n_repeated,
        n_absent=n_absent,
        n_missing=summary.raw.n_missing + n_absent,
        table_notes=tables.notes,
    )


def _require_kind(path: Path, kind: str) -> None:
    """Raises ConfigError for an unknown kind, or one that the first row shows to be the other."""
    if kind not in get_args(Kind):
        raise ConfigError(f"no judgments of kind {kind!r}", remedy=f"give --kind {' or '.join(get_args(Kind))}")
    actual = kind_of(path)
    if actual is not None and actual != kind:
        content = {"mt_bench": "FastChat's marks of single answers", "alpaca_eval": "AlpacaEval's annotations"}[actual]
        raise ConfigError(f"{path} holds {content}", remedy=f"read it with --kind {actual}")


def _refuse(kind: str, **flags: str | None) -> None:
    """Raises ConfigError for a flag of the other kind."""
    for name, value in flags.items():
        if value is not None:
            flag = f"--{name.replace('_', '-')}"
            raise ConfigError(f"{flag} has no use with --kind {kind}", remedy=f"leave {flag} out")
