"""A comparison, and the power of a number of prompts, for a terminal: in words first, then the numbers."""

from __future__ import annotations

from typing import assert_never

from trimtab.analysis.comparison import Comparison, Power
from trimtab.analysis.intervals import finite
from trimtab.analysis.length_control_paired import ControlledDifference
from trimtab.reporting.text import counted
from trimtab.studies.comparison.numbers import ComparisonNumbers

POWER_AT = 0.8  # the usual chance of seeing a difference that is there


def lines(numbers: ComparisonNumbers | Power) -> list[str]:
    match numbers:
        case ComparisonNumbers():
            return _comparison_lines(numbers)
        case Power():
            return _power_lines(numbers)
    assert_never(numbers)


def _comparison_lines(numbers: ComparisonNumbers) -> list[str]:
    whole, unit = numbers.whole, numbers.unit
    test = f"; {words}" if (words := test_text(whole)) else ""
    against = f" against {numbers.baseline}" if numbers.baseline else ""
    seeds = f"; {whole.n_seeds} seeds" if whole.n_seeds > 1 else ""
    text = [
        *(f"WARNING: {warning}" for warning in numbers.warnings),
        f"{numbers.a} against {numbers.b}: {whole.verdict}",
        f"difference {difference_text(whole, unit)}{test}",
        f"{figure(whole.mean_a)} against {figure(whole.mean_b)} {numbers.scale}, judged by {numbers.judge}{against}",
        f"{whole.n_common} common prompts: {whole.wins_a} to {whole.wins_b}, {whole.ties} ties, "
        f"{whole.n_missing} missing on one side{seeds}",
    ]
    if numbers.length is not None:
        text.append(f"length of the answers, A minus B: {difference_text(numbers.length, 'characters')}")
    if (fit := numbers.length_controlled) is not None:
        text.append(f"difference with length controlled {difference_text(fit, unit)}; {fit.variant}")
    text += _group_lines(numbers)
    return text + [f"note: {note}" for note in numbers.notes]


def test_text(whole: Comparison) -> str:
    """The test and its p-value; empty where there is none."""
    if finite(whole.p_value) is None:
        return ""
    return f"{whole.test}: p {'< 0.001' if whole.p_value < 0.001 else f'= {whole.p_value:.3f}'}"


def _group_lines(numbers: ComparisonNumbers) -> list[str]:
    if not numbers.groups:
        return []
    width = max(len(name) for name in numbers.groups)
    return [
        *(
            f"  {name:<{width}}  {difference_text(group, numbers.unit)}; "
            f"{counted(group.n_common, 'prompt')}: {group.verdict}"
            for name, group in numbers.groups.items()
        ),
        "  each group is tested alone: one in twenty differs by chance",
    ]


def _power_lines(power: Power) -> list[str]:
    return [
        f"{power.n} prompts show a true difference of {power.delta:g} points with a chance of {power.power:.0%}",
        f"with {POWER_AT:.0%} chance they show {power.detectable:.1f} points; {power.delta:g} points need "
        f"{power.n_needed:,} prompts (paired spread {power.sd:g} points)",
    ]


def difference_text(difference: Comparison | ControlledDifference, unit: str) -> str:
    """`+1.93 points (95 % CI −0.99 to +4.86)`."""
    low, high = difference.ci95
    interval = "no interval"
    if finite(low) is not None:
        interval = f"95 % CI {figure(low, with_sign=True)} to {figure(high, with_sign=True)}"
    return f"{figure(difference.delta, with_sign=True)} {unit} ({interval})"


def figure(value: float, digits: int = 2, *, with_sign: bool = False) -> str:
    """A number, or that there is none."""
    if finite(value) is None:
        return "not estimated"
    return f"{value:+.{digits}f}" if with_sign else f"{value:.{digits}f}"
