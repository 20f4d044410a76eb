"""The report's pictures as SVG strings: small, labelled on the line, readable on a phone.

`Curves` is a table by column: `step` and any keys of `metrics.jsonl`, None where a row has no number; a list of them is
one table a seed. With several seeds each is a thin line and their mean a strong one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trimtab.analysis.calibration import Bin
from trimtab.analysis.intervals import FloatArray
from trimtab.analysis.svg import INK, PALETTE, drawing_style, new_figure, to_svg
from trimtab.errors import DataError

Curves = Mapping[str, Sequence[float | None]]


def loss_plot(seeds: Sequence[Curves], *, step_zero: float | None = None) -> str:
    """Training loss a step; a dashed line marks the loss of a policy equal to its reference."""
    with drawing_style():
        figure, axes = _panel(seeds, height=150)
        _line(axes, seeds, "loss", colour=PALETTE["after"])
        if step_zero is not None:
            _level(axes, step_zero, label="before the first step")
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        return to_svg(figure, title="Training loss a step")


def reward_plot(seeds: Sequence[Curves]) -> str:
    """Mean reward (nats) of both sides and the gap between them."""
    with drawing_style():
        figure, axes = _panel(seeds, height=170)
        _level(axes, 0.0)
        ends = [
            ("gap", _line(axes, seeds, "rewards/margins", colour=PALETTE["third"]), PALETTE["third"]),
            ("chosen", _line(axes, seeds, "rewards/chosen", colour=PALETTE["chosen"]), PALETTE["chosen"]),
            ("rejected", _line(axes, seeds, "rewards/rejected", colour=PALETTE["rejected"]), PALETTE["rejected"]),
        ]
        label_ends(axes, ends)
        return to_svg(figure, title="Mean reward of chosen and rejected responses, and the gap, a step")


def active_plot(seeds: Sequence[Curves]) -> str:
    """Share of responses with a gradient, by side, in percent; hairlines at the borders of the regimes (95 and 5 %)."""
    return _shares_plot(
        seeds,
        {side: (f"active/{side}", PALETTE[side]) for side in ("chosen", "rejected")},
        borders=(5, 95),
        title="Share of chosen and rejected responses that still have a gradient, a step",
    )


def pull_plot(seeds: Sequence[Curves]) -> str:
    """`active_plot` for objectives without a dead zone: mean of min(1, |g| / |g at step zero|) by side, in percent."""
    return _shares_plot(
        seeds,
        {side: (f"pull/{side}", PALETTE[side]) for side in ("chosen", "rejected")},
        borders=(5, 95),
        title="How hard chosen and rejected responses still pull, a step, against step zero",
    )


def saved_plot(seeds: Sequence[Curves]) -> str:
    """Active responses by side beside the response tokens that took no backward pass, or no pass at all, in percent."""
    lines = {
        "chosen": ("active/chosen", PALETTE["chosen"]),
        "rejected": ("active/rejected", PALETTE["rejected"]),
        "skipped": ("skipped_backward", PALETTE["third"]),
    }
    if any(share for curves in seeds for share in curves.get("skipped_forward", ())):
        lines["shrunk"] = ("skipped_forward", PALETTE["before"])
    return _shares_plot(seeds, lines, title="Active responses by side, and response tokens skipped, a step")


def length_plot(edges: Sequence[float], before: Sequence[float], after: Sequence[float], *, unit: str) -> str:
    """Shares of answers by length, before above after, on the same bins; `edges` has one value more than the shares."""
    if not len(edges) == len(before) + 1 == len(after) + 1:
        raise DataError(
            f"{len(edges)} edges for {len(before)} and {len(after)} bins", remedy="give one edge more than bins"
        )
    with drawing_style():
        figure = new_figure(height=190)
        panels = figure.subplots(2, 1, sharex=True, sharey=True)
        middles = (np.asarray(edges[:-1]) + np.asarray(edges[1:])) / 2
        for axes, shares, role in zip(panels, (before, after), ("before", "after"), strict=True):
            heights = 100 * np.asarray(shares, dtype=np.float64)
            axes.bar(middles, heights, width=0.92 * np.diff(edges), color=PALETTE[role])
            mean = float(np.average(middles, weights=heights)) if heights.sum() > 0 else 0.0
            axes.axvline(mean, color=INK, linewidth=1, linestyle=(0, (3, 2)))
            axes.text(
                0.99, 0.95, role, transform=axes.transAxes, ha="right", va="top", color=PALETTE[role], weight="bold"
            )
            axes.yaxis.set_major_locator(few_ticks(3))
        panels[1].set_xlabel(unit)
        panels[0].set_ylabel("% of answers", loc="bottom")
        return to_svg(figure, title=f"Lengths of answers in {unit}, before and after")


def reliability_plot(before: Sequence[Bin], after: Sequence[Bin]) -> str:
    """How often the reward gap's sign is right, by its confidence; the diagonal is perfect, dots grow with rows."""
    return _reliability_plot(
        before, after, low=0.5, x_label="confidence σ(|reward gap|)", y_label="share with chosen above rejected",
        title="Reliability of the reward gap",
    )  # fmt: skip


