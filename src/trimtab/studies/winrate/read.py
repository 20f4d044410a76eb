"""A file of judgments and what belongs to it: its kind, the rows that are not there, the tables of length control."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from trimtab.analysis.winrate import too_many_missing
from trimtab.errors import DataError, RunError
from trimtab.judging import official
from trimtab.judging.annotations import read_difficulty, read_gamed
from trimtab.judging.files import read_objects
from trimtab.judging.official_texts import Source
from trimtab.records import Verdict, digest

Kind = Literal["alpaca_eval", "mt_bench"]
DATASETS = frozenset({"selfinstruct", "oasst", "koala", "helpful_base", "vicuna"})  # of AlpacaEval
N_INSTRUCTIONS = 805  # of AlpacaEval
OFFICIAL_ORDER = "d02007bfbcc8fcf624c641e8b70d53e82f7d0c061d12cf1b5695357e0d0090ce"  # digest of the 805 instructions
NOT_ITS_INSTRUCTIONS = (
    "some rows are about instructions that AlpacaEval does not have; length control does without difficulties"
)
FIRST_BASELINE = "text_davinci_003"  # of AlpacaEval 1


@dataclass(frozen=True, slots=True)
class Tables:
    """What length control needs beside the verdicts, and what is to be said of it. None where it cannot be had."""

    difficulty: Sequence[float] | None = None
    regularisers: Mapping[str, Sequence[float]] | None = None
    instructions: Sequence[str] | None = None
    notes: tuple[str, ...] = ()


def kind_of(path: Path) -> Kind | None:
    """What the first row shows the file to be; None when it shows neither."""
    row = read_objects(path)[0][1]
    if "question_id" in row and "score" in row:
        return "mt_bench"
    return "alpaca_eval" if "output_1" in row and "instruction" in row else None


def absent(verdicts: Sequence[Verdict]) -> int:
    """How many of AlpacaEval's instructions have no row at all, where the rows stand for all of its data sets."""
    instructions = {v.instruction for v in verdicts}
    whole = {v.dataset for v in verdicts} == DATASETS
    return max(0, N_INSTRUCTIONS - len(instructions)) if whole else 0


def require_judged(subject: str, *, n: int, n_missing: int, allow_missing: bool) -> None:
    """Raises RunError when more than 1 % of `n` is missing, unless that is allowed. What is missing is never a loss."""
    if too_many_missing(n_missing, of=n) and not allow_missing:
        raise RunError(
            f"{subject}: {n_missing} of {n} verdicts are missing ({100 * n_missing / n:.1f} %, more than 1 %), "
            "so no number is given",
            remedy="judge the missing ones, or leave them out knowingly: --allow-missing",
        )


def tables_of(verdicts: Sequence[Verdict], difficulty: str | None, regularisers: str | None, source: Source) -> Tables:
    """The user's own tables first, the official ones of AlpacaEval for its rows; no note on a table that is not used.

    Raises DataError where the user named a folder in which they should be and are not, and for a difficulty file whose
    rows cannot be joined.
    """
    own = Tables(
        difficulty=read_difficulty(Path(difficulty)) if difficulty else None,
        regularisers=read_gamed(Path(regularisers)) if regularisers else None,
    )
    if not {v.dataset for v in verdicts} <= DATASETS or len(verdicts) > N_INSTRUCTIONS:
        return own
    name: official.Name = "alpaca_eval_1" if verdicts[0].generator_1 == FIRST_BASELINE else "alpaca_eval"
    own_texts = [text for text, path in ((official.DIFFICULTY, difficulty), (official.GAMED, regularisers)) if path]
    try:
        official_tables = official.length_tables(name, source=source, without=own_texts)
    except DataError as error:
        if source.folder is not None:  # the user's own words
            raise
        official_tables = official.LengthTables(None, None, notes=(f"{error.message}; length control does without it",))
    tables = Tables(
        difficulty=own.difficulty or official_tables.difficulty,
        regularisers=own.regularisers or official_tables.gamed,
        notes=official_tables.notes,
    )
    return (
        tables if tables.difficulty is None else _joined_by_text(tables, verdicts, name, source, own=bool(difficulty))
    )


def _joined_by_text(
    tables: Tables, verdicts: Sequence[Verdict], name: official.Name, source: Source, *, own: bool
) -> Tables:
    """With the official instructions, by which rows in any order find their difficulty."""
    instructions = [v.instruction for v in verdicts]
    if digest(instructions) == OFFICIAL_ORDER:
        return replace(tables, instructions=instructions)
    try:
        official_order = [prompt.instruction for prompt in official.benchmark(name, source=source).prompts]
    except DataError as error:
        reason = f"the rows are not AlpacaEval's {N_INSTRUCTIONS} in its order, by which difficulties are joined, and "
        if own:
            raise DataError(
                f"{reason}its instructions cannot be had: {error.message}",
                remedy="name a folder that holds them with --benchmark-dir, or leave --difficulty out",
            ) from error
        note = f"{reason}its instructions cannot be had: {error.message}; length control does without difficulties"
        return replace(tables, difficulty=None, notes=(*tables.notes, note))
    if set(instructions) <= set(official_order):
        return replace(tables, instructions=official_order)
    return tables if own else replace(tables, difficulty=None, notes=(*tables.notes, NOT_ITS_INSTRUCTIONS))


def source_of(benchmark_dir: str | None, *, offline: bool) -> Source:
    """Where official texts are looked for; the Hub's own switch for working offline counts too."""
    hub_offline = os.environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"}
    return Source(folder=None if benchmark_dir is None else Path(benchmark_dir), offline=offline or hub_offline)
