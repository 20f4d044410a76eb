"""What a sweep showed, in sentences, and as lines for a terminal. No number is made here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from io import StringIO
from typing import Any

from trimtab.reporting.text import MISSING, counted, duration, estimate_text, number, visible
from trimtab.studies.sweep.maps import PointResult
from trimtab.studies.sweep.result import Cost, HighestPoint, SweepResult

TERMINAL_WIDTH = 140  # characters
TERMINAL_RATES = 3  # columns of win rates that fit it


def sentences(result: SweepResult) -> list[str]:
    """The most important first."""
    states = ", ".join(f"{n} {state}" for state, n in result.states())
    counts = f"{counted(len(result.points), 'point')} with {counted(len(result.seeds), 'seed')} each: {states}."
    top = result.highest()
    if result.search is not None:
        counts = f"{_search_text(result.search, len(result.points))} {counts}"
    lines = [counts] if top is None else [_highest_sentence(top), counts]
    lines += _shrinkage_sentences(result)
    for regime in ("starved", "linear"):
        names = [point.name for point in result.points if regime in point.regimes]
        if names:
            lines.append(f"{regime.capitalize()}: {', '.join(names)}.")
    return lines


def _search_text(search: Mapping[str, Any], n_points: int) -> str:
    axes = ", ".join(f"{key} ({', '.join(values)})" for key, values in search["axes"].items())
    return (
        f"{n_points} of {counted(search['trials'], 'trial')} were tried, proposed by {search['sampler']} over {axes}; "
        "the highest of so many is above its own truth on average."
    )


def _highest_sentence(top: HighestPoint) -> str:
    headline = top.headline
    if top.n_others == 1:
        overlap = f"the interval of the other point {'overlaps' if top.n_overlapping else 'does not overlap'} its own"
    elif top.n_overlapping:
        overlap = f"the intervals of {top.n_overlapping} of the {top.n_others} other points overlap its own"
    else:
        overlap = f"no interval of the {top.n_others} other points overlaps its own"
    figure = f"{estimate_text(headline.estimate, digits=2 if headline.unit == 'of 10' else 1)} {headline.unit}"
    return f"Highest {headline.noun}: {figure} at {top.point}, judged by {headline.judge}; {overlap}."


def _shrinkage_sentences(result: SweepResult) -> list[str]:
    """For each judge the points whose length-controlled 50 is the L1 penalty's and no tie."""
    points: dict[str, list[str]] = {}
    for point in result.points:
        for rate in point.win_rates:
            if rate.n_shrunk:
                n_seeds = "" if rate.estimate.n_seeds == 1 else f" ({rate.n_shrunk} of {rate.estimate.n_seeds} seeds)"
                points.setdefault(rate.label, []).append(f"{point.name}{n_seeds}")
    return [
        f"Length-controlled win rate by {label}: the L1 penalty shrank it to exactly 50 at {', '.join(names)}, because "
        f"cross-validation saw no strength worth its penalty. That is no measured tie: read the interval."
        for label, names in points.items()
    ]


def cost_sentence(cost: Cost) -> str:
    """The sweep against its runs made one by one, each with the caches empty."""
    if cost.share is None:
        return "No run has taken any time yet."
    return (
        f"The runs took {duration(cost.seconds)}; each alone, with nothing in the caches, they would have taken "
        f"{duration(cost.seconds_alone)}, so the sweep cost {100 * cost.share:.0f} % of that. Counted are "
        "seconds measured in this sweep; starting processes is in neither."
    )


def regime_text(point: PointResult) -> str:
    """`selective, unnamed`: each regime of a point's seeds once."""
    return ", ".join(dict.fromkeys(name or "unnamed" for name in point.regimes)) or MISSING


def value_text(value: object) -> str:
    """A value of a configuration key."""
    if value is None:
        return "default"
    return f"{value:g}" if isinstance(value, float) else str(value)


# --- the terminal ----------------------------------------------------------------------------------------------------


def lines(result: SweepResult) -> list[str]:
    """The sentences and a table of what fits a terminal."""
    return [
        *sentences(result),
        *_table_lines(result),
        cost_sentence(result.cost),
        f"maps and tables: {result.folder}/sweep.html",
    ]


def _table_lines(result: SweepResult) -> Iterable[str]:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    keys = list(dict.fromkeys(rate.key for point in result.points for rate in point.win_rates))[:TERMINAL_RATES]
    table = Table(box=None, pad_edge=False)
    table.add_column("point", justify="left", overflow="fold")
    for name in (*map(_rate_name, keys), "active", "length", "to 90 %", "regime"):
        table.add_column(Text(name), justify="right", overflow="fold")
    for point in result.points:
        table.add_row(*(Text(visible(cell)) for cell in _cells(point, keys)))
    out = StringIO()
    Console(file=out, width=TERMINAL_WIDTH, color_system=None).print(table)
    return (line.rstrip() for line in out.getvalue().splitlines())


def _rate_name(key: tuple[str, str]) -> str:
    judge, kind = key
    return "true win rate" if kind == "true" else f"{judge} {kind}"


def _cells(point: PointResult, keys: Iterable[tuple[str, str]]) -> list[str]:
    numbers = point.numbers
    if numbers is None:
        states = ", ".join(dict.fromkeys(run.state for run in point.runs))
        return [point.name, *(MISSING for _ in keys), "", "", "", states]
    active, length = numbers.training.active["pair"].value, numbers.answers.length
    return [
        point.name,
        *(estimate_text(numbers.answers.win_rate(key)) for key in keys),
        MISSING if active is None else f"{100 * active:.0f} %",
        MISSING if length is None else number(length.value),
        number(numbers.training.steps_to_90.value, digits=0),
        regime_text(point),
    ]
