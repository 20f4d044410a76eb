"""(d) Nine methods by true, raw and length-controlled win rate, and how far the latter two mislead.

Each method at the values that tuning picked for it on another world; differences against DPO are paired by seed and
prompt, and their p-values adjusted by Holm over the methods.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from experiments import tuning
from experiments.drawings import rows as drawn_rows
from experiments.figures_of import CORRELATION, Figure, from_estimate, holm, mean, over_seeds, rank_correlation
from experiments.questions.dead_zone import truth
from experiments.section import Book, Drawing, Question, Section, Sweeps, Table
from experiments.sweeps_read import Point, Sweep, difference
from experiments.words import claim, listed, number, shown

AGAINST = "dpo"
EVEN = 50.0  # what the untuned model has against itself, by every judge
KINDS = {"true": "true", "raw": "raw", "controlled": "length-controlled"}


def answer(sweeps: Sweeps, book: Book) -> Section:
    sweep = sweeps["ranking"]
    answers: list[str] = []
    table: list[list[str]] = []
    drawn: dict[str, dict[str, Figure]] = {}
    limits = ["One world, one size of model, one benchmark: the order of methods elsewhere may be another."]
    for bias in sorted(sweep.values("windtunnel.length_bias")):
        points = {p.setting("objective.name"): p for p in sweep.where(windtunnel__length_bias=bias)}
        rates = {name: _rates(point, book, sweep, f"ranking/{bias:g}/{name}") for name, point in points.items()}
        gaps = {
            name: book.keep(
                f"ranking/{bias:g}/{name}/less-dpo",
                mean(difference(point, points[AGAINST], truth), unit="points"),
                sweep=sweep,
            )
            for name, point in points.items()
            if name != AGAINST
        }
        adjusted = dict(zip(gaps, holm([gap.p_value for gap in gaps.values()]), strict=True))
        answers.append(_against_dpo(bias, gaps, adjusted))
        answers += _misleading(bias, points, book, sweep)
        for name in sorted(points, key=lambda name: -(rates[name]["true"].value or 0)):
            table.append(_row(bias, name, points[name], rates[name], gaps.get(name), adjusted.get(name)))
            drawn.setdefault(name, {}).update({f"λ = {bias:g}": gaps[name]} if name in gaps else {})
        table.append([f"{bias:g}", "untuned", "–", *(f"{EVEN:g}",) * 3, "–", "–", "–"])
    told, untuned = _tuning(sweeps.get("tuning"), book, sweep)
    limits = [*untuned, *limits]
    return Section(
        answers=answers,
        table=Table(
            ("λ", "method", "lr, β", "true, %", "raw, %", "length-controlled, %", "true less DPO, points", "p (Holm)",
             "regime"),
            table,
        ),
        drawing=Drawing(
            "ranking",
            drawn_rows(
                {name: one for name, one in drawn.items() if one},
                below="true win rate less DPO's, points", title="Nine methods against DPO",
            ),
            f"Paired differences of true win rate against DPO. `{sweep.command}`",
        ),
        meaning=[told] if told else [],
        limits=limits,
    )  # fmt: skip


def _rates(point: Point, book: Book, sweep: Sweep, name: str) -> dict[str, Figure]:
    found = {"true": mean(truth(point), unit="%"), "raw": mean(point.wins_KN("biased"), unit="%")}
    pooled = point.pooled_rate("controlled")
    found["controlled"] = from_estimate(pooled, unit="%") if pooled else over_seeds(point.rates("controlled"), unit="%")
    return {kind: book.keep(f"{name}/{kind}", figure, sweep=sweep) for kind, figure in found.items()}


def _row(
    bias: float, name: str, point: Point, rates: Mapping[str, Figure], gap: Figure | None, adjusted: float | None
) -> list[str]:
    values = f"{point.setting('train.learning_rate'):g}, {point.setting('objective.beta'):g}"
    regimes = listed([f"{kind} {point.regimes.count(kind)}" for kind in dict.fromkeys(point.regimes)])
    against = "–" if gap is None else shown(gap, signed=True)
    p = "–" if adjusted is None else ("< 0.001" if adjusted < 0.001 else number(adjusted, 3))
    return [f"{bias:g}", name, values, *(shown(rates[kind]) for kind in KINDS), against, p, regimes]


def _against_dpo(bias: float, gaps: Mapping[str, Figure], adjusted: Mapping[str, float | None]) -> str:
    apart = {name: gap for name, gap in gaps.items() if (p := adjusted[name]) is not None and p < 0.05}
    where = f"λ = {bias:g}: of {len(gaps)} methods"
    if not apart:
        seen = [gap.detectable for gap in gaps.values() if gap.detectable]
        power = f" (80 % power for {number(min(seen))} to {number(max(seen))} points before Holm)" if seen else ""
        return f"{where} none can be told from DPO by true win rate after Holm{power}."
    better = [f"{name} ({shown(gap, signed=True)})" for name, gap in apart.items() if (gap.value or 0) > 0]
    worse = [f"{name} ({shown(gap, signed=True)})" for name, gap in apart.items() if (gap.value or 0) < 0]
    told = [f"{listed(better)} better than DPO"] * bool(better) + [f"{listed(worse)} worse"] * bool(worse)
    return f"{where} {listed(told)} in points of true win rate after Holm, the others not distinguishable."


def _misleading(bias: float, points: Mapping[str, Point], book: Book, sweep: Sweep) -> list[str]:
    """Rank correlation with the truth over all methods and the untuned model, and the excess over an unbiased judge."""
    each = {kind: _by_seed(points, kind) for kind in ("true", "raw", "controlled", "unbiased")}
    lines = []
    for kind in ("raw", "controlled"):
        name = f"ranking/{bias:g}/{kind}"
        tau = over_seeds(
            [rank_correlation(a, b) for a, b in zip(each[kind], each["true"], strict=True)],
            within=CORRELATION,
        )
        excess = over_seeds(
            [_mean_excess(a, b) for a, b in zip(each[kind], each["unbiased"], strict=True)],
            unit="points",
        )
        book.keep(f"{name}/tau", tau, sweep=sweep)
        book.keep(f"{name}/excess", excess, sweep=sweep)
        label = KINDS[kind]
        told = claim(
            excess,
            about=f"λ = {bias:g}: the length-biased judge's {label} rate less an unbiased judge's",
            up=f"λ = {bias:g}: the length-biased judge's {label} rate is too high",
            down=f"λ = {bias:g}: the length-biased judge's {label} rate is too low",
        )
        lines.append(f"{told}; it ranks the methods with Kendall's τ {shown(tau, 2)} to the truth.")
    return lines


def _by_seed(points: Mapping[str, Point], kind: str) -> list[list[float]]:
    """A seed: the rate of every method, NaN where it has none, and of the untuned model."""
    columns = [point.rates(kind) for point in points.values()]
    rows = zip(*columns, strict=False)
    return [[*(math.nan if value is None else value for value in row), EVEN] for row in rows]


def _mean_excess(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x - y for x, y in zip(a[:-1], b[:-1], strict=True)) / (len(a) - 1)


def _tuning(sweep: Sweep | None, book: Book, ranked: Sweep) -> tuple[str, list[str]]:
    """What the budget was; and which methods were ranked at other values than tuning picks, where any were."""
    if sweep is None:
        return "Tuning has not been run yet, so the values are not known to be fair.", []
    found = tuning.tried(sweep)
    picked = tuning.pick(found)
    one = next(iter(picked.values()))
    for point in sweep.points:
        name = f"{point.setting('objective.name')}/lr={point.setting('train.learning_rate'):g}"
        book.keep(f"tuning/{name}/beta={point.setting('objective.beta'):g}", mean(truth(point), unit="%"), sweep=sweep)
    edges = [f"{name} ({listed(list(p.at_edge))})" for name, p in picked.items() if p.at_edge]
    values = {
        point.setting("objective.name"): (point.setting("train.learning_rate"), point.setting("objective.beta"))
        for point in ranked.points
    }
    untuned = [f"Not at its tuned values: {line}." for line in tuning.differing(picked, values)]
    return (
        f"Equal budget: {one.n_tried} points (learning rate × β) for each of {len(picked)} methods, one seed each, on "
        f"another world; the highest true win rate is ranked here. Picks at an edge of the grid: "
        f"{listed(edges) or 'none'}. Margin, δ, τ and ε were not tuned."
    ), untuned


QUESTION = Question(
    key="ranking",
    title="Nine methods, ranked by the truth and by a judge that likes length",
    asked=(
        "The untuned model and eight objectives, each at its tuned learning rate and β, without and with a length bias "
        "in the labels; judged by the oracle, by a judge that likes length (raw), and by that judge with length "
        "controlled."
    ),
    needs=("ranking",),
    wants=("tuning",),
    answer=answer,
)
