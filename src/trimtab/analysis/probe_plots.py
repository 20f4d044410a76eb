"""Pictures of the length probe as SVG strings: shares by bin over steps, and rows of dots with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trimtab.analysis.plots import few_ticks, label_ends
from trimtab.analysis.svg import INK, PALETTE, drawing_style, new_figure, to_svg
from trimtab.errors import DataError
from trimtab.records import Estimate


@dataclass(frozen=True, slots=True)
class Dots:
    """One estimate a row, in the colour of a role of the palette; None where there is nothing to draw."""

    role: str
    estimates: Sequence[Estimate | None]


def curves_plot(
    steps: Sequence[float], shares: Sequence[Sequence[float | None]], labels: Sequence[str], *, title: str
) -> str:
    """One line a bin, in percent: `shares` in [0, 1], None where no pair was visited. The first bins in the colour of
    the rejected side, the last in that of the chosen one, the outermost strongest."""
    if not steps or len(shares) != len(labels):
        raise DataError(f"{len(shares)} curves for {len(labels)} bins", remedy="give one curve a bin, with its steps")
    with drawing_style():
        figure = new_figure(height=170)
        axes = figure.subplots()
        ends = []
        for at, (label, share) in enumerate(zip(labels, shares, strict=True)):
            place = 2 * at / max(1, len(labels) - 1) - 1  # from −1, the first bin, to 1, the last
            colour = PALETTE["rejected" if place < 0 else "chosen" if place > 0 else "before"]
            points = [(step, 100 * value) for step, value in zip(steps, share, strict=True) if value is not None]
            if points:
                marker = "o" if len(points) == 1 else ""  # a line of one point shows nothing
                axes.plot(
                    *np.transpose(points), color=colour, alpha=0.35 + 0.65 * abs(place), linewidth=1.6, marker=marker
                )
            ends.append((label, points[-1][1] if points else math.nan, colour))
        axes.set_ylim(-2, 102)
        axes.set_yticks([0, 50, 100], ["0", "50", "100 %"])
        axes.set_xlabel("step", loc="right")
        axes.xaxis.set_major_locator(few_ticks(5, integer=True))
        axes.grid(axis="y", color=INK, alpha=0.1, linewidth=0.8)
        axes.spines["left"].set_visible(False)
        label_ends(axes, ends)
        return to_svg(figure, title=title)


def dots_plot(
    labels: Sequence[str], series: Sequence[Dots], *, unit: str, title: str, even: float | None = None
) -> str:
    """One row a label and one dot a series, with its interval; a dashed line at `even`."""
    if not labels or any(len(dots.estimates) != len(labels) for dots in series):
        raise DataError(f"{len(labels)} rows, and not one dot for each", remedy="give one value a row in every series")
    with drawing_style():
        figure = new_figure(height=46 + (13 + 8 * len(series)) * len(labels), width=3.8 * 72)
        axes = figure.subplots()
        if even is not None:
            axes.axvline(even, color=INK, linewidth=0.8, linestyle=(0, (3, 2)), alpha=0.6)
        for index, dots in enumerate(series):
            shift = 0.26 * (index - (len(series) - 1) / 2)
            for row, estimate in enumerate(dots.estimates):
                if estimate is None or estimate.value is None:
                    continue
                height, colour = row + shift, PALETTE[dots.role]
                if estimate.ci95 is not None:
                    axes.plot(estimate.ci95, (height, height), color=colour, linewidth=3.5, alpha=0.4)
                axes.plot([estimate.value], [height], marker="o", markersize=5, color=colour)
        axes.set_yticks(range(len(labels)), list(labels))
        axes.set_ylim(len(labels) - 0.4, -0.6)
        axes.xaxis.set_major_locator(few_ticks(5))
        axes.grid(axis="x", color=INK, alpha=0.1, linewidth=0.8)
        axes.set_xlabel(unit)
        axes.spines["left"].set_visible(False)
        return to_svg(figure, title=title)
