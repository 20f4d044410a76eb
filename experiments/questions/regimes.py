"""(h) Where a run is linear, selective or starved, and whether objectives give the same model where it is linear."""

from __future__ import annotations

import math

import numpy as np

from experiments.measurement import Measurement, mean, over_seeds
from experiments.pictures import plane
from experiments.question import Answer, Numbers, Picture, Question, Sweeps
from experiments.questions.dead_zone import truth
from experiments.read_sweeps import Point, Sweep, difference, pairs_of
from experiments.words import direction, number, text_of
from trimtab import store
from trimtab.analysis.intervals import FloatArray
from trimtab.reporting.sections import Table

AGAINST = "dpo"
STARVATION_KEYS = ("windtunnel.pairs", "train.epochs", "objective.beta")
KEYS = ("objective.beta", "train.learning_rate", "train.epochs")


def answer(sweeps: Sweeps, numbers: Numbers) -> Answer:
    sweep = sweeps["regimes"]
    rows: list[list[str]] = []
    groups: dict[str, list[tuple[Measurement, Measurement, str]]] = {}
    by_regime: dict[str, list[Measurement]] = {}
    gaps: dict[str, Measurement] = {}
    for point in (p for p in sweep.points if p.setting("objective.name") != AGAINST):
        values = {key.replace(".", "__"): point.setting(key) for key in KEYS}
        dpo = sweep.at(objective__name=AGAINST, **values)
        beta, rate, epochs = (point.setting(key) for key in KEYS)
        label = f"β {beta:g}, lr {rate:g}, {epochs:g} ep"
        name = f"regimes/{point.setting('objective.name')}/beta={beta:g}/lr={rate:g}/epochs={epochs:g}"
        far = numbers.add(f"{name}/distance", over_seeds(distance(point, dpo), unit="%"), sweep=sweep)
        same_answers = numbers.add(f"{name}/same-answers", mean(_same_answers(point, dpo), unit="%"), sweep=sweep)
        gap = numbers.add(f"{name}/true", mean(difference(point, dpo, truth), unit="points"), sweep=sweep)
        regime = _shared_regime(point, dpo)
        by_regime.setdefault(regime, []).append(far)
        gaps[f"{point.setting('objective.name')}, {label}"] = gap
        groups.setdefault(regime, []).append((far, gap, ""))
        rows.append(
            [point.setting("objective.name"), label, _counts(point), _counts(dpo), text_of(far), _digits(far.value),
             text_of(same_answers, 0), text_of(gap, with_sign=True)]
        )  # fmt: skip
    starvation = _starvation(sweeps["starvation"], numbers) if "starvation" in sweeps else []
    return Answer(
        sentences=[*_distance_sentences(by_regime), _costly_gaps(gaps), *starvation],
        table=Table(
            ("objective", "setting", "its regime", "DPO's regime", "log-ratios apart, %", "digits", "same answers, %",
             "true win rate less DPO's, points"),
            rows,
        ),
        picture=Picture(
            "regimes",
            plane(
                groups, below="distance of the log-ratios from DPO's, % of their size",
                beside="true win rate less DPO's, points", title="How unlike DPO a run is, by regime",
            ),
            f"A point a setting and objective. Same pairs, order and seed. `{sweep.command}`",
        ),
        meaning=[
            "Distance: ‖r − r(DPO)‖ / ‖r(DPO)‖ over both log-ratios of all pairs at their last visit, paired by seed; "
            "digits: −log₁₀ of it. Answers are sampled with the same noise, so equal models give equal answers."
        ],
        limits=[
            "Linear, selective and starved are named by shares (95 % and 5 %); a run near a border may be either."
        ],
    )  # fmt: skip


def distance(a: Point, b: Point) -> list[float | None]:
    """A seed: percent of the size of B's log-ratios by which A's differ from them."""
    rows_a, rows_b = pairs_of(a, b)
    distances: list[float | None] = []
    for i, j in zip(rows_a, rows_b, strict=True):
        ratios_a, ratios_b = a.log_ratios[i], b.log_ratios[j]
        size = float(np.linalg.norm(ratios_b))
        same_pairs = ratios_a.shape == ratios_b.shape
        distances.append(100 * float(np.linalg.norm(ratios_a - ratios_b)) / size if same_pairs and size > 0 else None)
    return distances


