"""Raw and length-controlled win rate from anyone's judgments."""

from __future__ import annotations

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
    low, high = told["ci95"]
    lc_low, lc_high = told["lc_ci95"]
    return [
        f"{told['file']}: {told['model']} against {told['baseline']}, judged by {', '.join(told['annotators'])}",
        f"raw win rate       {told['win_rate']:.2f} % (95 % CI {low:.2f} to {high:.2f}; standard error "
        f"{told['standard_error']:.2f}; {told['n_total']} judged, {told['n_missing']} missing)",
        f"length-controlled  {told['length_controlled_winrate']:.2f} % (95 % CI {lc_low:.2f} to {lc_high:.2f}; "
        f"{told['lc_variant']}, C = {told['lc_c']})",
        f"average length     {told['avg_length']} characters",
        *(f"note: {note}" for note in told["lc_notes"]),
    ]
