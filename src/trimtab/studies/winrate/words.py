"""The numbers for a terminal; what could not be estimated is said to be so, and why is in the notes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from trimtab.analysis.intervals import Interval, finite
from trimtab.analysis.winrate import WinRate
from trimtab.studies.winrate.numbers import MarkNumbers, ModelMarks, Numbers, WinRateNumbers

NOT_ESTIMATED = "not estimated"


def lines(numbers: Numbers) -> list[str]:
    """Warnings first, then the numbers, then the notes."""
    match numbers:
        case WinRateNumbers():
            return _win_rate_lines(numbers)
        case MarkNumbers():
            return _mark_lines(numbers)
    assert_never(numbers)


def _win_rate_lines(numbers: WinRateNumbers) -> list[str]:
    summary, fit = numbers.summary, numbers.summary.length_controlled
    absent = f" ({numbers.n_absent} have no row)" if numbers.n_absent else ""
    judges = ", ".join(name or "an unnamed judge" for name in summary.annotators)
    penalty = "" if fit.lc_c is None else f", C = {fit.lc_c:.4g}"
    near = ", ".join(f"C = {c:.4g}: {rate:.2f} %" for c, rate in fit.lc_neighbours)
    return [
        *(f"WARNING: {warning}" for warning in numbers.warnings),
        f"{numbers.file}: {summary.model} against {summary.baseline}, judged by {judges}",
        f"raw win rate       {_rate(summary.raw.win_rate, summary.raw.ci95)}; "
        f"standard error {_figure(summary.raw.standard_error)}; "
        f"{summary.raw.n_total} judged, {numbers.n_missing} missing{absent}",
        f"length-controlled  {_rate(fit.length_controlled_winrate, fit.lc_ci95)}; {fit.variant}{penalty}",
        *([f"LC near that C     {near}"] if near else []),
        f"average length     {summary.avg_length} characters",
        *_breakdown("by data set", list(summary.by_dataset.items())),
        *_breakdown(
            "by length, characters more than the baseline",
            [(f"{bin.shortest:+d} to {bin.longest:+d}", bin.rate) for bin in summary.by_length_gap],
        ),
        *(f"note: {note}" for note in numbers.notes),
    ]


def _mark_lines(numbers: MarkNumbers) -> list[str]:
    """One block a model."""
    repetitions = f"; {numbers.n_repeated} repeated judgments left out" if numbers.n_repeated else ""
    return [
        *(f"WARNING: {alarm}" for alarm in numbers.alarms),
        f"{numbers.file}: marks of 1 to 10 on {numbers.n_questions} questions{repetitions}",
        *(line for model in numbers.models for line in _model_lines(model)),
        *(f"note: {note}" for note in numbers.notes),
    ]


def _model_lines(model: ModelMarks) -> list[str]:
    summary = model.summary
    turns = ", ".join(f"turn {turn} {_figure(mean)}" for turn, mean in summary.by_turn.items())
    width = max((len(name) for name in model.categories), default=0)
    return [
        f"{summary.model}: {_figure(summary.mean)} ({_interval(model.ci95)}), {turns}; "
        f"{summary.n_total} marks by {summary.judge}, {model.n_missing} missing",
        *(
            f"  {name:<{width}}  {_figure(means['all'].value)} ({_interval(means['all'].ci95)}, "
            f"{means['all'].n_questions} questions)"
            for name, means in model.categories.items()
        ),
    ]


def _breakdown(title: str, rows: Sequence[tuple[str, WinRate]]) -> list[str]:
    if not rows:
        return []
    width = max(len(name) for name, _ in rows)
    return [
        f"{title}:",
        *(f"  {name:>{width}}  {_rate(rate.win_rate, rate.ci95)}; {rate.n_total} judged" for name, rate in rows),
    ]


def _rate(value: float, ci95: Interval) -> str:
    if finite(value) is None:
        return NOT_ESTIMATED
    return f"{value:.2f} % ({_interval(ci95)})"


def _interval(ci95: Interval) -> str:
    if finite(ci95[0]) is None:
        return "no interval"
    return f"95 % CI {_figure(ci95[0])} to {_figure(ci95[1])}"


def _figure(value: float) -> str:
    return NOT_ESTIMATED if finite(value) is None else f"{value:.2f}"
