"""(f) Three sizes of the embedded model: does what holds for one hold for the others?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from experiments.drawings import along
from experiments.figures_of import Figure, mean
from experiments.questions.dead_zone import tokens, truth
from experiments.section import Book, Drawing, Question, Section, Sweeps, Table
from experiments.sweeps_read import Point, difference
from experiments.words import claim, direction, listed, shown

AGAINST, HINGE = "dpo", "apo_hinge_zero"
ORDER = ("small", "windtunnel", "large")
SAID = {"small": "0.3M", "windtunnel": "1.3M (embedded)", "large": "2.9M"}


def answer(sweeps: Sweeps, book: Book) -> Section:
    sweep = sweeps["sizes"]
    sizes = sorted({_size(point) for point in sweep.points}, key=ORDER.index)
    names = sweep.values("objective.name")
    by = {(_size(point), point.setting("objective.name")): point for point in sweep.points}
    rows, gaps = [], {}
    for size in sizes:
        for name in names:
            point, key = by[size, name], f"sizes/{size}/{name}"
            true = book.keep(f"{key}/true", mean(truth(point), unit="%"), sweep=sweep)
            grown = book.keep(f"{key}/growth", mean(tokens(point) - point.tokens_before_N, unit="tokens"), sweep=sweep)
            rows.append([SAID[size], name, shown(true), shown(grown, signed=True)])
        gaps[size] = [
            book.keep(
                f"sizes/{size}/hinge-less-dpo/{what}",
                mean(difference(by[size, HINGE], by[size, AGAINST], of), unit=unit),
                sweep=sweep,
            )
            for what, of, unit in (("true", truth, "points"), ("length", tokens, "tokens"))
        ]
    return Section(
        answers=[
            _together("true win rate, hinge less DPO", {size: gap[0] for size, gap in gaps.items()}),
            _together("length, hinge less DPO", {size: gap[1] for size, gap in gaps.items()}),
        ],
        table=Table(("model", "objective", "true win rate, %", "growth, tokens"), rows),
        drawing=Drawing(
            "sizes",
            along(
                {
                    "true win rate, points": {"hinge less DPO": [gaps[size][0] for size in sizes]},
                    "length, tokens": {"hinge less DPO": [gaps[size][1] for size in sizes]},
                },
                [SAID[size].split()[0] for size in sizes], below="parameters",
                title="Hinge less DPO at three model sizes",
            ),
            f"λ = {sweep.points[0].setting('windtunnel.length_bias'):g}. `{sweep.command}`",
        ),
        meaning=[
            claim(
                gaps[size][0], about=f"{SAID[size]}: true win rate, hinge less DPO",
                up=f"{SAID[size]}: the hinge has the higher true win rate",
                down=f"{SAID[size]}: DPO has the higher true win rate",
            ) + "."
            for size in sizes
        ],
        limits=[
            "Each size is measured against its own unaligned model, so win rates of two sizes are not to be compared."
        ],
    )  # fmt: skip


def _size(point: Point) -> str:
    """`windtunnel`, or the last part of the model's folder."""
    return Path(str(point.setting("model.name"))).name


def _together(what: str, gaps: Mapping[str, Figure]) -> str:
    found = {direction(figure) for figure in gaps.values()}
    each = listed([f"{shown(figure, signed=True)} ({SAID[size].split()[0]})" for size, figure in gaps.items()])
    if found in ({"above"}, {"below"}):
        agree = "the same sign at every size"
    elif found == {"not distinguishable"}:
        agree = "not distinguishable at any size"
    else:
        agree = "the sizes do not all say the same"
    return f"{what}: {agree}: {each}."


QUESTION = Question(
    key="sizes",
    title="Three model sizes",
    asked="The same recipe on models of 0.3M, 1.3M and 2.9M parameters of the same family, labels with λ = 0.5.",
    needs=("sizes",),
    answer=answer,
)
