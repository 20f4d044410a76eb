"""(c) The (m, β) map: length bias against speed of convergence, and where training starves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from experiments.measurement import CORRELATION, Measurement, mean, over_seeds, rank_correlation
from experiments.pictures import plane
from experiments.question import Answer, Numbers, Picture, Question, Sweeps
from experiments.read_sweeps import Point, Sweep
from experiments.words import claim, text_of
from trimtab.analysis.sweep import steps_to_share
from trimtab.reporting.sections import Table

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


@dataclass(frozen=True, slots=True)
class Setting:
    """A point of the map: its measurements, and the seeds' own growth (tokens), true win rate (%) and steps to 90 %."""

    point: Point
    margin: float
    beta: float
    growth: Measurement
    steps: Measurement
    truth: Measurement
    active: Measurement
    growth_by_seed: Sequence[float]
    truth_by_seed: Sequence[float]
    steps_by_seed: Sequence[float | None]

    @classmethod
    def of(cls, point: Point, numbers: Numbers, sweep: Sweep) -> Setting:
        margin, beta = point.setting("objective.margin"), point.setting("objective.beta")
        growth_KN, wins_KN, steps = point.tokens_KN - point.tokens_before_N, point.wins_KN(), _steps(point)

        def add(key: str, measurement: Measurement) -> Measurement:
            return numbers.add(f"margin-beta/m={margin:g}/beta={beta:g}/{key}", measurement, sweep=sweep)

        return cls(
            point=point,
            margin=margin,
            beta=beta,
            growth=add("growth", mean(growth_KN, unit="tokens")),
            steps=add("steps-to-90", over_seeds(steps, unit="steps")),
            truth=add("true", mean(wins_KN, unit="%")),
            active=add("active", over_seeds(_active(point), unit="%")),
            growth_by_seed=growth_KN.mean(axis=1).tolist(),
            truth_by_seed=wins_KN.mean(axis=1).tolist(),
            steps_by_seed=steps,
        )

    @property
    def name(self) -> str:
        return f"{self.margin:g}, {self.beta:g}"

    @property
    def reach(self) -> float:
        """How far the dead zone is, in nats."""
        return self.margin / self.beta

    @property
    def is_starved(self) -> bool:
        return "starved" in self.point.regimes

    def row(self) -> list[str]:
        return [
            f"{self.margin:g}", f"{self.beta:g}", f"{self.reach:.3g}", text_of(self.growth, with_sign=True),
            text_of(self.truth), text_of(self.steps), text_of(self.active, 0), _regime(self.point),
        ]  # fmt: skip


def answer(sweeps: Sweeps, numbers: Numbers) -> Answer:
    sweep = sweeps["margin-beta"]
    settings = [Setting.of(point, numbers, sweep) for point in sweep.points]
    groups: dict[str, list[tuple[Measurement, Measurement, str]]] = {}
    for setting in settings:
        kind = "starved" if setting.is_starved else "not starved"
        groups.setdefault(kind, []).append((setting.steps, setting.growth, setting.name))
    growths = [setting.growth_by_seed for setting in settings]
    n_seeds = min(map(len, growths))
    reaches = [[setting.reach] * n_seeds for setting in settings]
    correlations = [
        numbers.add(f"margin-beta/{name}", _correlation(across, heights, n_seeds), sweep=sweep)
        for name, across, heights in (
            ("reach-and-length", reaches, growths),
            ("reach-and-truth", reaches, [setting.truth_by_seed for setting in settings]),
            ("trade-off", [setting.steps_by_seed for setting in settings], growths),
        )
    ]
    starved_names = [f"m = {setting.margin:g}, β = {setting.beta:g}" for setting in settings if setting.is_starved]
    claims = [f"{_claim(figure, *words)}." for figure, words in zip(correlations, _CLAIMS, strict=True)]
    return Answer(
        sentences=[
            *claims,
            f"Starved: {'; '.join(starved_names)}." if starved_names else "No setting of this map starved.",
        ],
        short=f"{claims[0][:-1]}; {claims[1]}",
        table=Table(
            ("m", "β", "m/β, nats", "growth, tokens", "true win rate, %", "steps to 90 %", "active at the end, %",
             "regime"),
            [setting.row() for setting in settings],
        ),
        picture=Picture(
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
    steps = map(steps_to_share, point.curves("rewards/accuracies"))
    return [None if step is None else float(step) for step in steps]


def _active(point: Point) -> list[float]:
    """Percent of the responses in the last tenth of the steps, both sides."""
    shares = []
    for chosen, rejected in zip(point.curves("active/chosen"), point.curves("active/rejected"), strict=True):
        n = max(1, len(chosen) // 10)
        both_sides = sum(a + b for a, b in zip(chosen[-n:], rejected[-n:], strict=True))
        shares.append(100 * both_sides / (2 * min(n, len(chosen))))
    return shares


def _regime(point: Point) -> str:
    names = dict.fromkeys(point.regimes)
    return ", ".join(f"{name} {point.regimes.count(name)}/{len(point.regimes)}" for name in names)


def _correlation(across: Ratings, heights: Ratings, n_seeds: int) -> Measurement:
    """Kendall's τ over the settings, one a seed; settings without a number for a seed are left out of that seed's."""
    by_seed = []
    for k in range(n_seeds):
        pairs = [(x[k], y[k]) for x, y in zip(across, heights, strict=True) if x[k] is not None and y[k] is not None]
        by_seed.append(rank_correlation([float(x or 0) for x, _ in pairs], [float(y or 0) for _, y in pairs]))
    return over_seeds(by_seed, within=CORRELATION)


def _claim(figure: Measurement, about: str, up: str, down: str) -> str:
    return claim(figure, digits=2, about=f"Kendall's τ of {about}", up=f"{up} (Kendall's τ of {about})",
                 down=f"{down} (Kendall's τ of {about})")  # fmt: skip


QUESTION = Question(
    title="Margin and β: bias against speed",
    text="APO-hinge-zero over m × β on length-biased labels: what is the price of a nearer dead zone (m/β, in nats)?",
    needs=("margin-beta",),
    answer=answer,
)
