"""The page's pictures, in the style of the reports: values with intervals along an axis, and points of a plane.

A drawing stands alone in a file here, so it brings its own ink for light and dark pages and a width.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.measurement import Measurement
from trimtab.analysis.svg import INK, PALETTE, drawing_style, new_figure, to_svg

_COLOURS = (PALETTE["chosen"], PALETTE["rejected"], PALETTE["third"], PALETTE["before"])
_MARKS = ("o", "s", "^", "D")
_SCALE = 1.45  # pixels a point of the drawing, so that its text is as large as the page's
_STYLE = "<style>svg{color:#1d252b}@media(prefers-color-scheme:dark){svg{color:#d7dde1}}</style>"

Line = Sequence[Measurement | None]  # a measurement a tick


def along(
    panels: Mapping[str, Mapping[str, Line]], ticks: Sequence[str], *, below: str, title: str, even: float | None = 0.0
) -> str:
    """One panel a key, side by side; in each a line a series over the same ticks, with its intervals."""
    with drawing_style():
        figure = new_figure(width=180 * len(panels) + 90, height=200)
        places = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (heading, lines) in zip(places, panels.items(), strict=True):
            axes.set_title(heading, fontsize=10, loc="left")
            if even is not None:
                axes.axhline(even, color=INK, linewidth=0.8, linestyle=(0, (3, 2)), alpha=0.5)
            for i, (label, line) in enumerate(lines.items()):
                _draw_line(axes, line, i, label=label, n_lines=len(lines))
            axes.set_xticks(range(len(ticks)), ticks)
            axes.set_xlim(-0.4, len(ticks) - 0.6)
            axes.set_xlabel(below, loc="right")
        handles, labels = places[-1].get_legend_handles_labels()
        if len(labels) > 1:
            figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=9)
        return standalone(to_svg(figure, title=title))


def rows(
    measurements: Mapping[str, Mapping[str, Measurement]], *, below: str, title: str, even: float | None = 0.0
) -> str:
    """One row a label, in it a dot and interval for each series."""
    with drawing_style():
        figure = new_figure(width=400, height=60 + 24 * len(measurements))
        axes = figure.subplots()
        if even is not None:
            axes.axvline(even, color=INK, linewidth=0.8, linestyle=(0, (3, 2)), alpha=0.5)
        series = list(dict.fromkeys(name for row in measurements.values() for name in row))
        for y, row in enumerate(measurements.values()):
            for i, name in enumerate(series):
                label = name if y == 0 else None
                _draw_dot(axes, row.get(name), y + _offset(i, len(series)), i, label=label)
        axes.set_yticks(range(len(measurements)), list(measurements))
        axes.set_ylim(len(measurements) - 0.4, -0.6)
        axes.set_xlabel(below, loc="right")
        if len(series) > 1:
            figure.legend(loc="outside right upper", frameon=False, fontsize=9)
        return standalone(to_svg(figure, title=title))


def plane(
    groups: Mapping[str, Sequence[tuple[Measurement, Measurement, str]]], *, below: str, beside: str, title: str,
    lines: Sequence[str] = (),
) -> str:  # fmt: skip
    """Points (across, up, label) by group, each with both intervals; the groups in `lines` are drawn as a line."""
    with drawing_style():
        figure = new_figure(width=420, height=260)
        axes = figure.subplots()
        for i, (name, points) in enumerate(groups.items()):
            colour, mark = _COLOURS[i % 4], _MARKS[i % 4]
            known = [point for point in points if point[0].value is not None and point[1].value is not None]
            xs, ys = [point[0].value for point in known], [point[1].value for point in known]
            if name in lines:
                axes.plot(xs, ys, color=colour, linewidth=1.2, alpha=0.7)
            for across, up, label in known:
                if across.ci95:
                    axes.plot(across.ci95, (up.value, up.value), color=colour, linewidth=1, alpha=0.4)
                if up.ci95:
                    axes.plot((across.value, across.value), up.ci95, color=colour, linewidth=1, alpha=0.4)
                axes.annotate(
                    label, (across.value, up.value), xytext=(4, 3), textcoords="offset points", fontsize=8, color=colour
                )
            axes.plot(xs, ys, linestyle="", marker=mark, markersize=5, color=colour, label=name)
        axes.set_xlabel(below, loc="right")
        axes.set_ylabel(beside)
        if len(groups) > 1:
            figure.legend(loc="outside right upper", frameon=False, fontsize=9)
        return standalone(to_svg(figure, title=title))


def standalone(svg: str) -> str:
    """A drawing that was made for a report's page, as a file of its own."""
    head, _, body = svg.partition(">")
    box = re.search(r'viewBox="[\d.]+ [\d.]+ ([\d.]+) ', head)
    assert box is not None, "a drawing of trimtab's has a viewBox"
    return f'{head} width="{_SCALE * float(box[1]):.0f}">{_STYLE}{body}\n'


def _offset(i: int, n: int) -> float:
    """Of series i of n from its tick, so that intervals do not cover each other."""
    return 0.16 * (i - (n - 1) / 2)


def _draw_line(axes: Any, line: Line, i: int, *, label: str, n_lines: int) -> None:
    colour, mark = _COLOURS[i % 4], _MARKS[i % 4]
    points = [
        (x + 0.6 * _offset(i, n_lines), measurement)
        for x, measurement in enumerate(line)
        if measurement is not None and measurement.value is not None
    ]
    for x, measurement in points:
        if measurement.ci95 is not None:
            axes.plot((x, x), measurement.ci95, color=colour, linewidth=3, alpha=0.35)
    xs, ys = [x for x, _ in points], [measurement.value for _, measurement in points]
    axes.plot(xs, ys, color=colour, marker=mark, markersize=4.5, linewidth=1.2, label=label)


def _draw_dot(axes: Any, measurement: Measurement | None, y: float, i: int, *, label: str | None) -> None:
    if measurement is None or measurement.value is None:
        return
    colour = _COLOURS[i % 4]
    if measurement.ci95 is not None:
        axes.plot(measurement.ci95, (y, y), color=colour, linewidth=3, alpha=0.35)
    axes.plot([measurement.value], [y], marker=_MARKS[i % 4], markersize=5, color=colour, linestyle="", label=label)
