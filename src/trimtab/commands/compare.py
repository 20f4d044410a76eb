"""Is A better than B, on the prompts both were judged on? And what could so many prompts have shown at all?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trimtab.analysis import comparison
from trimtab.errors import ConfigError
from trimtab.judging.annotations import read_annotations
from trimtab.records import Verdict
from trimtab.stages.folder import Folder

POWER_AT = 0.8


def main(a: str, b: str, *, benchmark: str | None, judge: str) -> dict[str, Any]:
    """Points of win rate that A is ahead of B, paired by prompt; A and B are run folders or annotations files."""
    found = comparison.compare_verdicts(
        _verdicts(a, benchmark=benchmark, judge=judge), _verdicts(b, benchmark=benchmark, judge=judge), names=(a, b)
    )
    return {"a": a, "b": b} | found.to_json()


def lines(told: dict[str, Any]) -> list[str]:
    low, high = told["ci95"]
    p_value = "< 0.001" if told["p_value"] < 0.001 else f"= {told['p_value']:.3f}"
    return [
        f"{told['a']} against {told['b']}: {told['verdict']}",
        f"difference {told['delta']:+.2f} points (95 % CI {low:+.2f} to {high:+.2f}; sign test p {p_value})",
        f"{told['n_common']} common prompts: {told['wins_a']} to {told['wins_b']}, {told['ties']} ties, "
        f"{told['n_missing']} missing on one side",
    ]


def power(n: int, delta: float) -> dict[str, Any]:
    """The chance that `n` prompts show a true difference of `delta` points of win rate."""
    return comparison.power(n, delta=delta).to_json()


def power_lines(told: dict[str, Any]) -> list[str]:
    return [
        f"{told['n']} prompts show a true difference of {told['delta']:g} points with a chance of {told['power']:.0%}",
        f"with {POWER_AT:.0%} chance they show {told['detectable']:.1f} points; {told['delta']:g} points need "
        f"{told['n_needed']:,} prompts (paired spread {told['sd']:g} points)",
    ]


def _verdicts(where: str, *, benchmark: str | None, judge: str) -> list[Verdict]:
    path = Path(where)
    if path.is_file():
        return list(read_annotations(path).verdicts)
    if not path.is_dir():
        raise ConfigError(f"no such run folder or annotations file: {where}", remedy="name one that is there")
    pattern = Folder(path).verdicts(benchmark or "*", judge)
    files = sorted(pattern.parent.glob(pattern.name))
    if len(files) != 1:
        names = ", ".join(file.name for file in sorted(pattern.parent.glob("*.json"))) or "none"
        raise ConfigError(
            f"{where} has {len(files)} sets of verdicts named {pattern.name}; it has {names}",
            remedy="name one with --benchmark and --judge",
        )
    return list(read_annotations(files[0]).verdicts)
