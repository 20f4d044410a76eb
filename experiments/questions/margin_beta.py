"""(c) The (m, β) map: length bias against speed of convergence, and where training starves."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.drawings import plane
from experiments.figures_of import CORRELATION, Figure, mean, over_seeds, rank_correlation
from experiments.section import Book, Drawing, Question, Section, Sweeps, Table
from experiments.sweeps_read import Point
from experiments.words import claim, shown
from trimtab.analysis import sweep as sweeping

Ratings = Sequence[Sequence[float | None]]  # a setting, a seed
_CLAIMS = (
    (
        "m/β and the growth of answers",
        "a nearer dead zone (smaller m/β) goes with shorter answers",
        "a nearer dead zone (smaller m/β) goes with longer answers",
    ),
    (
        "m/β and the true win rate",
        "a nearer dead zone goes with a lower true win rate",
        "a nearer dead zone goes with a higher true win rate",
    ),
    (
        "steps to 90 % of the final accuracy and the growth of answers",
        "settings that learn more slowly lengthen answers more",
        "settings that learn more slowly lengthen answers less",
    ),
)


def answer(sweeps: Sweeps, book: Book) -> Section:
    sweep = sweeps["margin-beta"]
    growths: list[list[float | None]] = []
    truths: list[list[float | None]] = []
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
        truths.append([float(value) for value in point.wins_KN().mean(axis=1)])
        speeds.append(_steps(point))
        rows.append(
            [f"{margin:g}", f"{beta:g}", f"{margin / beta:.3g}", shown(grown, signed=True), shown(true), shown(steps),
             shown(active, 0), _regime(point)]
        )  # fmt: skip
        kind = "starved" if "starved" in point.regimes else "not starved"
        groups.setdefault(kind, []).append((steps, grown, f"{margin:g}, {beta:g}"))
    n_seeds = min(map(len, growths))
    reach = [point.setting("objective.margin") / point.setting("objective.beta") for point in sweep.points]
    along = [
        book.keep(f"margin-beta/{name}", _correlation(across, heights, n_seeds), sweep=sweep)
        for name, across, heights in (
            ("reach-and-length", [[one] * n_seeds for one in reach], growths),
            ("reach-and-truth", [[one] * n_seeds for one in reach], truths),
            ("trade-off", speeds, growths),
        )
    ]
    starved = [f"m = {row[0]}, β = {row[1]}" for row in rows if "starved" in row[-1]]
    answers = [*(f"{_told(figure, *words)}." for figure, words in zip(along, _CLAIMS, strict=True))]
    return Section(
        answers=[*answers, f"Starved: {'; '.join(starved)}." if starved else "No setting of this map starved."],
        short=f"{answers[0][:-1]}; {answers[1]}",
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


def _correlation(across: Ratings, heights: Ratings, n_seeds: int) -> Figure:
    """Kendall's τ over the settings, one a seed; settings without a number for a seed are left out of that seed's."""
    each = []
    for k in range(n_seeds):
        known = [(x[k], y[k]) for x, y in zip(across, heights, strict=True) if x[k] is not None and y[k] is not None]
        each.append(rank_correlation([float(x or 0) for x, _ in known], [float(y or 0) for _, y in known]))
    return over_seeds(each, within=CORRELATION)


def _told(figure: Figure, about: str, up: str, down: str) -> str:
    return claim(figure, digits=2, about=f"Kendall's τ of {about}", up=f"{up} (Kendall's τ of {about})",
                 down=f"{down} (Kendall's τ of {about})")  # fmt: skip


QUESTION = Question(
    key="margin-beta",
    title="Margin and β: bias against speed",
    asked="APO-hinge-zero over m × β on length-biased labels: what is the price of a nearer dead zone (m/β, in nats)?",
    needs=("margin-beta",),
    answer=answer,
)
