"""Raw and length-controlled win rate from anyone's judgments."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trimtab.analysis.summary import summarise
from trimtab.errors import ConfigError
from trimtab.judging.annotations import read_annotations, read_difficulty, read_gamed

BOOTSTRAPS = 400


def main(file: str, *, kind: str, difficulty: str | None, gamed: str | None) -> dict[str, Any]:
    """Everything known about one annotations file; see `analysis.summary.summarise` for the keys."""
    if kind != "alpaca_eval":
        raise ConfigError(f"no judgments of kind {kind!r}", remedy="this version reads --kind alpaca_eval")
    found = read_annotations(Path(file))
    told = summarise(
        found.verdicts,
        difficulty=read_difficulty(Path(difficulty)) if difficulty else None,
        gamed=read_gamed(Path(gamed)) if gamed else None,
        n_boot=BOOTSTRAPS,
    )
    return {"file": file, "n_repeated": found.n_repeated} | told


def lines(told: dict[str, Any]) -> list[str]:
    """The numbers for a terminal; what could not be estimated is said to be so, and why is in the notes."""
    return [
        f"{told['file']}: {told['model']} against {told['baseline']}, judged by {', '.join(told['annotators'])}",
        f"raw win rate       {_rate(told['win_rate'], told['ci95'])}; "
        f"standard error {_figure(told['standard_error'])}; {told['n_total']} judged, {told['n_missing']} missing",
        f"length-controlled  {_rate(told['length_controlled_winrate'], told['lc_ci95'])}; {told['lc_variant']}"
        + ("" if told["lc_c"] is None else f", C = {told['lc_c']:.4g}"),
        f"average length     {told['avg_length']} characters",
        *(f"note: {note}" for note in told["lc_notes"]),
    ]


def _rate(value: float | None, ci95: Sequence[float | None]) -> str:
    if value is None:
        return "not estimated"
    return f"{value:.2f} % (95 % CI {_figure(ci95[0])} to {_figure(ci95[1])})"


def _figure(value: float | None) -> str:
    return "not estimated" if value is None else f"{value:.2f}"
