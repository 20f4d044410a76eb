"""(c) The (m, β) map: length bias against speed of convergence, and where training starves."""

from __future__ import annotations

from findings.drawings import plane
from findings.figures_of import CORRELATION, Figure, mean, over_seeds, rank_correlation
from findings.section import Book, Drawing, Question, Section, Sweeps, Table
from findings.sweeps_read import Point
from findings.words import claim, shown
from trimtab.analysis import sweeping


def answer(sweeps: Sweeps, book: Book) -> Section:
    sweep = sweeps["margin-beta"]
    growths: list[list[float]] = []
    speeds: list[list[float | None]] = []
    rows: list[list[str]] = []
    groups: dict[str, list[tuple[Figure, Figure, str]]] = {}
    for point in sweep.points:
        margin, beta = point.setting("objective.margin"), point.setting("objective.beta")
        name = f"margin-beta/m={margin:g}/beta={beta:g}"
        grown = book.keep(f"{name}/growth", mean(point.tokens_KN - point.tokens_before_N, unit="tokens"), sweep=sweep)
        steps = book.keep(f"{name}/steps-to-90", over_seeds(_steps(point), unit="steps"), sweep=sweep)
        true = book.keep(f"{name}/true", mean(point.wins_KN(), unit="%"), sweep=sweep)
        active = book.keep(f"{name}/active", over_seeds(_active(point), unit="%"), sweep=sweep)
        growths.append([float(value) for value in (point.tokens_KN - point.tokens_before_N).mean(axis=1)])
        speeds.append(_steps(point))
        rows.append(
            [f"{margin:g}", f"{beta:g}", f"{margin / beta:.3g}", shown(grown, signed=True), shown(true), shown(steps),
             shown(active, 0), _regime(point)]
        )  # fmt: skip
        kind = "starved" if "starved" in point.regimes else "not starved"
        groups.setdefault(kind, []).append((steps, grown, f"{margin:g}, {beta:g}"))
    trade = book.keep("margin-beta/trade-off", _trade(growths, speeds), sweep=sweep)
    length = book.keep("margin-beta/reach-and-length", _reach(sweep.points, growths), sweep=sweep)
    starved = [f"m = {row[0]}, β = {row[1]}" for row in rows if "starved" in row[-1]]
    return Section(
        answers=[
            claim(
                length, digits=2, about="Kendall's τ of m/β and the growth of answers",
                up="a nearer dead zone (smaller m/β) goes with shorter answers (Kendall's τ of m/β and growth)",
                down="a nearer dead zone (smaller m/β) goes with longer answers (Kendall's τ of m/β and growth)",
            ) + ".",
            claim(
                trade, digits=2, about="Kendall's τ of steps to 90 % and the growth of answers",
                up="settings that take more steps to 90 % of the final accuracy lengthen answers more (Kendall's τ)",
                down="settings that take more steps to 90 % of the final accuracy lengthen answers less (Kendall's τ)",
            ) + ".",
            f"Starved: {'; '.join(starved)}." if starved else "No setting of this map starved.",
        ],
        table=Table(
            ("m", "β", "m/β, nats", "growth, tokens", "true win rate, %", "steps to 90 %", "active at the end, %",
             "regime"),
            rows,
        ),
        drawing=Drawing(
            "margin-beta",
            plane(
                groups, below="steps to 90 % of the final reward accuracy", beside="growth of answers, tokens",
                title="Length bias against speed over margin and beta",
            ),
            f"Each point is m, β; intervals over seeds and prompts. `{sweep.command}`",
        ),
        limits=[
            "Accuracy starts near one half, so steps to 90 % tell fast from slow only where much was learned. The map "
            "is of one λ; rank correlations over it have an interval over seeds, not over other maps."
        ],
    )  # fmt: skip


def _steps(point: Point) -> list[float | None]:
    found = [sweeping.steps_to_share([row["rewards/accuracies"] for row in rows]) for rows in point.metrics]
    return [None if steps is None else float(steps) for steps in found]


def _active(point: Point) -> list[float | None]:
    """Percent of the responses in the last tenth of the steps, both sides."""
    shares: list[float | None] = []
    for rows in point.metrics:
        tail = rows[-max(1, len(rows) // 10) :]
        shares.append(100 * sum(row["active/chosen"] + row["active/rejected"] for row in tail) / (2 * len(tail)))
    return shares


def _regime(point: Point) -> str:
    names = dict.fromkeys(point.regimes)
    return ", ".join(f"{name} {point.regimes.count(name)}/{len(point.regimes)}" for name in names)


def _trade(growths: list[list[float]], speeds: list[list[float | None]]) -> Figure:
    n_seeds = min(len(row) for row in growths)
    each = []
    for k in range(n_seeds):
        known = [(speed[k], growth[k]) for speed, growth in zip(speeds, growths, strict=True) if speed[k] is not None]
        each.append(rank_correlation([float(speed or 0) for speed, _ in known], [growth for _, growth in known]))
    return over_seeds(each, within=CORRELATION)


def _reach(points: tuple[Point, ...], growths: list[list[float]]) -> Figure:
    reach = [point.setting("objective.margin") / point.setting("objective.beta") for point in points]
    return over_seeds(
        [rank_correlation(reach, [growth[k] for growth in growths]) for k in range(min(map(len, growths)))],
        within=CORRELATION,
    )


QUESTION = Question(
    key="margin-beta",
    title="Margin and β: bias against speed",
    asked="APO-hinge-zero over m × β on length-biased labels: what is the price of a nearer dead zone (m/β, in nats)?",
    needs=("margin-beta",),
    answer=answer,
)
