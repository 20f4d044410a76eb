"""(i) Picking the checkpoint by held-out evidence instead of the last step: what does it gain?"""

from __future__ import annotations

from findings.drawings import rows as drawn_rows
from findings.figures_of import Figure, mean
from findings.questions.dead_zone import tokens, truth
from findings.section import Book, Drawing, Question, Section, Sweeps, Table
from findings.sweeps_read import Point, difference
from findings.words import claim, listed, shown
from trimtab import store


def answer(sweeps: Sweeps, book: Book) -> Section:
    sweep = sweeps["selection"]
    rows: list[list[str]] = []
    answers: list[str] = []
    drawn: dict[str, dict[str, Figure]] = {}
    for point in (p for p in sweep.points if p.setting("select.by") == "held_out"):
        bias, rate = point.setting("windtunnel.length_bias"), point.setting("train.learning_rate")
        last = sweep.at(select__by="last", windtunnel__length_bias=bias, train__learning_rate=rate)
        name, label = f"selection/bias={bias:g}/lr={rate:g}", f"λ = {bias:g}, lr {rate:g}"
        true = book.keep(f"{name}/true", mean(difference(point, last, truth), unit="points"), sweep=sweep)
        length = book.keep(f"{name}/length", mean(difference(point, last, tokens), unit="tokens"), sweep=sweep)
        drawn[label] = {"true win rate": true}
        rows.append([label, _picks(point), shown(true, signed=True), shown(length, signed=True)])
        answers.append(
            claim(
                true,
                about=f"{label}: true win rate, held-out pick less last step",
                up=f"{label}: the pick by held-out evidence has the higher true win rate than the last step",
                down=f"{label}: the pick by held-out evidence has the lower true win rate than the last step",
            )
            + "."
        )
    return Section(
        answers=answers,
        table=Table(("setting", "steps picked", "true win rate, points", "length, tokens"), rows),
        drawing=Drawing(
            "selection",
            drawn_rows(drawn, below="picked less last, points of true win rate", title="Held-out pick less last step"),
            f"`{sweep.command}`",
        ),
        limits=["Held-out evidence is of the labels: where those are biased towards length, so is the pick."],
    )


def _picks(point: Point) -> str:
    return listed([str(store.read_json(run / "selection.json")["picked"]) for run in point.runs])


QUESTION = Question(
    key="selection",
    title="Picking the checkpoint by held-out evidence",
    asked="`select.by` held_out against last, at the recipe's learning rate and at one that over-optimises.",
    needs=("selection",),
    answer=answer,
)
