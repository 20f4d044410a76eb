"""A file of judgments and what belongs to it: its kind, the rows that are not there, the tables of length control."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trimtab.analysis.winrate import too_many_missing
from trimtab.errors import DataError, RunError
from trimtab.judging import official
from trimtab.judging.annotations import read_difficulty, read_gamed
from trimtab.judging.files import read_objects
from trimtab.judging.official_texts import Source
from trimtab.records import Verdict

Kind = Literal["alpaca_eval", "mt_bench"]
DATASETS = frozenset({"selfinstruct", "oasst", "koala", "helpful_base", "vicuna"})  # of AlpacaEval
N_INSTRUCTIONS = 805  # of AlpacaEval
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
    """The user's own tables first, the official ones of AlpacaEval for its rows.

    Raises DataError where the user named a folder in which they should be and are not.
    """
    own = Tables(
        difficulty=read_difficulty(Path(difficulty)) if difficulty else None,
        regularisers=read_gamed(Path(regularisers)) if regularisers else None,
    )
    about_alpaca_eval = {v.dataset for v in verdicts} <= DATASETS
    if (difficulty and regularisers) or not about_alpaca_eval or len(verdicts) > N_INSTRUCTIONS:
        return own
    name: official.Name = "alpaca_eval_1" if verdicts[0].generator_1 == FIRST_BASELINE else "alpaca_eval"
    try:
        tables = official.length_tables(name, source=source)
    except DataError as error:
        if source.folder is not None:  # the user's own words
            raise
        tables = official.LengthTables(None, None, notes=(f"{error.message}; length control does without it",))
    notes, instructions = tables.notes, None
    if own.difficulty is None and tables.difficulty is not None and len(verdicts) < len(tables.difficulty):
        instructions, doubts = _instructions(verdicts, name, source)
        notes += doubts
    return Tables(
        difficulty=own.difficulty or tables.difficulty,
        regularisers=own.regularisers or tables.gamed,
        instructions=instructions,
        notes=notes,
    )


def _instructions(
    verdicts: Sequence[Verdict], name: official.Name, source: Source
) -> tuple[list[str] | None, tuple[str, ...]]:
    """The official order of the instructions, by which rows of which some are missing find their difficulty."""
    try:
        official_order = [prompt.instruction for prompt in official.benchmark(name, source=source).prompts]
    except DataError as error:
        return None, (f"the official order of the instructions is not known: {error.message}",)
    return (official_order, ()) if {v.instruction for v in verdicts} <= set(official_order) else (None, ())


def source_of(benchmark_dir: str | None, *, offline: bool) -> Source:
    """Where official texts are looked for; the Hub's own switch for working offline counts too."""
    hub_offline = os.environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"}
    return Source(folder=None if benchmark_dir is None else Path(benchmark_dir), offline=offline or hub_offline)
