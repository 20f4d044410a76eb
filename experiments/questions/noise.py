"""(e) Flipped labels: a hinge keeps full weight on a pair that it gets wrong. Does that cost it more than DPO?"""

from __future__ import annotations

from experiments.drawings import along
from experiments.figures_of import Figure, mean
from experiments.questions.dead_zone import truth
from experiments.section import Book, Drawing, Question, Section, Sweeps, Table
from experiments.sweeps_read import difference
from experiments.words import claim, shown

AGAINST = "dpo"
HINGE = "apo_hinge_zero"


def answer(sweeps: Sweeps, book: Book) -> Section:
    sweep = sweeps["noise"]
    names, noises = sweep.values("objective.name"), sorted(sweep.values("windtunnel.label_noise"))
    worst = noises[-1]
    lines: dict[str, list[Figure]] = {}
    rows: list[list[str]] = []
    answers: list[str] = []
    for name in names:
        points = {noise: sweep.at(objective__name=name, windtunnel__label_noise=noise) for noise in noises}
        lines[name] = [
            book.keep(f"noise/{name}/{noise:g}/true", mean(truth(point), unit="%"), sweep=sweep)
            for noise, point in points.items()
        ]
        lost = book.keep(
            f"noise/{name}/lost", mean(difference(points[worst], points[noises[0]], truth), unit="points"), sweep=sweep
        )
        rows.append([name, *(shown(figure) for figure in lines[name]), shown(lost, signed=True)])
    gaps = {
        noise: book.keep(
            f"noise/hinge-less-dpo/{noise:g}",
            mean(
                difference(
                    sweep.at(objective__name=HINGE, windtunnel__label_noise=noise),
                    sweep.at(objective__name=AGAINST, windtunnel__label_noise=noise),
                    truth,
                ),
                unit="points",
            ),
            sweep=sweep,
        )
        for noise in noises
    }
    rows.append([f"{HINGE} less {AGAINST}", *(shown(figure, signed=True) for figure in gaps.values()), ""])
    ends = [
        sweep.at(objective__name=name, windtunnel__label_noise=noise)
        for name in (HINGE, AGAINST)
        for noise in (worst, noises[0])
    ]
    hinge_drop, dpo_drop = difference(ends[0], ends[1], truth), difference(ends[2], ends[3], truth)
    more = book.keep("noise/hinge-loses-more", mean(hinge_drop - dpo_drop, unit="points"), sweep=sweep)
    answers.append(
        claim(
            more,
            about=f"what {worst:.0%} flipped labels cost, hinge less DPO",
            up=f"{worst:.0%} flipped labels cost the hinge less true win rate than DPO",
            down=f"{worst:.0%} flipped labels cost the hinge more true win rate than DPO",
        )
        + "."
    )
    return Section(
        answers=answers,
        table=Table(
            ("objective", *(f"{noise:.0%} flipped" for noise in noises), f"{worst:.0%} less {noises[0]:.0%}, points"),
            rows,
        ),
        drawing=Drawing(
            "noise",
            along(
                {"true win rate, %": lines}, [f"{noise:.0%}" for noise in noises], below="labels flipped",
                title="True win rate by share of flipped labels", even=50,
            ),
            f"`{sweep.command}`",
        ),
        limits=["Flips are blind to the pair: real wrong labels gather where the two responses are close."],
    )  # fmt: skip


QUESTION = Question(
    key="noise",
    title="Noise in the labels",
    asked="0 to 30 % of the labels are flipped: does full weight on wrong pairs cost the hinge more than the others?",
    needs=("noise",),
    answer=answer,
)
