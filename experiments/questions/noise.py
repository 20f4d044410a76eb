"""(e) Flipped labels: a hinge keeps full weight on a pair that it gets wrong. Does that cost it more than DPO?"""

from __future__ import annotations

from experiments.measurement import Measurement, mean
from experiments.pictures import along
from experiments.question import Answer, Numbers, Picture, Question, Sweeps
from experiments.questions.dead_zone import truth
from experiments.read_sweeps import difference
from experiments.words import claim, text_of
from trimtab.reporting.sections import Table

AGAINST = "dpo"
HINGE = "apo_hinge_zero"


def answer(sweeps: Sweeps, numbers: Numbers) -> Answer:
    sweep = sweeps["noise"]
    names, noises = sweep.values("objective.name"), sorted(sweep.values("windtunnel.label_noise"))
    worst = noises[-1]
    lines: dict[str, list[Measurement]] = {}
    rows: list[list[str]] = []
    answers: list[str] = []
    for name in names:
        points = {noise: sweep.at(objective__name=name, windtunnel__label_noise=noise) for noise in noises}
        lines[name] = [
            numbers.add(f"noise/{name}/{noise:g}/true", mean(truth(point), unit="%"), sweep=sweep)
            for noise, point in points.items()
        ]
        loss = numbers.add(
            f"noise/{name}/lost", mean(difference(points[worst], points[noises[0]], truth), unit="points"), sweep=sweep
        )
        rows.append([name, *(text_of(figure) for figure in lines[name]), text_of(loss, with_sign=True)])
    gaps = {
        noise: numbers.add(
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
    rows.append([f"{HINGE} less {AGAINST}", *(text_of(figure, with_sign=True) for figure in gaps.values()), ""])
    ends = [
        sweep.at(objective__name=name, windtunnel__label_noise=noise)
        for name in (HINGE, AGAINST)
        for noise in (worst, noises[0])
    ]
    hinge_drop, dpo_drop = difference(ends[0], ends[1], truth), difference(ends[2], ends[3], truth)
    more = numbers.add("noise/hinge-loses-more", mean(hinge_drop - dpo_drop, unit="points"), sweep=sweep)
    answers.append(
        claim(
            more,
            about=f"what {worst:.0%} flipped labels cost, hinge less DPO",
            up=f"{worst:.0%} flipped labels cost the hinge less true win rate than DPO",
            down=f"{worst:.0%} flipped labels cost the hinge more true win rate than DPO",
        )
        + "."
    )
    return Answer(
        sentences=answers,
        table=Table(
            ("objective", *(f"{noise:.0%} flipped" for noise in noises), f"{worst:.0%} less {noises[0]:.0%}, points"),
            rows,
        ),
        picture=Picture(
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
    title="Noise in the labels",
    text="0 to 30 % of the labels are flipped: does full weight on wrong pairs cost the hinge more than the others?",
    needs=("noise",),
    answer=answer,
)