def token_reliability_plot(before: Sequence[Bin], after: Sequence[Bin]) -> str:
    """`reliability_plot` of the most likely next token: how often it came against its probability."""
    return _reliability_plot(
        before, after, low=0.0, x_label="probability of the most likely token", y_label="share in which it came",
        title="Reliability of the most likely next token",
    )  # fmt: skip


def _reliability_plot(
    before: Sequence[Bin], after: Sequence[Bin], *, low: float, x_label: str, y_label: str, title: str
) -> str:
    with drawing_style():
        figure = new_figure(height=230)
        axes = figure.subplots()
        axes.plot([low, 1], [low, 1], color=INK, linewidth=0.8, linestyle=(0, (3, 2)), alpha=0.6)
        ends = []
        for role, bins in (("before", before), ("after", after)):
            if bins:
                points = [(b.confidence, b.accuracy) for b in bins]
                n = sum(b.count for b in bins)
                axes.plot(*zip(*points, strict=True), color=PALETTE[role])
                sizes = [6 + 200 * b.count / n for b in bins]  # a bin of few rows is a small dot
                axes.scatter(*zip(*points, strict=True), s=sizes, color=PALETTE[role], linewidths=0, zorder=3)
                ends.append((role, points[-1][1], PALETTE[role]))
        axes.set_xlim(1.02 * low - 0.02, 1.01)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        label_ends(axes, ends)
        return to_svg(figure, title=title)


def radar_plot(categories: Sequence[str], lines: Mapping[str, Sequence[float | None]], *, top: float) -> str:
    """One spoke a category, from 0 in the middle to `top` at the rim; `lines` are values by role of the palette.

    A category without a value leaves a gap in its line. The first category points up; the last line is drawn on top.
    """
    if len(categories) < 3 or any(len(values) != len(categories) for values in lines.values()):
        raise DataError(
            f"{len(categories)} categories and lines of {[len(values) for values in lines.values()]} values",
            remedy="give three categories or more, and one value for each",
        )
    with drawing_style():
        figure = new_figure(height=260, width=300)
        axes = figure.subplots(subplot_kw={"projection": "polar"})
        axes.set_theta_offset(np.pi / 2)
        axes.set_theta_direction(-1)
        angles = np.linspace(0, 2 * np.pi, len(categories), endpoint=False)
        for role, values in lines.items():
            heights = _floats(values)
            around = (np.append(angles, angles[0]), np.append(heights, heights[0]))
            axes.plot(*around, color=PALETTE[role], linewidth=1.8, marker="o", markersize=3.5)
            if not np.isnan(heights).any():
                axes.fill(*around, color=PALETTE[role], alpha=0.12, linewidth=0)
        axes.set_ylim(0, top)
        axes.set_yticks([top / 4, top / 2, 3 * top / 4, top], ["", f"{top / 2:g}", "", f"{top:g}"], fontsize=8)
        axes.set_rlabel_position(180 / len(categories))
        axes.set_xticks(angles, list(categories))
        axes.tick_params(axis="x", pad=4)
        axes.grid(color=INK, alpha=0.15, linewidth=0.8)
        axes.spines["polar"].set_alpha(0.25)
        return to_svg(figure, title="Mean mark by category")