def _same_answers(a: Point, b: Point) -> FloatArray:
    """[K, N]: 100 where both answered a prompt with the same text."""
    rows_a, rows_b = pairs_of(a, b)
    texts = [[_texts(point, k) for k in rows] for point, rows in ((a, rows_a), (b, rows_b))]
    return np.array([[100.0 * (x == y) for x, y in zip(*seed, strict=True)] for seed in zip(*texts, strict=True)])


def _texts(point: Point, row: int) -> list[str]:
    return [
        str(answer_row["output"]) for answer_row in store.read_json(point.runs[row] / "answers" / "windtunnel.json")
    ]


def _shared_regime(a: Point, b: Point) -> str:
    names = {*a.regimes, *b.regimes}
    return f"both {names.pop()}" if len(names) == 1 else "mixed"


def _counts(point: Point) -> str:
    return ", ".join(f"{name} {point.regimes.count(name)}" for name in dict.fromkeys(point.regimes))


def _digits(percent: float | None) -> str:
    """Digits to which two vectors agree that are so far apart."""
    if percent is None:
        return "–"
    return number(-math.log10(percent / 100)) if percent > 0 else "all"


def _distance_sentences(by_regime: dict[str, list[Measurement]]) -> list[str]:
    linear = [far.value for far in by_regime.get("both linear", []) if far.value is not None]
    nonlinear = [
        far.value
        for name, distances in by_regime.items()
        if name != "both linear"
        for far in distances
        if far.value is not None
    ]
    if not linear:
        return ["No setting of this sweep was linear with both objectives, so equality there is not tested."]
    worst, best = max(linear), min(linear)
    fewest, most = _digits(worst), _digits(best)
    agreement = f"to {fewest} digits" if fewest == most else f"to {fewest} to {most} digits"
    sentences = [
        f"In the linear regime log-ratios agree with DPO's {agreement} ({number(best)} to {number(worst)} % apart, "
        f"{len(linear)} settings)"
        + (f"; elsewhere they are {number(min(nonlinear))} to {number(max(nonlinear))} % apart." if nonlinear else ".")
    ]
    if nonlinear:
        near, far = sum(linear) / len(linear), sum(nonlinear) / len(nonlinear)
        comparison = (
            "the choice of objective matters more outside the linear regime"
            if far > near
            else "outside the linear regime runs are no further apart"
        )
        sentences.append(f"{comparison}: mean distance {number(near)} % linear, {number(far)} % otherwise.")
    return sentences


def _costly_gaps(gaps: dict[str, Measurement]) -> str:
    """Where another objective than DPO makes a distinguishable difference to the truth."""
    apart = {label: gap for label, gap in gaps.items() if direction(gap) in ("above", "below")}
    gap_texts = "; ".join(f"{label}: {text_of(gap, with_sign=True)}" for label, gap in apart.items())
    return f"The true win rate differs distinguishably from DPO's in {len(apart)} of {len(gaps)} settings" + (
        f" ({gap_texts} points)." if apart else "."
    )


def _starvation(sweep: Sweep, numbers: Numbers) -> list[str]:
    """A hinge on few or many pairs, seen rarely or often: the settings that starved, and what the others were."""
    regimes: dict[str, str] = {}
    for point in sweep.points:
        pairs, epochs, beta = (point.setting(key) for key in STARVATION_KEYS)
        numbers.add(
            f"starvation/pairs={pairs:g}/epochs={epochs:g}/beta={beta:g}/true", mean(truth(point), unit="%"),
            sweep=sweep,
        )  # fmt: skip
        regimes[f"{pairs:g} pairs, {epochs:g} ep, β {beta:g}"] = _counts(point)
    starved_labels = [f"{label} ({regime})" for label, regime in regimes.items() if "starved" in regime]
    return [
        f"A hinge (m = 1) over pairs, epochs and β starved in {len(starved_labels)} of {len(regimes)} settings"
        + (f": {'; '.join(starved_labels)}." if starved_labels else ".")
        + f" `{sweep.command}`"
    ]


QUESTION = Question(
    title="When does the choice of objective matter at all?",
    text=(
        "DPO, APO-zero and APO-hinge-zero over β, learning rate and epochs: which runs are linear, selective or "
        "starved, and do the three give the same model where all are linear?"
    ),
    needs=("regimes",),
    optional=("starvation",),
    answer=answer,
)
