"""(d) Nine methods by true, raw and length-controlled win rate, and how far the latter two mislead.

Each method at the values that tuning picked for it on another world; differences against DPO are paired by seed and
prompt, and their p-values adjusted by Holm over the methods.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from experiments import tuning
from experiments.measurement import CORRELATION, Measurement, holm, mean, over_seeds, rank_correlation
from experiments.pictures import rows as interval_rows
from experiments.question import Answer, Numbers, Picture, Question, Sweeps
from experiments.questions.dead_zone import truth
from experiments.read_sweeps import Point, Sweep, difference
from experiments.words import claim, join_words, number, text_of
from trimtab.reporting.sections import Table

AGAINST = "dpo"
EVEN = 50.0  # what the untuned model has against itself, by every judge
KINDS = {"true": "true", "raw": "raw", "controlled": "length-controlled"}


@dataclass(frozen=True, slots=True)
class RankedMethod:
    """A method at one length bias of the labels: win rates in percent by kind; `gap`: its true rate less DPO's, in
    points, with Holm's adjusted p-value (None for DPO itself).
    """

    name: str
    point: Point
    rates: Mapping[str, Measurement]
    gap: Measurement | None
    p_adjusted: float | None = None

    @property
    def is_apart(self) -> bool:
        return self.p_adjusted is not None and self.p_adjusted < 0.05

    def row(self, bias: float) -> list[str]:
        point, gap, p = self.point, self.gap, self.p_adjusted
        values = f"{point.setting('train.learning_rate'):g}, {point.setting('objective.beta'):g}"
        regimes = join_words([f"{name} {point.regimes.count(name)}" for name in dict.fromkeys(point.regimes)])
        gap_text = "–" if gap is None else text_of(gap, with_sign=True)
        p_text = "–" if p is None else ("< 0.001" if p < 0.001 else number(p, 3))
        return [
            f"{bias:g}", self.name, values, *(text_of(self.rates[kind]) for kind in KINDS), gap_text, p_text, regimes
        ]  # fmt: skip


def answer(sweeps: Sweeps, numbers: Numbers) -> Answer:
    sweep = sweeps["ranking"]
    sentences: list[str] = []
    rows: list[list[str]] = []
    gaps: dict[str, dict[str, Measurement]] = {}
    for bias in sorted(sweep.values("windtunnel.length_bias")):
        methods = _methods(bias, numbers, sweep)
        sentences.append(_against_dpo(bias, methods))
        sentences += _judge_sentences(bias, {method.name: method.point for method in methods}, numbers, sweep)
        for method in sorted(methods, key=lambda method: -(method.rates["true"].value or 0)):
            rows.append(method.row(bias))
            if method.gap is not None:
                gaps.setdefault(method.name, {})[f"λ = {bias:g}"] = method.gap
        rows.append([f"{bias:g}", "untuned", "–", *(f"{EVEN:g}",) * 3, "–", "–", "–"])
    budget, exceptions = _budget(sweeps.get("tuning"), numbers, sweep)
    return Answer(
        sentences=sentences,
        table=Table(
            ("λ", "method", "lr, β", "true, %", "raw, %", "length-controlled, %", "true less DPO, points", "p (Holm)",
             "regime"),
            rows,
        ),
        picture=Picture(
            "ranking",
            interval_rows(
                gaps, below="true win rate less DPO's, points", title="Nine methods against DPO",
            ),
            f"Paired differences of true win rate against DPO. `{sweep.command}`",
        ),
        meaning=[budget],
        limits=[
            *exceptions,
            "One world, one size of model, one benchmark: the order of methods elsewhere may be another.",
        ],
    )  # fmt: skip


def _methods(bias: float, numbers: Numbers, sweep: Sweep) -> list[RankedMethod]:
    points = {point.setting("objective.name"): point for point in sweep.points_at(windtunnel__length_bias=bias)}
    rates = {name: _rates(point, numbers, sweep, f"ranking/{bias:g}/{name}") for name, point in points.items()}
    gaps = {
        name: numbers.add(
            f"ranking/{bias:g}/{name}/less-dpo",
            mean(difference(point, points[AGAINST], truth), unit="points"),
            sweep=sweep,
        )
        for name, point in points.items()
        if name != AGAINST
    }
    p_values = dict(zip(gaps, holm([gap.p_value for gap in gaps.values()]), strict=True))
    return [
        RankedMethod(name, point, rates[name], gaps.get(name), p_values.get(name)) for name, point in points.items()
    ]


def _rates(point: Point, numbers: Numbers, sweep: Sweep, name: str) -> dict[str, Measurement]:
    rates = {
        "true": mean(truth(point), unit="%"),
        "raw": mean(point.wins_KN("biased"), unit="%"),
        "controlled": point.pooled_rate("controlled") or over_seeds(point.rates("controlled"), unit="%"),
    }
    return {kind: numbers.add(f"{name}/{kind}", rate, sweep=sweep) for kind, rate in rates.items()}


def _against_dpo(bias: float, methods: Sequence[RankedMethod]) -> str:
    gaps = {method.name: method.gap for method in methods if method.gap is not None}
    start = f"λ = {bias:g}: of {len(gaps)} methods"
    names = [method.name for method in methods if method.is_apart]
    if not names:
        sizes = [gap.detectable for gap in gaps.values() if gap.detectable]
        power = f" (80 % power for {number(min(sizes))} to {number(max(sizes))} points before Holm)" if sizes else ""
        return f"{start} none can be told from DPO by true win rate after Holm{power}."
    texts = {name: f"{name} ({text_of(gaps[name], with_sign=True)})" for name in names}
    better = [text for name, text in texts.items() if (gaps[name].value or 0) > 0]
    worse = [text for name, text in texts.items() if (gaps[name].value or 0) < 0]
    parts = [f"{join_words(better)} better than DPO"] * bool(better) + [f"{join_words(worse)} worse"] * bool(worse)
    return f"{start} {join_words(parts)} in points of true win rate after Holm, the others not distinguishable."


def _judge_sentences(bias: float, points: Mapping[str, Point], numbers: Numbers, sweep: Sweep) -> list[str]:
    """Rank correlation with the truth over all methods and the untuned model, and the excess over an unbiased judge."""
    rates = {kind: _by_seed(points, kind) for kind in ("true", "raw", "controlled", "unbiased")}
    lines = []
    for kind in ("raw", "controlled"):
        name = f"ranking/{bias:g}/{kind}"
        tau = over_seeds(
            [rank_correlation(a, b) for a, b in zip(rates[kind], rates["true"], strict=True)],
            within=CORRELATION,
        )
        excess = over_seeds(
            [_mean_excess(a, b) for a, b in zip(rates[kind], rates["unbiased"], strict=True)],
            unit="points",
        )
        numbers.add(f"{name}/tau", tau, sweep=sweep)
        numbers.add(f"{name}/excess", excess, sweep=sweep)
        label = KINDS[kind]
        sentence = claim(
            excess,
            about=f"λ = {bias:g}: the length-biased judge's {label} rate less an unbiased judge's",
            up=f"λ = {bias:g}: the length-biased judge's {label} rate is too high",
            down=f"λ = {bias:g}: the length-biased judge's {label} rate is too low",
        )
        lines.append(f"{sentence}; it ranks the methods with Kendall's τ {text_of(tau, 2)} to the truth.")
    return lines


def _by_seed(points: Mapping[str, Point], kind: str) -> list[list[float]]:
    """A seed: the rate of every method, NaN where it has none, and of the untuned model."""
    columns = [point.rates(kind) for point in points.values()]
    rows = zip(*columns, strict=False)
    return [[*(math.nan if value is None else value for value in row), EVEN] for row in rows]


def _mean_excess(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x - y for x, y in zip(a[:-1], b[:-1], strict=True)) / (len(a) - 1)


def _budget(tuning_sweep: Sweep | None, numbers: Numbers, ranking: Sweep) -> tuple[str, list[str]]:
    """What the budget was; and which methods were ranked at other values than tuning picks, where any were."""
    if tuning_sweep is None:
        return "Tuning has not been run yet, so the values are not known to be fair.", []
    methods = tuning.tune(tuning.read_trials(tuning_sweep))
    n_trials = next(iter(methods.values())).n_trials
    for point in tuning_sweep.points:
        name = f"{point.setting('objective.name')}/lr={point.setting('train.learning_rate'):g}"
        rate = mean(truth(point), unit="%")
        numbers.add(f"tuning/{name}/beta={point.setting('objective.beta'):g}", rate, sweep=tuning_sweep)
    edges = [f"{name} ({join_words(list(method.at_edge))})" for name, method in methods.items() if method.at_edge]
    values = {
        point.setting("objective.name"): (point.setting("train.learning_rate"), point.setting("objective.beta"))
        for point in ranking.points
    }
    exceptions = [f"Not at its tuned values: {line}." for line in tuning.differences(methods, values)]
    return (
        f"Equal budget: {n_trials} points (learning rate × β) for each of {len(methods)} methods, one seed each, on "
        f"another world; the highest true win rate is ranked here. Picks at an edge of the grid: "
        f"{join_words(edges) or 'none'}. Margin, δ, τ and ε were not tuned."
    ), exceptions


QUESTION = Question(
    title="Nine methods, ranked by the truth and by a judge that likes length",
    text=(
        "The untuned model and eight objectives, each at its tuned learning rate and β, without and with a length bias "
        "in the labels; judged by the oracle, by a judge that likes length (raw), and by that judge with length "
        "controlled."
    ),
    needs=("ranking",),
    optional=("tuning",),
    answer=answer,
)
