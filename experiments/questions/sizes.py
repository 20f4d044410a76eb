"""(f) Three sizes of the embedded model: does what holds for one hold for the others?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from experiments.measurement import Measurement, mean
from experiments.pictures import along
from experiments.question import Answer, Numbers, Picture, Question, Sweeps
from experiments.questions.dead_zone import tokens, truth
from experiments.read_sweeps import Point, difference
from experiments.words import claim, direction, join_words, text_of
from trimtab.reporting.sections import Table

AGAINST, HINGE = "dpo", "apo_hinge_zero"
ORDER = ("small", "windtunnel", "large")
LABELS = {"small": "0.3M", "windtunnel": "1.3M (embedded)", "large": "2.9M"}


def answer(sweeps: Sweeps, numbers: Numbers) -> Answer:
    sweep = sweeps["sizes"]
    sizes = sorted({_size(point) for point in sweep.points}, key=ORDER.index)
    names = sweep.values("objective.name")
    by = {(_size(point), point.setting("objective.name")): point for point in sweep.points}
    rows, gaps = [], {}
    for size in sizes:
        for name in names:
            point, key = by[size, name], f"sizes/{size}/{name}"
            true = numbers.add(f"{key}/true", mean(truth(point), unit="%"), sweep=sweep)
            growth = numbers.add(
                f"{key}/growth", mean(tokens(point) - point.tokens_before_N, unit="tokens"), sweep=sweep
            )
            rows.append([LABELS[size], name, text_of(true), text_of(growth, with_sign=True)])
        gaps[size] = [
            numbers.add(
                f"sizes/{size}/hinge-less-dpo/{name}",
                mean(difference(by[size, HINGE], by[size, AGAINST], of), unit=unit),
                sweep=sweep,
            )
            for name, of, unit in (("true", truth, "points"), ("length", tokens, "tokens"))
        ]
    return Answer(
        sentences=[
            _together("true win rate, hinge less DPO", {size: gap[0] for size, gap in gaps.items()}),
            _together("length, hinge less DPO", {size: gap[1] for size, gap in gaps.items()}),
        ],
        table=Table(("model", "objective", "true win rate, %", "growth, tokens"), rows),
        picture=Picture(
            "sizes",
            along(
                {
                    "true win rate, points": {"hinge less DPO": [gaps[size][0] for size in sizes]},
                    "length, tokens": {"hinge less DPO": [gaps[size][1] for size in sizes]},
                },
                [LABELS[size].split()[0] for size in sizes], below="parameters",
                title="Hinge less DPO at three model sizes",
            ),
            f"λ = {sweep.points[0].setting('windtunnel.length_bias'):g}. `{sweep.command}`",
        ),
        meaning=[
            claim(
                gaps[size][0], about=f"{LABELS[size]}: true win rate, hinge less DPO",
                up=f"{LABELS[size]}: the hinge has the higher true win rate",
                down=f"{LABELS[size]}: DPO has the higher true win rate",
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


def _together(name: str, gaps: Mapping[str, Measurement]) -> str:
    directions = {direction(figure) for figure in gaps.values()}
    texts = join_words(
        [f"{text_of(figure, with_sign=True)} ({LABELS[size].split()[0]})" for size, figure in gaps.items()]
    )
    if directions in ({"above"}, {"below"}):
        agree = "the same sign at every size"
    elif directions == {"not distinguishable"}:
        agree = "not distinguishable at any size"
    else:
        agree = "the sizes do not all say the same"
    return f"{name}: {agree}: {texts}."


QUESTION = Question(
    title="Three model sizes",
    text="The same recipe on models of 0.3M, 1.3M and 2.9M parameters of the same family, labels with λ = 0.5.",
    needs=("sizes",),
    answer=answer,
)
