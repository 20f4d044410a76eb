"""(g) Calibration of the reward gap and of the next token, before and after, from `trimtab calibrate` of the points."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.drawings import rows as drawn_rows
from experiments.figures_of import Figure, from_estimate, over_seeds
from experiments.section import Book, Drawing, Question, Section, Sweeps, Table
from experiments.sweeps_read import Point, Sweep
from experiments.words import counted, direction, grouped, listed, method, number, shown
from trimtab import store

CALIBRATED: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "dead-zone": {"objective.margin": (0.5, 1, 2, 1000), "windtunnel.length_bias": (0,)},
    "dead-zone-sigmoid": {"windtunnel.length_bias": (0,)},
    "real-ukp": {},
    "real-finegrained": {},
}

_CONFIDENCE = {
    "above": "over-confident",
    "below": "under-confident",
    "not distinguishable": "not distinguishable from calibrated",
    "unknown": "unknown",
}


def answer(sweeps: Sweeps, book: Book) -> Section:
    rows: list[list[str]] = []
    over: dict[str, Figure] = {}
    tokens: dict[str, Figure] = {}
    for name, wanted in CALIBRATED.items():
        for point in sweeps[name].among(wanted) if name in sweeps else []:
            path = point.folder / "calibration.json"
            if not path.is_file():
                continue
            told = store.read_json(path)
            label = _label(name, told)
            figures = _figures(told, book, sweeps[name], point)
            over[label], tokens[label] = figures["over"], figures["token"]
            rows.append(
                [label, f"{told['n_pairs']}", shown(figures["accuracy"], 2), shown(figures["over"], 2, signed=True),
                 number(figures["over"].detectable, 2), shown(figures["brier"], 2), shown(figures["ece"], 2),
                 _chance(told), shown(figures["token"], 3, signed=True), shown(figures["drift"], 3)]
            )  # fmt: skip
    if not rows:
        return Section(answers=["Not measured yet: `trimtab calibrate` of the points (`make findings`)."])
    summary = {label: _CONFIDENCE[direction(figure)] for label, figure in over.items()}
    sharper = [label for label, figure in tokens.items() if (figure.ci95 or (0, 0))[0] > 0]
    meaning = (
        f"On the next token of held-out chosen responses over-confidence grew in {listed(sharper)}."
        if sharper
        else "In no run did over-confidence on the next token grow distinguishably."
    )
    return Section(
        answers=[f"by its reward gap a run is {counted(summary, _CONFIDENCE.values())}.",
                 *grouped(summary, _CONFIDENCE.values())],
        table=Table(
            ("run", "held-out pairs", "accuracy", "over-confidence", "80 % power for", "Brier", "ECE",
             "ECE by chance (95 %)", "next-token over-confidence, change", "KL from the reference, nats a token"),
            rows,
        ),
        drawing=Drawing(
            "calibration",
            drawn_rows(
                {label: {"over-confidence": figure} for label, figure in over.items()},
                below="confidence less accuracy of the reward gap", title="Over-confidence of the reward gap",
            ),
            "Mean σ(|reward gap|) less accuracy on held-out pairs. `trimtab calibrate` of each point",
        ),
        meaning=[
            meaning,
            "Before training every gap is 0 and σ(0) is 50 % by construction; the gap's scale is β's, so a smaller β "
            "reads as under-confident without the model being another.",
        ],
        limits=[
            "Few pairs are held out, and a calibrated model would show the ECE of the chance column on as many. The "
            "interval of the ECE is over seeds only: all seeds meet the same held-out pairs."
        ],
    )  # fmt: skip


def _label(name: str, told: Mapping[str, Any]) -> str:
    label = method(told["objective"])
    return f"{name.removeprefix('real-')}: {label}" if name.startswith("real-") else label


def _figures(told: Mapping[str, Any], book: Book, sweep: Sweep, point: Point) -> dict[str, Figure]:
    gap = told["reward_gap"]["after"]
    eces = [one["reward_gap"]["after"]["ece"] for one in told["by_seed"]] or [gap["ece"]]
    found = {
        "accuracy": from_estimate(gap["accuracy"], unit=""),
        "over": from_estimate(gap["over_confidence"], unit=""),
        "brier": from_estimate(gap["brier"], unit=""),
        "ece": over_seeds(eces),
        "token": from_estimate(told["next_token"]["change"]["over_confidence"], unit=""),
        "drift": from_estimate(told["drift"]["divergence"], unit="nats a token"),
    }
    return {
        key: book.keep(f"calibration/{sweep.name}/{point.name}/{key}", figure, sweep=sweep, command=told["command"])
        for key, figure in found.items()
    }


def _chance(told: Mapping[str, Any]) -> str:
    chance = told["reward_gap"]["after"]["ece_by_chance"]
    return f"{chance['mean']:.2f} (≤ {chance['below95']:.2f})"


QUESTION = Question(
    key="calibration",
    title="Calibration",
    asked=(
        "Does σ(reward gap) mean what it says, are next tokens predicted with the right confidence, and how far did "
        "the model drift?"
    ),
    needs=("dead-zone",),
    wants=("dead-zone-sigmoid", "real-ukp", "real-finegrained"),
    answer=answer,
)
