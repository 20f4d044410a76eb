"""Pictures of the length probe as SVG strings: shares by bin over steps, and rows of dots with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from trimtab.analysis.plots import few_ticks, label_ends
from trimtab.analysis.svg import INK, PALETTE, drawing_style, new_figure, to_svg
from trimtab.errors import DataError

Dot = tuple[float | None, Sequence[float] | None]


def curves_plot(
    steps: Sequence[float], shares: Sequence[Sequence[float | None]], labels: Sequence[str], *, title: str
) -> str:
    """One line a bin, in percent: `shares` in [0, 1], None where nothing was seen. The first bins in the colour of the
    rejected side, the last in that of the chosen one, the outermost strongest."""
    if not steps or len(shares) != len(labels):
        raise DataError(f"{len(shares)} curves for {len(labels)} bins", remedy="give one curve a bin, with its steps")
    with drawing_style():
        figure = new_figure(height=170)
        axes = figure.subplots()
        ends = []
        for at, (label, share) in enumerate(zip(labels, shares, strict=True)):
            place = 2 * at / max(1, len(labels) - 1) - 1  # from −1, the first bin, to 1, the last
            colour = PALETTE["rejected" if place < 0 else "chosen" if place > 0 else "before"]
            heights = 100 * np.array([np.nan if value is None else value for value in share], dtype=np.float64)
            known = ~np.isnan(heights)
            at_steps = np.asarray(steps, dtype=np.float64)[known]
            axes.plot(at_steps, heights[known], color=colour, alpha=0.35 + 0.65 * abs(place), linewidth=1.6)
            ends.append((label, float(heights[known][-1]) if known.any() else float("nan"), colour))
        axes.set_ylim(-2, 102)
        axes.set_yticks([0, 50, 100], ["0", "50", "100 %"])
        axes.set_xlabel("step", loc="right")
        axes.xaxis.set_major_locator(few_ticks(5, integer=True))
        axes.grid(axis="y", color=INK, alpha=0.1, linewidth=0.8)
        axes.spines["left"].set_visible(False)
        label_ends(axes, ends)
        return to_svg(figure, title=title)


def dots_plot(
    labels: Sequence[str], series: Mapping[str, Sequence[Dot]], *, unit: str, title: str, even: float | None = None
) -> str:
    """One row a label and one dot a series (a role of the palette), with its interval; a dashed line at `even`."""
    if not labels or any(len(dots) != len(labels) for dots in series.values()):
        raise DataError(f"{len(labels)} rows, and not one dot for each", remedy="give one value a row in every series")
    with drawing_style():
        figure = new_figure(height=46 + (13 + 8 * len(series)) * len(labels), width=3.8 * 72)
        axes = figure.subplots()
        if even is not None:
            axes.axvline(even, color=INK, linewidth=0.8, linestyle=(0, (3, 2)), alpha=0.6)
        for which, (role, dots) in enumerate(series.items()):
            shift = 0.26 * (which - (len(series) - 1) / 2)
            for row, (value, bounds) in enumerate(dots):
                if value is None:
                    continue
                if bounds is not None:
                    axes.plot(bounds, (row + shift, row + shift), color=PALETTE[role], linewidth=3.5, alpha=0.4)
                axes.plot([value], [row + shift], marker="o", markersize=5, color=PALETTE[role])
        axes.set_yticks(range(len(labels)), list(labels))
        axes.set_ylim(len(labels) - 0.4, -0.6)
        axes.xaxis.set_major_locator(few_ticks(5))
        axes.grid(axis="x", color=INK, alpha=0.1, linewidth=0.8)
        axes.set_xlabel(unit)
        axes.spines["left"].set_visible(False)
        return to_svg(figure, title=title)
