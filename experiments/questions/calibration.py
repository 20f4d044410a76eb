"""(g) Calibration of the reward gap and of the next token, before and after, from `trimtab calibrate` of the points."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from experiments.measurement import Measurement, over_seeds
from experiments.pictures import rows as interval_rows
from experiments.question import Answer, Numbers, Picture, Question, Sweeps
from experiments.read_sweeps import Point, Selection, Sweep, points_among
from experiments.words import count, direction, group, join_words, method, number, text_of
from trimtab import store
from trimtab.reporting.sections import Table

POINTS: Mapping[str, Selection] = {
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


@dataclass(frozen=True, slots=True)
class Calibration:
    """What the page shows of a `calibration.json`. `ece_by_chance`: of a calibrated model on as many pairs."""

    label: str
    n_pairs: int
    accuracy: Measurement
    over_confidence: Measurement
    brier: Measurement
    ece: Measurement
    token: Measurement
    drift: Measurement
    ece_by_chance: str

    @classmethod
    def from_json(cls, tree: Mapping[str, Any], *, name: str, add: Callable[[str, Measurement], Measurement]) -> Self:
        """`name` is the sweep's; `add` writes a number down."""
        gap = tree["reward_gap"]["after"]
        eces = [seed["reward_gap"]["after"]["ece"] for seed in tree["by_seed"]] or [gap["ece"]]
        objective, token = method(tree["objective"]), tree["next_token"]["change"]["over_confidence"]
        divergence = Measurement.from_json(tree["drift"]["divergence"], unit="nats a token")
        chance = gap["ece_by_chance"]
        return cls(
            label=f"{name.removeprefix('real-')}: {objective}" if name.startswith("real-") else objective,
            n_pairs=tree["n_pairs"],
            accuracy=add("accuracy", Measurement.from_json(gap["accuracy"], unit="")),
            over_confidence=add("over", Measurement.from_json(gap["over_confidence"], unit="")),
            brier=add("brier", Measurement.from_json(gap["brier"], unit="")),
            ece=add("ece", over_seeds(eces)),
            token=add("token", Measurement.from_json(token, unit="")),
            drift=add("drift", divergence),
            ece_by_chance=f"{chance['mean']:.2f} (≤ {chance['below95']:.2f})",
        )

    def row(self) -> list[str]:
        return [
            self.label, f"{self.n_pairs}", text_of(self.accuracy, 2), text_of(self.over_confidence, 2, with_sign=True),
            number(self.over_confidence.detectable, 2), text_of(self.brier, 2), text_of(self.ece, 2),
            self.ece_by_chance, text_of(self.token, 3, with_sign=True), text_of(self.drift, 3),
        ]  # fmt: skip


def _read(sweep: Sweep, point: Point, numbers: Numbers) -> Calibration | None:
    path = point.folder / "calibration.json"
    if not path.is_file():
        return None
    tree = store.read_json(path)

    def add(key: str, measurement: Measurement) -> Measurement:
        name = f"calibration/{sweep.name}/{point.name}/{key}"
        return numbers.add(name, measurement, sweep=sweep, command=tree["command"])

    return Calibration.from_json(tree, name=sweep.name, add=add)


def answer(sweeps: Sweeps, numbers: Numbers) -> Answer:
    readings = [_read(sweep, point, numbers) for sweep, point in points_among(sweeps, POINTS)]
    calibrations = [calibration for calibration in readings if calibration is not None]
    if not calibrations:
        return Answer(sentences=["Not measured yet: `trimtab calibrate` of the points (`make findings`)."])
    over_confidence = {calibration.label: calibration.over_confidence for calibration in calibrations}
    summary = {label: _CONFIDENCE[direction(figure)] for label, figure in over_confidence.items()}
    sharper = [calibration.label for calibration in calibrations if direction(calibration.token) == "above"]
    meaning = (
        f"On the next token of held-out chosen responses over-confidence grew in {join_words(sharper)}."
        if sharper
        else "In no run did over-confidence on the next token grow distinguishably."
    )
    return Answer(
        sentences=[f"by its reward gap a run is {count(summary, _CONFIDENCE.values())}.",
                 *group(summary, _CONFIDENCE.values())],
        table=Table(
            ("run", "held-out pairs", "accuracy", "over-confidence", "80 % power for", "Brier", "ECE",
             "ECE by chance (95 %)", "next-token over-confidence, change", "KL from the reference, nats a token"),
            [calibration.row() for calibration in calibrations],
        ),
        picture=Picture(
            "calibration",
            interval_rows(
                {label: {"over-confidence": figure} for label, figure in over_confidence.items()},
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


QUESTION = Question(
    title="Calibration",
    text=(
        "Does σ(reward gap) mean what it says, are next tokens predicted with the right confidence, and how far did "
        "the model drift?"
    ),
    needs=("dead-zone",),
    optional=("dead-zone-sigmoid", "real-ukp", "real-finegrained"),
    answer=answer,
)
