"""(i) Picking the checkpoint by held-out evidence instead of the last step: what does it gain?"""

from __future__ import annotations

from typing import Any

from experiments.measurement import Measurement, mean
from experiments.pictures import rows as interval_rows
from experiments.question import Answer, Numbers, Picture, Question, Sweeps
from experiments.questions.dead_zone import tokens, truth
from experiments.read_sweeps import NoSuchPoint, Point, Sweep, difference
from experiments.words import claim, direction, join_words, method, text_of
from trimtab import store
from trimtab.reporting.sections import Table

COURSE = ("train.epochs", "train.learning_rate", "windtunnel.length_bias", "windtunnel.label_noise")


def answer(sweeps: Sweeps, numbers: Numbers) -> Answer:
    sweep = sweeps["selection"]
    rows: list[list[str]] = []
    sentences: dict[bool, list[str]] = {True: [], False: []}  # by whether any seed picked an earlier step
    measurements: dict[str, dict[str, Measurement]] = {}
    for point in (p for p in sweep.points if p.setting("select.by") == "held_out"):
        last = _last_of(point, sweep)
        settings = [f"{key.rpartition('.')[2]}={value}" for key, value in _other_values(point).items()]
        name = "/".join(["selection", *settings])
        label = _label(point)
        true = numbers.add(f"{name}/true", mean(difference(point, last, truth), unit="points"), sweep=sweep)
        length = numbers.add(f"{name}/length", mean(difference(point, last, tokens), unit="tokens"), sweep=sweep)
        end = numbers.add(f"{name}/last", mean(truth(last), unit="%"), sweep=sweep)
        measurements[label] = {"true win rate": true}
        steps, of = _steps(point)
        is_earlier = any(step != of for step in steps)
        gains = [text_of(figure, with_sign=True) if is_earlier else "–" for figure in (true, length)]
        rows.append([label, join_words([str(step) for step in steps]), f"{of}", text_of(end), *gains])
        sentences[is_earlier].append(_sentence(true, end, label, steps, of))
    return Answer(
        sentences=[*sentences[True], *sentences[False], *_at_their_last(sweep, numbers)],
        table=Table(
            ("setting", "steps picked", "last step", "true win rate of the last, %", "picked less last, points",
             "length, tokens"),
            rows,
        ),
        picture=Picture(
            "selection",
            interval_rows(
                measurements, below="picked less last, points of true win rate", title="Held-out pick less last step"
            ),
            f"`{sweep.command}`",
        ),
        meaning=[
            "An earlier checkpoint is picked only where its held-out loss is distinguishably lower than the last one's."
        ],
        limits=["Held-out evidence is of the labels: where those are biased towards length, so is the pick."],
    )  # fmt: skip


def _other_values(point: Point) -> dict[str, Any]:
    return {key: value for key, value in point.values.items() if key != "select.by"}


def _last_of(point: Point, sweep: Sweep) -> Point:
    """The same runs with the last step instead of a pick. Raises NoSuchPoint where they are not in the sweep."""
    for twin in sweep.points_at(select__by="last"):
        if _other_values(twin) == _other_values(point):
            return twin
    raise NoSuchPoint(f"{sweep.folder} has no twin of {point.name} that keeps its last step")


def _sentence(true: Measurement, end: Measurement, label: str, steps: list[int], of: int) -> str:
    earlier = sum(step != of for step in steps)
    if not earlier:
        worse = f", though it is worse than the unaligned model: {text_of(end)} % true" if _below_even(end) else ""
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


def _below_even(end: Measurement) -> bool:
    return direction(end, even=50.0) == "below"


def _at_their_last(sweep: Sweep, numbers: Numbers) -> list[str]:
    """The hinge against DPO at the same settings, where neither is picked from."""
    lines = []
    for hinge in sweep.points_at(select__by="last", objective__name="apo_hinge_zero"):
        values = {key.replace(".", "__"): hinge.setting(key) for key in COURSE}
        for dpo in sweep.points_at(select__by="last", objective__name="dpo", **values):
            name = "selection/" + "/".join(f"{key.rpartition('.')[2]}={hinge.setting(key):g}" for key in COURSE)
            gap = mean(difference(hinge, dpo, truth), unit="points")
            sentence = claim(
                numbers.add(f"{name}/hinge-less-dpo", gap, sweep=sweep),
                about=f"{_course(hinge)}, last steps: true win rate, hinge less DPO",
                up=f"{_course(hinge)}, last steps: the hinge has the higher true win rate than DPO",
                down=f"{_course(hinge)}, last steps: the hinge has the lower true win rate than DPO",
            )
            lines.append(f"{sentence}.")
    return lines


def _label(point: Point) -> str:
    return f"{method(point.config['objective'])}, {_course(point)}"


def _course(point: Point) -> str:
    epochs = f"{point.setting('train.epochs'):g} epochs"
    noise, bias = point.setting("windtunnel.label_noise"), point.setting("windtunnel.length_bias")
    return epochs + (f", {noise:.0%} flipped" if noise else "") + (f", λ = {bias:g}" if bias else "")


def _steps(point: Point) -> tuple[list[int], int]:
    """The step picked by each seed, and the last one."""
    selections = [store.read_json(run / "selection.json") for run in point.runs]
    return [int(selection["picked"]) for selection in selections], int(selections[0]["last"])


QUESTION = Question(
    title="Picking the checkpoint by held-out evidence",
    text=(
        "`select.by` held_out against last, of the hinge (m = 1) and DPO: short runs on labels that like length, long "
        "ones on labels of which 30 % are flipped; and of a long run of a loss without a floor (m = 1000)."
    ),
    needs=("selection",),
    answer=answer,
)
