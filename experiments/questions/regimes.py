"""(h) Where a run is linear, selective or starved, and whether objectives give the same model where it is linear."""

from __future__ import annotations

import math

import numpy as np

from experiments.drawings import plane
from experiments.figures_of import Figure, mean, over_seeds
from experiments.questions.dead_zone import truth
from experiments.section import Book, Drawing, Question, Section, Sweeps, Table
from experiments.sweeps_read import Point, Sweep, difference, pairs_of
from experiments.words import direction, number, shown
from trimtab import store
from trimtab.analysis.intervals import FloatArray

AGAINST = "dpo"
STARVING = ("windtunnel.pairs", "train.epochs", "objective.beta")
KEYS = ("objective.beta", "train.learning_rate", "train.epochs")


def answer(sweeps: Sweeps, book: Book) -> Section:
    sweep = sweeps["regimes"]
    rows: list[list[str]] = []
    groups: dict[str, list[tuple[Figure, Figure, str]]] = {}
    by_regime: dict[str, list[Figure]] = {}
    gaps: dict[str, Figure] = {}
    for point in (p for p in sweep.points if p.setting("objective.name") != AGAINST):
        values = {key.replace(".", "__"): point.setting(key) for key in KEYS}
        dpo = sweep.at(objective__name=AGAINST, **values)
        beta, rate, epochs = (point.setting(key) for key in KEYS)
        label = f"β {beta:g}, lr {rate:g}, {epochs:g} ep"
        name = f"regimes/{point.setting('objective.name')}/beta={beta:g}/lr={rate:g}/epochs={epochs:g}"
        far = book.keep(f"{name}/distance", over_seeds(distance(point, dpo), unit="%"), sweep=sweep)
        same = book.keep(f"{name}/same-answers", mean(_same(point, dpo), unit="%"), sweep=sweep)
        gap = book.keep(f"{name}/true", mean(difference(point, dpo, truth), unit="points"), sweep=sweep)
        regime = _both(point, dpo)
        by_regime.setdefault(regime, []).append(far)
        gaps[f"{point.setting('objective.name')}, {label}"] = gap
        groups.setdefault(regime, []).append((far, gap, ""))
        rows.append(
            [point.setting("objective.name"), label, _counts(point), _counts(dpo), shown(far), _digits(far),
             shown(same, 0), shown(gap, signed=True)]
        )  # fmt: skip
    starving = _starving(sweeps["starvation"], book) if "starvation" in sweeps else []
    return Section(
        answers=[*_answers(by_regime), _costly(gaps), *starving],
        table=Table(
            ("objective", "setting", "its regime", "DPO's regime", "log-ratios apart, %", "digits", "same answers, %",
             "true win rate less DPO's, points"),
            rows,
        ),
        drawing=Drawing(
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
    found: list[float | None] = []
    for i, j in zip(rows_a, rows_b, strict=True):
        ratios_a, ratios_b = a.log_ratios[i], b.log_ratios[j]
        size = float(np.linalg.norm(ratios_b))
        same_pairs = ratios_a.shape == ratios_b.shape
        found.append(100 * float(np.linalg.norm(ratios_a - ratios_b)) / size if same_pairs and size > 0 else None)
    return found


def _same(a: Point, b: Point) -> FloatArray:
    """[K, N]: 100 where both answered a prompt with the same text."""
    rows_a, rows_b = pairs_of(a, b)
    texts = [[_texts(point, k) for k in rows] for point, rows in ((a, rows_a), (b, rows_b))]
    return np.array([[100.0 * (x == y) for x, y in zip(*both, strict=True)] for both in zip(*texts, strict=True)])


def _texts(point: Point, row: int) -> list[str]:
    return [str(one["output"]) for one in store.read_json(point.runs[row] / "answers" / "windtunnel.json")]


def _both(a: Point, b: Point) -> str:
    names = {*a.regimes, *b.regimes}
    return f"both {names.pop()}" if len(names) == 1 else "mixed"


def _counts(point: Point) -> str:
    return ", ".join(f"{name} {point.regimes.count(name)}" for name in dict.fromkeys(point.regimes))


def _digits(far: Figure) -> str:
    return "–" if far.value is None else _said(far.value)


def _said(percent: float) -> str:
    """Digits to which two vectors agree that are so far apart."""
    return number(-math.log10(percent / 100)) if percent > 0 else "all"


def _answers(by_regime: dict[str, list[Figure]]) -> list[str]:
    linear = [far.value for far in by_regime.get("both linear", []) if far.value is not None]
    others = [
        far.value
        for name, found in by_regime.items()
        if name != "both linear"
        for far in found
        if far.value is not None
    ]
    if not linear:
        return ["No setting of this sweep was linear with both objectives, so equality there is not tested."]
    worst, best = max(linear), min(linear)
    told = f"to {_said(worst)} digits" if _said(worst) == _said(best) else f"to {_said(worst)} to {_said(best)} digits"
    answers = [
        f"In the linear regime log-ratios agree with DPO's {told} ({number(best)} to {number(worst)} % apart, "
        f"{len(linear)} settings)"
        + (f"; elsewhere they are {number(min(others))} to {number(max(others))} % apart." if others else ".")
    ]
    if others:
        near, far = sum(linear) / len(linear), sum(others) / len(others)
        told = (
            "the choice of objective matters more outside the linear regime"
            if far > near
            else "outside the linear regime runs are no further apart"
        )
        answers.append(f"{told}: mean distance {number(near)} % linear, {number(far)} % otherwise.")
    return answers


def _costly(gaps: dict[str, Figure]) -> str:
    """Where another objective than DPO makes a distinguishable difference to the truth."""
    apart = {label: gap for label, gap in gaps.items() if direction(gap) in ("above", "below")}
    told = "; ".join(f"{label}: {shown(gap, signed=True)}" for label, gap in apart.items())
    return f"The true win rate differs distinguishably from DPO's in {len(apart)} of {len(gaps)} settings" + (
        f" ({told} points)." if apart else "."
    )


def _starving(sweep: Sweep, book: Book) -> list[str]:
    """A hinge on few or many pairs, seen rarely or often: the settings that starved, and what the others were."""
    told: dict[str, str] = {}
    for point in sweep.points:
        pairs, epochs, beta = (point.setting(key) for key in STARVING)
        book.keep(
            f"starvation/pairs={pairs:g}/epochs={epochs:g}/beta={beta:g}/true", mean(truth(point), unit="%"),
            sweep=sweep,
        )  # fmt: skip
        told[f"{pairs:g} pairs, {epochs:g} ep, β {beta:g}"] = _counts(point)
    starved = [f"{label} ({regime})" for label, regime in told.items() if "starved" in regime]
    return [
        f"A hinge (m = 1) over pairs, epochs and β starved in {len(starved)} of {len(told)} settings"
        + (f": {'; '.join(starved)}." if starved else ".")
        + f" `{sweep.command}`"
    ]


QUESTION = Question(
    key="regimes",
    title="When does the choice of objective matter at all?",
    asked=(
        "DPO, APO-zero and APO-hinge-zero over β, learning rate and epochs: which runs are linear, selective or "
        "starved, and do the three give the same model where all are linear?"
    ),
    needs=("regimes",),
    wants=("starvation",),
    answer=answer,
)
