"""(b) Does the dead zone cause less length exploitation, or does it only train less?

The same pairs, seeds and steps, with a dead zone and without: the hinge against the linear loss (a margin that no
response reaches), and margin_sigmoid against DPO, which is δ = 0. What is left of the difference at equal drift says
whether the dead zone did more than stop early: the linear loss at smaller learning rates gives the control that has
gone just as far from the reference.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from experiments.drawings import along, plane
from experiments.figures_of import Figure, mean, over_seeds
from experiments.section import Book, Drawing, Question, Section, Sweeps, Table
from experiments.sweeps_read import Point, Sweep, difference, drift, median_of
from experiments.words import claim, direction, power, shown
from trimtab.analysis.intervals import FloatArray

LINEAR = 1000  # a margin that no response reaches: the linear loss
HINGE_AT, BIAS_AT = 1, 0.5  # what the headline is about; the table has every setting


def answer(sweeps: Sweeps, book: Book) -> Section:
    hinge = sweeps["dead-zone"]
    bias = hinge.values("windtunnel.length_bias")
    margins = [margin for margin in hinge.values("objective.margin") if margin != LINEAR]
    told = {
        (margin, value): _against(
            hinge.at(objective__margin=margin, windtunnel__length_bias=value),
            hinge.at(objective__margin=LINEAR, windtunnel__length_bias=value),
            book, sweep=hinge, name=f"dead-zone/margin={margin:g}/bias={value:g}",
        )
        for margin in margins
        for value in bias
    }  # fmt: skip
    main = HINGE_AT if HINGE_AT in margins else margins[0]
    worst = BIAS_AT if BIAS_AT in bias else max(bias)
    answers = [_headline(told[main, worst][0], f"the hinge at m = {main:g}, λ = {worst:g}")]
    answers += [
        _of_truth(told[main, value][1], f"m = {main:g}, λ = {value:g}") for value in dict.fromkeys((worst, min(bias)))
    ]
    rows = [_row(f"hinge m = {margin:g}", value, *figures) for (margin, value), figures in told.items()]
    meaning = [_count(told)]
    if "dead-zone-sigmoid" in sweeps:
        rows += _sigmoid(sweeps["dead-zone-sigmoid"], book, answers)
    at_equal_drift: dict[float, str] = {}
    equal = _equal_drift(hinge, sweeps["less-training"], book, at_equal_drift) if "less-training" in sweeps else None
    return Section(
        answers=[*answers, *at_equal_drift.values()],
        short=" ".join([answers[0], *([at_equal_drift[main]] if main in at_equal_drift else [])]),
        table=Table(("dead zone", "λ", "length, tokens", "true win rate, points"), rows),
        drawing=equal
        or Drawing(
            "dead-zone",
            along(
                {
                    "length, tokens": {f"m = {m:g}": [told[m, value][0] for value in bias] for m in margins},
                    "true win rate, points": {f"m = {m:g}": [told[m, value][1] for value in bias] for m in margins},
                },
                [f"{value:g}" for value in bias],
                below="λ of the labels",
                title="Hinge less linear loss: length and true win rate",
            ),
            f"Hinge less linear loss (m = {LINEAR}), paired by seed and prompt. `{hinge.command}`",
        ),
        meaning=meaning,
        limits=[
            "A dead zone also trains less. Only the comparison at equal drift tells the two apart"
            + ("." if equal else ", and that sweep (less-training) has not been run yet.")
            + " It interpolates between learning rates of the linear loss, whose paths need not be the hinge's."
        ],
    )


def _against(a: Point, b: Point, book: Book, *, sweep: Sweep, name: str) -> tuple[Figure, Figure]:
    return (
        book.keep(f"{name}/length", mean(difference(a, b, tokens), unit="tokens"), sweep=sweep),
        book.keep(f"{name}/true", mean(difference(a, b, truth), unit="points"), sweep=sweep),
    )


def tokens(point: Point) -> FloatArray:
    return point.tokens_KN


def truth(point: Point) -> FloatArray:
    return point.wins_KN()


def _headline(figure: Figure, where: str) -> str:
    return (
        claim(
            figure,
            about=f"length of answers with the dead zone less without ({where})",
            up=f"with the dead zone answers are longer, not shorter ({where}, against the same loss without one)",
            down=f"with the dead zone answers are shorter ({where}, against the same loss without one)",
        )
        + "."
    )


def _of_truth(figure: Figure, where: str) -> str:
    return (
        claim(
            figure,
            about=f"true win rate with the dead zone less without ({where})",
            up=f"the dead zone gives the higher true win rate ({where})",
            down=f"the dead zone gives the lower true win rate ({where})",
        )
        + "."
    )


def _row(what: str, value: float, length: Figure, true: Figure) -> list[str]:
    return [what, f"{value:g}", shown(length, signed=True), shown(true, signed=True)]


def _count(told: dict[tuple[float, float], tuple[Figure, Figure]]) -> str:
    lengths = [direction(length) for length, _ in told.values()]
    return (
        f"Of {len(lengths)} settings (margin × λ) the dead zone shortened answers in {lengths.count('below')}, "
        f"lengthened them in {lengths.count('above')}, and could not be told from the linear loss in "
        f"{lengths.count('not distinguishable')}. One in twenty leaves zero out by chance."
    )


def _sigmoid(sweep: Sweep, book: Book, answers: list[str]) -> list[list[str]]:
    rows = []
    for value in sweep.values("windtunnel.length_bias"):
        for delta in (delta for delta in sweep.values("objective.delta") if delta):
            length, true = _against(
                sweep.at(objective__delta=delta, windtunnel__length_bias=value),
                sweep.at(objective__delta=0, windtunnel__length_bias=value),
                book, sweep=sweep, name=f"dead-zone-sigmoid/delta={delta:g}/bias={value:g}",
            )  # fmt: skip
            rows.append(_row(f"margin_sigmoid δ = {delta:g}, less DPO", value, length, true))
    where = f"margin_sigmoid δ = {delta:g} against DPO, λ = {value:g}"
    answers.append(_headline(length, where))
    return rows


# --- at equal drift --------------------------------------------------------------------------------------------------


def _equal_drift(hinge: Sweep, less: Sweep, book: Book, told: dict[float, str]) -> Drawing | None:
    """The hinge against the linear loss at the learning rate that drifts as far, interpolated between two of them.

    `told` gets a sentence a margin.
    """
    value = max(less.values("windtunnel.length_bias"))
    rates = sorted(less.values("train.learning_rate"))
    ladder = [less.at(train__learning_rate=rate, windtunnel__length_bias=value) for rate in rates]
    groups: dict[str, list[tuple[Figure, Figure, str]]] = {"linear loss, by learning rate": []}
    for rate, point in zip(rates, ladder, strict=True):
        groups["linear loss, by learning rate"].append(
            (*_placed(point, book, less, f"linear/lr={rate:g}"), f"{rate:g}")
        )
    groups["hinge, by margin"] = []
    for margin in (m for m in hinge.values("objective.margin") if m != LINEAR):
        found = hinge.where(objective__margin=margin, windtunnel__length_bias=value)
        if not found:
            continue
        groups["hinge, by margin"].append((*_placed(found[0], book, hinge, f"hinge/m={margin:g}"), f"m = {margin:g}"))
        figures = [_at_equal_drift(found[0], ladder, of, unit) for of, unit in ((tokens, "tokens"), (truth, "points"))]
        if figures[0] is None or figures[1] is None:
            told[margin] = f"At equal drift, m = {margin:g}: no learning rate of the linear loss drifts as little."
            continue
        length, true = (
            book.keep(f"equal-drift/m={margin:g}/{what}", figure, sweep=less)
            for what, figure in zip(("length", "true"), figures, strict=True)
            if figure is not None
        )
        told[margin] = _verdict(margin, value, length, true)
    return Drawing(
        "dead-zone",
        plane(
            groups, below="drift, mean |log-ratio| in nats a response", beside="tokens an answer",
            title="Length against drift: hinge and linear loss", joined=["linear loss, by learning rate"],
        ),
        f"Length of answers against drift from the reference, λ = {value:g}. `{less.command}`, `{hinge.command}`",
    )  # fmt: skip


def _placed(point: Point, book: Book, sweep: Sweep, name: str) -> tuple[Figure, Figure]:
    return (
        book.keep(f"equal-drift/{name}/drift", over_seeds(drift(point), unit="nats"), sweep=sweep),
        book.keep(f"equal-drift/{name}/tokens", mean(point.tokens_KN, unit="tokens"), sweep=sweep),
    )


def _verdict(margin: float, value: float, length: Figure, true: Figure) -> str:
    words = {
        "below": "shorter answers are not only less training",
        "above": "less training would have shortened them more",
        "not distinguishable": "the shorter answers are what less training gives",
        "unknown": "no interval",
    }
    return (
        f"At equal drift (m = {margin:g}, λ = {value:g}) {words[direction(length)]}: {shown(length, signed=True)} "
        f"tokens{power(length)}, true win rate {shown(true, signed=True)} points{power(true)}."
    )


def _at_equal_drift(point: Point, ladder: list[Point], of: Callable[[Point], FloatArray], unit: str) -> Figure | None:
    """Point less the ladder's interpolation at the point's own drift; None where the ladder does not reach it."""
    heights = [median_of(drift(one)) for one in ladder]
    wanted = median_of(drift(point))
    order = list(np.argsort(heights))
    for low, high in itertools.pairwise(order):
        if heights[low] <= wanted <= heights[high]:
            share = (wanted - heights[low]) / (heights[high] - heights[low])
            to_low, to_high = (difference(point, ladder[i], of) for i in (low, high))
            n = min(len(to_low), len(to_high))
            return mean((1 - share) * to_low[:n] + share * to_high[:n], unit=unit)
    return None


QUESTION = Question(
    key="dead-zone",
    title="Does the dead zone cause less length exploitation?",
    asked=(
        "The length bias λ of the labels and the dead zone are varied, everything else is held: the hinge against the "
        f"same loss without a reachable dead zone (m = {LINEAR}: linear), margin_sigmoid against DPO (δ = 0), paired "
        "by seed and prompt."
    ),
    needs=("dead-zone",),
    wants=("dead-zone-sigmoid", "less-training"),
    answer=answer,
)
