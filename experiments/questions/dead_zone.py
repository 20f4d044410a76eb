"""(b) Does the dead zone cause less length exploitation, or does it only train less?

The same pairs, seeds and steps, with a dead zone and without: the hinge against the linear loss (a margin that no
response reaches), and margin_sigmoid against DPO, which is δ = 0. What is left of the difference at equal drift says
whether the dead zone did more than stop early: the linear loss at smaller learning rates gives the control that has
gone just as far from the reference.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from experiments.measurement import Measurement, mean, over_seeds
from experiments.pictures import along, plane
from experiments.question import Answer, Numbers, Picture, Question, Sweeps
from experiments.read_sweeps import Point, Sweep, difference, drift, median_of
from experiments.words import claim, direction, power, text_of
from trimtab.analysis.intervals import FloatArray
from trimtab.reporting.sections import Table

LINEAR = 1000  # a margin that no response reaches: the linear loss
HINGE_AT, BIAS_AT = 1, 0.5  # what the headline is about; the table has every setting


@dataclass(frozen=True, slots=True)
class Effect:
    """With the dead zone less without, paired by seed and prompt: tokens an answer, points of true win rate."""

    length: Measurement
    truth: Measurement

    def cells(self) -> list[str]:
        return [text_of(self.length, with_sign=True), text_of(self.truth, with_sign=True)]


Effects = dict[tuple[float, float], Effect]  # by margin and length bias of the labels


def answer(sweeps: Sweeps, numbers: Numbers) -> Answer:
    hinge = sweeps["dead-zone"]
    biases = hinge.values("windtunnel.length_bias")
    margins = [margin for margin in hinge.values("objective.margin") if margin != LINEAR]
    effects = {
        (margin, bias): _effect(
            hinge.at(objective__margin=margin, windtunnel__length_bias=bias),
            hinge.at(objective__margin=LINEAR, windtunnel__length_bias=bias),
            numbers, sweep=hinge, name=f"dead-zone/margin={margin:g}/bias={bias:g}",
        )
        for margin in margins
        for bias in biases
    }  # fmt: skip
    main = HINGE_AT if HINGE_AT in margins else margins[0]
    worst = BIAS_AT if BIAS_AT in biases else max(biases)
    sentences = [_length_claim(effects[main, worst], f"the hinge at m = {main:g}, λ = {worst:g}")]
    sentences += [
        _truth_claim(effects[main, bias], f"m = {main:g}, λ = {bias:g}") for bias in dict.fromkeys((worst, min(biases)))
    ]
    rows = [[f"hinge m = {margin:g}", f"{bias:g}", *effect.cells()] for (margin, bias), effect in effects.items()]
    if "dead-zone-sigmoid" in sweeps:
        sigmoid_rows, sentence = _sigmoid(sweeps["dead-zone-sigmoid"], numbers)
        rows += sigmoid_rows
        sentences.append(sentence)
    equal = _equal_drift(hinge, sweeps["less-training"], numbers) if "less-training" in sweeps else None
    by_margin = equal.sentences if equal else {}
    return Answer(
        sentences=[*sentences, *by_margin.values()],
        short=" ".join([sentences[0], *([by_margin[main]] if main in by_margin else [])]),
        table=Table(("dead zone", "λ", "length, tokens", "true win rate, points"), rows),
        picture=equal.picture if equal else _picture(effects, margins, biases, hinge),
        meaning=[_count(effects)],
        limits=[
            "A dead zone also trains less. Only the comparison at equal drift tells the two apart"
            + ("." if equal else ", and that sweep (less-training) has not been run yet.")
            + " It interpolates between learning rates of the linear loss, whose paths need not be the hinge's."
        ],
    )


def _picture(effects: Effects, margins: Sequence[float], biases: Sequence[float], hinge: Sweep) -> Picture:
    lengths = {f"m = {m:g}": [effects[m, bias].length for bias in biases] for m in margins}
    truths = {f"m = {m:g}": [effects[m, bias].truth for bias in biases] for m in margins}
    return Picture(
        "dead-zone",
        along(
            {"length, tokens": lengths, "true win rate, points": truths},
            [f"{bias:g}" for bias in biases],
            below="λ of the labels",
            title="Hinge less linear loss: length and true win rate",
        ),
        f"Hinge less linear loss (m = {LINEAR}), paired by seed and prompt. `{hinge.command}`",
    )


def _effect(a: Point, b: Point, numbers: Numbers, *, sweep: Sweep, name: str) -> Effect:
    return Effect(
        numbers.add(f"{name}/length", mean(difference(a, b, tokens), unit="tokens"), sweep=sweep),
        numbers.add(f"{name}/true", mean(difference(a, b, truth), unit="points"), sweep=sweep),
    )


def tokens(point: Point) -> FloatArray:
    return point.tokens_KN


def truth(point: Point) -> FloatArray:
    return point.wins_KN()


def _length_claim(effect: Effect, setting: str) -> str:
    return (
        claim(
            effect.length,
            about=f"length of answers with the dead zone less without ({setting})",
            up=f"with the dead zone answers are longer, not shorter ({setting}, against the same loss without one)",
            down=f"with the dead zone answers are shorter ({setting}, against the same loss without one)",
        )
        + "."
    )


def _truth_claim(effect: Effect, setting: str) -> str:
    return (
        claim(
            effect.truth,
            about=f"true win rate with the dead zone less without ({setting})",
            up=f"the dead zone gives the higher true win rate ({setting})",
            down=f"the dead zone gives the lower true win rate ({setting})",
        )
        + "."
    )


def _count(effects: Effects) -> str:
    lengths = [direction(effect.length) for effect in effects.values()]
    return (
        f"Of {len(lengths)} settings (margin × λ) the dead zone shortened answers in {lengths.count('below')}, "
        f"lengthened them in {lengths.count('above')}, and could not be told from the linear loss in "
        f"{lengths.count('not distinguishable')}. One in twenty leaves zero out by chance."
    )


def _sigmoid(sweep: Sweep, numbers: Numbers) -> tuple[list[list[str]], str]:
    """Rows of the table, and the sentence of the last of them: the largest δ and λ."""
    rows = []
    for bias in sweep.values("windtunnel.length_bias"):
        for delta in (delta for delta in sweep.values("objective.delta") if delta):
            effect = _effect(
                sweep.at(objective__delta=delta, windtunnel__length_bias=bias),
                sweep.at(objective__delta=0, windtunnel__length_bias=bias),
                numbers, sweep=sweep, name=f"dead-zone-sigmoid/delta={delta:g}/bias={bias:g}",
            )  # fmt: skip
            rows.append([f"margin_sigmoid δ = {delta:g}, less DPO", f"{bias:g}", *effect.cells()])
    return rows, _length_claim(effect, f"margin_sigmoid δ = {delta:g} against DPO, λ = {bias:g}")


# --- at equal drift --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EqualDrift:
    """A sentence a margin of the hinge, and length against drift."""

    sentences: dict[float, str]
    picture: Picture


def _equal_drift(hinge: Sweep, less: Sweep, numbers: Numbers) -> EqualDrift:
    """The hinge against the linear loss at the learning rate that drifts as far, interpolated between two of them."""
    bias = max(less.values("windtunnel.length_bias"))
    rates = sorted(less.values("train.learning_rate"))
    ladder = [less.at(train__learning_rate=rate, windtunnel__length_bias=bias) for rate in rates]
    linear_points = [
        (*_place(point, numbers, less, f"linear/lr={rate:g}"), f"{rate:g}")
        for rate, point in zip(rates, ladder, strict=True)
    ]
    hinge_points: list[tuple[Measurement, Measurement, str]] = []
    sentences = {}
    for margin in (m for m in hinge.values("objective.margin") if m != LINEAR):
        for point in hinge.points_at(objective__margin=margin, windtunnel__length_bias=bias)[:1]:
            place = _place(point, numbers, hinge, f"hinge/m={margin:g}")
            hinge_points.append((*place, f"m = {margin:g}"))
            sentences[margin] = _at_equal_drift(margin, bias, point, ladder, numbers, less)
    groups = {"linear loss, by learning rate": linear_points, "hinge, by margin": hinge_points}
    picture = Picture(
        "dead-zone",
        plane(
            groups, below="drift, mean |log-ratio| in nats a response", beside="tokens an answer",
            title="Length against drift: hinge and linear loss", lines=["linear loss, by learning rate"],
        ),
        f"Length of answers against drift from the reference, λ = {bias:g}. `{less.command}`, `{hinge.command}`",
    )  # fmt: skip
    return EqualDrift(sentences, picture)


def _at_equal_drift(
    margin: float, bias: float, point: Point, ladder: list[Point], numbers: Numbers, less: Sweep
) -> str:
    length = _less_ladder(point, ladder, tokens, "tokens")
    true = _less_ladder(point, ladder, truth, "points")
    if length is None or true is None:
        return f"At equal drift, m = {margin:g}: no learning rate of the linear loss drifts as little."
    numbers.add(f"equal-drift/m={margin:g}/length", length, sweep=less)
    numbers.add(f"equal-drift/m={margin:g}/true", true, sweep=less)
    return _verdict(margin, bias, length, true)


def _place(point: Point, numbers: Numbers, sweep: Sweep, name: str) -> tuple[Measurement, Measurement]:
    return (
        numbers.add(f"equal-drift/{name}/drift", over_seeds(drift(point), unit="nats"), sweep=sweep),
        numbers.add(f"equal-drift/{name}/tokens", mean(point.tokens_KN, unit="tokens"), sweep=sweep),
    )


def _verdict(margin: float, bias: float, length: Measurement, true: Measurement) -> str:
    words = {
        "below": "shorter answers are not only less training",
        "above": "less training would have shortened them more",
        "not distinguishable": "the shorter answers are what less training gives",
        "unknown": "no interval",
    }
    return (
        f"At equal drift (m = {margin:g}, λ = {bias:g}) {words[direction(length)]}: {text_of(length, with_sign=True)} "
        f"tokens{power(length)}, true win rate {text_of(true, with_sign=True)} points{power(true)}."
    )


def _less_ladder(point: Point, ladder: list[Point], of: Callable[[Point], FloatArray], unit: str) -> Measurement | None:
    """Point less the ladder's interpolation at the point's own drift; None where the ladder does not reach it."""
    heights = [median_of(drift(rung)) for rung in ladder]
    target = median_of(drift(point))
    order = list(np.argsort(heights))
    for low, high in itertools.pairwise(order):
        if heights[low] <= target <= heights[high]:
            share = (target - heights[low]) / (heights[high] - heights[low])
            to_low, to_high = (difference(point, ladder[i], of) for i in (low, high))
            n = min(len(to_low), len(to_high))
            return mean((1 - share) * to_low[:n] + share * to_high[:n], unit=unit)
    return None


QUESTION = Question(
    title="Does the dead zone cause less length exploitation?",
    text=(
        "The length bias λ of the labels and the dead zone are varied, everything else is held: the hinge against the "
        f"same loss without a reachable dead zone (m = {LINEAR}: linear), margin_sigmoid against DPO (δ = 0), paired "
        "by seed and prompt."
    ),
    needs=("dead-zone",),
    optional=("dead-zone-sigmoid", "less-training"),
    answer=answer,
)
