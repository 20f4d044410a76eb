"""Win rates from anyone's judgments of pairs, and means from anyone's marks."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.analysis.summary import summarise
from trimtab.commands import mean_marks
from trimtab.commands.missing import require_judged
from trimtab.errors import ConfigError, DataError
from trimtab.judging import official
from trimtab.judging.annotations import read_annotations, read_difficulty, read_gamed
from trimtab.judging.files import read_objects
from trimtab.judging.official_texts import Source
from trimtab.records import Verdict

BOOTSTRAPS = 400
KINDS = ("alpaca_eval", "mt_bench")
DATASETS = frozenset({"selfinstruct", "oasst", "koala", "helpful_base", "vicuna"})  # of AlpacaEval
N_INSTRUCTIONS = 805
FIRST_BASELINE = "text_davinci_003"  # of AlpacaEval 1


@dataclass(frozen=True, slots=True)
class Tables:
    """What length control needs beside the verdicts, and what is to be said of it. None where it cannot be had."""

    difficulty: Sequence[float] | None = None
    gamed: Mapping[str, Sequence[float]] | None = None
    instructions: Sequence[str] | None = None
    notes: tuple[str, ...] = ()


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
) -> dict[str, Any]:
    """Everything known about one file of judgments: `analysis.summary.summarise`, or `mean_marks.main` for mt_bench.

    `difficulty` and `gamed` win over the official tables, which are looked for in `benchmark_dir`, the cache, and,
    unless `offline`, at their source. Raises RunError when more than 1 % is missing and that was not allowed.
    """
    path = Path(file)
    _require_kind(path, kind)
    if kind == "mt_bench":
        _refuse(kind, difficulty=difficulty, gamed=gamed, benchmark_dir=benchmark_dir)
        return mean_marks.main(file, questions=questions, allow_missing=allow_missing)
    _refuse(kind, questions=questions)
    found = read_annotations(path)
    n_absent = absent(found.verdicts)
    unjudged = sum(v.preference is None for v in found.verdicts)
    require_judged(file, n=len(found.verdicts) + n_absent, n_missing=unjudged + n_absent, allowed=allow_missing)
    tables = _tables(found.verdicts, difficulty, gamed, _source(benchmark_dir, offline=offline))
    told = summarise(
        found.verdicts,
        difficulty=tables.difficulty,
        gamed=tables.gamed,
        instructions=tables.instructions,
        n_boot=BOOTSTRAPS,
    )
    told["lc_notes"] += tables.notes
    told["n_missing"] += n_absent
    return {"file": file, "kind": kind, "n_repeated": found.n_repeated, "n_absent": n_absent} | told


def lines(told: dict[str, Any]) -> list[str]:
    """The numbers for a terminal; what could not be estimated is said to be so, and why is in the notes."""
    if told["kind"] == "mt_bench":
        return mean_marks.lines(told)
    absent = f" ({told['n_absent']} have no row)" if told["n_absent"] else ""
    judges = ", ".join(name or "an unnamed judge" for name in told["annotators"])
    return [
        *(f"WARNING: {warning}" for warning in told["warnings"]),
        f"{told['file']}: {told['model']} against {told['baseline']}, judged by {judges}",
        f"raw win rate       {_rate(told['win_rate'], told['ci95'])}; "
        f"standard error {_figure(told['standard_error'])}; "
        f"{told['n_total']} judged, {told['n_missing']} missing{absent}",
        f"length-controlled  {_rate(told['length_controlled_winrate'], told['lc_ci95'])}; {told['lc_variant']}"
        + ("" if told["lc_c"] is None else f", C = {told['lc_c']:.4g}"),
        *([f"LC near that C     {_near(told['lc_neighbours'])}"] if told["lc_neighbours"] else []),
        f"average length     {told['avg_length']} characters",
        *_breakdown("by data set", [(row["dataset"], row) for row in told["by_dataset"]]),
        *_breakdown(
            "by length, characters more than the baseline", [(_gap(row), row) for row in told["by_length_gap"]]
        ),
        *(f"note: {note}" for note in told["lc_notes"]),
    ]


def is_alpaca_eval(verdicts: Sequence[Verdict]) -> bool:
    """Whether the rows say that they are about AlpacaEval's instructions."""
    return {v.dataset for v in verdicts} <= DATASETS


