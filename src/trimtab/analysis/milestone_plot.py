"""Quality against drift: a run's milestones as a path, from the reference outwards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trimtab.analysis.selection import Measure, MilestoneNumbers
from trimtab.analysis.svg import INK, PALETTE, drawing_style, new_figure, to_svg
from trimtab.errors import DataError


def milestone_plot(seeds: Sequence[Sequence[MilestoneNumbers]], *, measure: str, label: str, scale: float = 1.0) -> str:
    """One line a seed through its milestones, in the order of their steps: `measure` over drift (nats a token, square
    root scale), or over the step where there is no drift. A ring marks the picked one, bars are 95 % intervals (one
    seed), numbers are steps (one seed).
    """
    if not any(seeds):
        raise DataError("there are no milestones to plot", remedy="hold pairs out: --data.holdout 0.05")
    alone = len(seeds) == 1
    over_drift = all(row.measures["drift"] is not None for rows in seeds for row in rows)
    with drawing_style():
        figure = new_figure(height=200)
        axes = figure.subplots()
        for rows in seeds:
            across = [_value(row.measures["drift"]) if over_drift else row.step for row in rows]
            heights = [scale * _value(row.measures[measure]) for row in rows]
            axes.plot(across, heights, color=PALETTE["after"], linewidth=1.2, alpha=0.5)
            axes.plot(across, heights, color=PALETTE["after"], linestyle="none", marker="o", markersize=4)
            for x, y, row in zip(across, heights, rows, strict=True):
                if row.picked:
                    axes.plot([x], [y], marker="o", markersize=10, fillstyle="none", color=PALETTE["rejected"])
                if alone:
                    _interval_and_step(axes, x, y, row, measure=measure, scale=scale)
        if over_drift:
            axes.set_xscale("function", functions=(lambda v: abs(v) ** 0.5, lambda v: v**2))
            axes.set_xlim(left=0)
        axes.set_xlabel("drift from the reference, nats a token" if over_drift else "step")
        axes.set_ylabel(label)
        axes.grid(axis="y", color=INK, alpha=0.1, linewidth=0.8)
        return to_svg(figure, title=f"Milestones: {label} against {'drift' if over_drift else 'the step'}")


def _value(measure: Measure | None) -> float:
    assert measure is not None
    assert measure.value is not None
    return measure.value


def _interval_and_step(axes: Any, x: float, y: float, row: MilestoneNumbers, *, measure: str, scale: float) -> None:
    quantity = row.measures[measure]
    if quantity is not None and quantity.ci95 is not None:
        bounds = [scale * end for end in quantity.ci95]
        axes.plot((x, x), bounds, color=PALETTE["after"], linewidth=3, alpha=0.25)
    axes.annotate(f"{row.step}", (x, y), xytext=(4, 4), textcoords="offset points", fontsize=8)
