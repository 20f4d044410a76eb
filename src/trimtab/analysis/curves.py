"""How hard both sides still pull: the picture beside `plots.active_plot` for objectives without a dead zone."""

from __future__ import annotations

from collections.abc import Sequence

from trimtab.analysis import plots
from trimtab.analysis.svg import PALETTE, drawing_style, to_svg


def pull_plot(seeds: Sequence[plots.Curves]) -> str:
    """Mean of min(1, |g| / |g at step zero|) by side, in percent; hairlines at the regimes' borders (95 and 5 %)."""
    with drawing_style():
        figure, axes = plots._panel(seeds, height=150)
        for border in (5, 95):
            plots._level(axes, border)
        ends = [
            (side, plots._line(axes, seeds, f"pull/{side}", colour=PALETTE[side], scale=100), PALETTE[side])
            for side in ("chosen", "rejected")
        ]
        axes.set_ylim(-2, 102)
        axes.set_yticks([0, 50, 100], ["0", "50", "100 %"])
        plots._label_ends(axes, ends)
        return to_svg(figure, title="How hard chosen and rejected responses still pull, a step, against step zero")
