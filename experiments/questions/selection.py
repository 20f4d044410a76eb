"""(i) Picking the checkpoint by held-out evidence instead of the last step: what does it gain?"""

from __future__ import annotations

from typing import Any

from experiments.drawings import rows as drawn_rows
from experiments.figures_of import Figure, mean
from experiments.questions.dead_zone import tokens, truth
from experiments.section import Book, Drawing, Question, Section, Sweeps, Table
from experiments.sweeps_read import NoSuchPoint, Point, Sweep, difference
from experiments.words import claim, direction, listed, method, shown
from trimtab import store

COURSE = ("train.epochs", "train.learning_rate", "windtunnel.length_bias", "windtunnel.label_noise")


def answer(sweeps: Sweeps, book: Book) -> Section:
    sweep = sweeps["selection"]
    rows: list[list[str]] = []
    answers: dict[bool, list[str]] = {True: [], False: []}
    drawn: dict[str, dict[str, Figure]] = {}
    for point in (p for p in sweep.points if p.setting("select.by") == "held_out"):
        last = _last_of(point, sweep)
        name = "/".join(["selection", *(f"{key.rpartition('.')[2]}={value}" for key, value in _others(point).items())])
        label = _label(point)
        true = book.keep(f"{name}/true", mean(difference(point, last, truth), unit="points"), sweep=sweep)
        length = book.keep(f"{name}/length", mean(difference(point, last, tokens), unit="tokens"), sweep=sweep)
        end = book.keep(f"{name}/last", mean(truth(last), unit="%"), sweep=sweep)
        drawn[label] = {"true win rate": true}
        steps, of = _steps(point)
        moved = any(step != of for step in steps)
        gains = [shown(figure, signed=True) if moved else "–" for figure in (true, length)]
        rows.append([label, listed([str(step) for step in steps]), f"{of}", shown(end), *gains])
        answers[moved].append(_told(true, end, label, steps, of))
    return Section(
        answers=[*answers[True], *answers[False], *_at_their_last(sweep, book)],
        table=Table(
            ("setting", "steps picked", "last step", "true win rate of the last, %", "picked less last, points",
             "length, tokens"),
            rows,
        ),
        drawing=Drawing(
            "selection",
            drawn_rows(drawn, below="picked less last, points of true win rate", title="Held-out pick less last step"),
            f"`{sweep.command}`",
        ),
        meaning=[
            "An earlier checkpoint is picked only where its held-out loss is distinguishably lower than the last one's."
        ],
        limits=["Held-out evidence is of the labels: where those are biased towards length, so is the pick."],
    )  # fmt: skip


def _others(point: Point) -> dict[str, Any]:
    return {key: value for key, value in point.values.items() if key != "select.by"}


def _last_of(point: Point, sweep: Sweep) -> Point:
    """The same runs with the last step instead of a pick. Raises NoSuchPoint where they are not in the sweep."""
    for other in sweep.where(select__by="last"):
        if _others(other) == _others(point):
            return other
    raise NoSuchPoint(f"{sweep.folder} has no twin of {point.name} that keeps its last step")


def _told(true: Figure, end: Figure, label: str, steps: list[int], of: int) -> str:
    earlier = sum(step != of for step in steps)
    if not earlier:
        worse = f", though it is worse than the unaligned model: {shown(end)} % true" if _below_even(end) else ""
        return f"{label}: the last step was picked in {len(steps)} of {len(steps)} seeds{worse}."
    return (
        claim(
            true,
            about=f"{label}: true win rate, held-out pick less last step",
            up=f"{label}: the pick by held-out evidence has the higher true win rate than the last step",
            down=f"{label}: the pick by held-out evidence has the lower true win rate than the last step",
        )
        + f"; an earlier step was picked in {earlier} of {len(steps)} seeds."
    )


def _below_even(end: Figure) -> bool:
    return direction(end, even=50.0) == "below"


def _at_their_last(sweep: Sweep, book: Book) -> list[str]:
    """The hinge against DPO at the same settings, where neither is picked from."""
    lines = []
    for hinge in sweep.where(select__by="last", objective__name="apo_hinge_zero"):
        same = {key.replace(".", "__"): hinge.setting(key) for key in COURSE}
        for dpo in sweep.where(select__by="last", objective__name="dpo", **same):
            name = "selection/" + "/".join(f"{key.rpartition('.')[2]}={hinge.setting(key):g}" for key in COURSE)
            gap = mean(difference(hinge, dpo, truth), unit="points")
            told = claim(
                book.keep(f"{name}/hinge-less-dpo", gap, sweep=sweep),
                about=f"{_course(hinge)}, last steps: true win rate, hinge less DPO",
                up=f"{_course(hinge)}, last steps: the hinge has the higher true win rate than DPO",
                down=f"{_course(hinge)}, last steps: the hinge has the lower true win rate than DPO",
            )
            lines.append(f"{told}.")
    return lines


def _label(point: Point) -> str:
    return f"{method(point.config['objective'])}, {_course(point)}"


def _course(point: Point) -> str:
    told = f"{point.setting('train.epochs'):g} epochs"
    noise, bias = point.setting("windtunnel.label_noise"), point.setting("windtunnel.length_bias")
    return told + (f", {noise:.0%} flipped" if noise else "") + (f", λ = {bias:g}" if bias else "")


def _steps(point: Point) -> tuple[list[int], int]:
    """The step picked by each seed, and the last one."""
    told = [store.read_json(run / "selection.json") for run in point.runs]
    return [int(one["picked"]) for one in told], int(told[0]["last"])


QUESTION = Question(
    key="selection",
    title="Picking the checkpoint by held-out evidence",
    asked=(
        "`select.by` held_out against last, of the hinge (m = 1) and DPO: short runs on labels that like length, long "
        "ones on labels of which 30 % are flipped; and of a long run of a loss without a floor (m = 1000)."
    ),
    needs=("selection",),
    answer=answer,
)