def absent(verdicts: Sequence[Verdict]) -> int:
    """How many of AlpacaEval's instructions have no row at all, where the rows stand for all of its data sets."""
    instructions = {v.instruction for v in verdicts}
    whole = {v.dataset for v in verdicts} == DATASETS
    return max(0, N_INSTRUCTIONS - len(instructions)) if whole else 0


def _tables(verdicts: Sequence[Verdict], difficulty: str | None, gamed: str | None, source: Source) -> Tables:
    told = Tables(
        difficulty=read_difficulty(Path(difficulty)) if difficulty else None,
        gamed=read_gamed(Path(gamed)) if gamed else None,
    )
    if (difficulty and gamed) or not is_alpaca_eval(verdicts) or len(verdicts) > N_INSTRUCTIONS:
        return told
    name: official.Name = "alpaca_eval_1" if verdicts[0].generator_1 == FIRST_BASELINE else "alpaca_eval"
    try:
        found = official.length_tables(name, source=source)
    except DataError as error:
        if source.folder is not None:  # the user's own words
            raise
        found = official.LengthTables(None, None, notes=(f"{error.message}; length control does without it",))
    notes, instructions = found.notes, None
    if told.difficulty is None and found.difficulty is not None and len(verdicts) < len(found.difficulty):
        instructions, why = _instructions(verdicts, name, source)
        notes += why
    return Tables(
        difficulty=told.difficulty or found.difficulty,
        gamed=told.gamed or found.gamed,
        instructions=instructions,
        notes=notes,
    )


def _instructions(
    verdicts: Sequence[Verdict], name: official.Name, source: Source
) -> tuple[list[str] | None, tuple[str, ...]]:
    """The official order of the instructions, by which rows of which some are missing find their difficulty."""
    try:
        known = [prompt.instruction for prompt in official.benchmark(name, source=source).prompts]
    except DataError as error:
        return None, (f"the official order of the instructions is not known: {error.message}",)
    return (known, ()) if {v.instruction for v in verdicts} <= set(known) else (None, ())


def _source(benchmark_dir: str | None, *, offline: bool) -> Source:
    told = os.environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"}
    return Source(folder=None if benchmark_dir is None else Path(benchmark_dir), offline=offline or told)


def _require_kind(path: Path, kind: str) -> None:
    """Raises ConfigError for an unknown kind, or one that the first row shows to be the other."""
    if kind not in KINDS:
        raise ConfigError(f"no judgments of kind {kind!r}", remedy=f"give --kind {' or '.join(KINDS)}")
    found = kind_of(path)
    if found is not None and found != kind:
        what = {"mt_bench": "FastChat's marks of single answers", "alpaca_eval": "AlpacaEval's annotations"}[found]
        raise ConfigError(f"{path} holds {what}", remedy=f"read it with --kind {found}")


def kind_of(path: Path) -> str | None:
    """What the first row shows the file to be; None when it shows neither."""
    row = read_objects(path)[0][1]
    if "question_id" in row and "score" in row:
        return "mt_bench"
    return "alpaca_eval" if "output_1" in row and "instruction" in row else None


def _refuse(kind: str, **flags: str | None) -> None:
    for name, value in flags.items():
        if value is not None:
            flag = f"--{name.replace('_', '-')}"
            raise ConfigError(f"{flag} has no use with --kind {kind}", remedy=f"leave {flag} out")


def _breakdown(title: str, rows: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    width = max((len(name) for name, _ in rows), default=0)
    return [f"{title}:"] * bool(rows) + [
        f"  {name:>{width}}  {_rate(row['win_rate'], row['ci95'])}; {row['n_total']} judged" for name, row in rows
    ]


def _gap(row: Mapping[str, Any]) -> str:
    low, high = row["gap"]
    return f"{low:+d} to {high:+d}"


def _near(rates: Mapping[str, float]) -> str:
    return ", ".join(f"C = {c}: {rate:.2f} %" for c, rate in rates.items())


def _rate(value: float | None, ci95: Sequence[float | None]) -> str:
    if value is None:
        return "not estimated"
    return f"{value:.2f} % (95 % CI {_figure(ci95[0])} to {_figure(ci95[1])})"


def _figure(value: float | None) -> str:
    return "not estimated" if value is None else f"{value:.2f}"