# --- strokes ---------------------------------------------------------------------------------------------------------


def _shares_plot(
    seeds: Sequence[Curves], lines: Mapping[str, tuple[str, str]], *, title: str, borders: Sequence[float] = ()
) -> str:
    """Shares as percent from 0 to 100; `lines` are column and colour by what stands at the line's end."""
    with drawing_style():
        figure, axes = _panel(seeds, height=150)
        for border in borders:
            _level(axes, border)
        ends = [
            (label, _line(axes, seeds, name, colour=colour, scale=100), colour)
            for label, (name, colour) in lines.items()
        ]
        axes.set_ylim(-2, 102)
        axes.set_yticks([0, 50, 100], ["0", "50", "100 %"])
        label_ends(axes, ends)
        return to_svg(figure, title=title)


def _panel(seeds: Sequence[Curves], *, height: float) -> tuple[Any, Any]:
    if not seeds or not any(len(curves.get("step", ())) for curves in seeds):
        raise DataError("there are no training steps to plot", remedy="train first")
    figure = new_figure(height=height)
    axes = figure.subplots()
    axes.set_xlabel("step", loc="right")
    axes.xaxis.set_major_locator(few_ticks(5, integer=True))
    axes.yaxis.set_major_locator(few_ticks(4))
    axes.grid(axis="y", color=INK, alpha=0.1, linewidth=0.8)
    axes.spines["left"].set_visible(False)
    return figure, axes


def _line(axes: Any, seeds: Sequence[Curves], name: str, *, colour: str, scale: float = 1.0) -> float:
    """Draw one metric of all seeds; returns where its (mean) line ends, NaN if no row has it."""
    tables = [(_floats(curves["step"]), scale * _floats(curves[name])) for curves in seeds if curves.get(name)]
    if not tables:
        return float("nan")
    alone = len(tables) == 1
    for steps, values in tables:
        axes.plot(steps, values, color=colour, linewidth=1.8 if alone else 0.8, alpha=1 if alone else 0.4)
    if not alone and len({len(values) for _, values in tables}) == 1:
        steps, values = tables[0][0], np.mean([values for _, values in tables], axis=0)
        axes.plot(steps, values, color=colour)
    numbers = values[~np.isnan(values)]
    return float(numbers[-1]) if len(numbers) else float("nan")


def _level(axes: Any, height: float, *, label: str = "") -> None:
    axes.axhline(height, color=INK, linewidth=0.8, linestyle=(0, (3, 2)), alpha=0.5)
    if label:
        axes.annotate(
            label, (1, height), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=9, alpha=0.8,
            xytext=(0, 1), textcoords="offset points",
        )  # fmt: skip


def label_ends(axes: Any, ends: Sequence[tuple[str, float, str]]) -> None:
    """Names right of the lines' ends, pushed apart so that none covers another."""
    finite_ends = sorted((end for end in ends if np.isfinite(end[1])), key=lambda end: end[1])
    low, high = axes.get_ylim()
    apart = 0.11 * (high - low)
    heights: list[float] = []
    for _, height, _ in finite_ends:
        heights.append(max(height, heights[-1] + apart) if heights else height)
    shift = max(0.0, heights[-1] - high) if heights else 0.0
    for (name, _, colour), height in zip(finite_ends, heights, strict=True):
        axes.annotate(
            name, (1, height - shift), xycoords=("axes fraction", "data"), xytext=(5, 0), textcoords="offset points",
            va="center", color=colour, weight="bold", annotation_clip=False,
        )  # fmt: skip


def _floats(values: Sequence[float | None]) -> FloatArray:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def few_ticks(n: int, *, integer: bool = False) -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins=n, integer=integer, min_n_ticks=2)
