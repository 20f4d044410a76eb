"""What a sweep will do and need, said before anything starts: how many runs, and the training time of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trimtab.commands import plan as run_plan
from trimtab.config import to_json
from trimtab.progress import Reporter, SilentReporter
from trimtab.records import digest
from trimtab.reporting.text import duration
from trimtab.runtime import set_up
from trimtab.studies.sweep.grid import POINT, Point, Sweep

# what sets how long a run takes: labels, objectives and learning rates do not
SECTIONS = ("model", "data", "adapter", "engine", "windtunnel")
TRAIN_KEYS = ("epochs", "max_steps", "batch_pairs", "optimizer", "freeze_embeddings")
LABEL_KEYS = ("length_bias", "label_noise", "judge_length_bias", "seed")


@dataclass(frozen=True, slots=True)
class SweepPlan:
    """Seconds of training by point (one seed of it), bytes at the peak of any run, and the plan of the first point."""

    sweep: Sweep
    seconds: Sequence[float]
    peak_bytes: int
    first: run_plan.Plan

    @property
    def n_runs(self) -> int:
        return len(self.sweep.points) * len(self.sweep.seeds)

    @property
    def total_seconds(self) -> float:
        return len(self.sweep.seeds) * sum(self.seconds)

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": "sweep",
            "out": self.sweep.out,
            "axes": {axis.key: list(axis.values) for axis in self.sweep.axes},
            "points": [
                {"name": point.name, "predicted_training_seconds": seconds}
                for point, seconds in zip(self.sweep.points, self.seconds, strict=True)
            ],
            "seeds": list(self.sweep.seeds),
            "runs": self.n_runs,
            "predicted_peak_bytes": self.peak_bytes,
            "predicted_training_seconds": self.total_seconds,
            "first": self.first.to_json(),
        }


def plan(sweep: Sweep, *, reporter: Reporter) -> SweepPlan:
    """The plan of the first point, and of every other one whose work is of another size; seconds add up over runs."""
    plans: dict[str, run_plan.Plan] = {}
    for point in sweep.points:
        if (work := _work(point)) not in plans:
            plans[work] = run_plan.plan(set_up(point.config), reporter=SilentReporter() if plans else reporter)
    engines = [plans[_work(point)].engine for point in sweep.points]
    return SweepPlan(
        sweep,
        seconds=[engine.predicted_training_seconds for engine in engines],
        peak_bytes=max(engine.predicted_peak_bytes for engine in engines),
        first=plans[_work(sweep.points[0])],
    )


def _work(point: Point) -> str:
    """Equal for points whose runs take the same time."""
    tree = to_json(point.config)
    world = {key: value for key, value in tree["windtunnel"].items() if key not in LABEL_KEYS}
    sections = {name: tree[name] for name in SECTIONS} | {"windtunnel": world}
    return digest([sections, {key: tree["train"][key] for key in TRAIN_KEYS}])


def lines(plan: SweepPlan) -> list[str]:
    """The plan for a terminal."""
    sweep = plan.sweep
    sizes = " × ".join(f"{len(axis.values)} {'named' if axis.key == POINT else axis.key}" for axis in sweep.axes)
    first, last = sweep.seeds[0], sweep.seeds[-1]
    seeds = str(first) if first == last else f"{first} to {last}"
    return [
        f"sweep      {len(sweep.points)} points ({sizes}), seeds {seeds}: {plan.n_runs} runs",
        f"in all     training {duration(plan.total_seconds)}, one run after another; "
        f"at most {plan.peak_bytes / 1e9:.2f} GB at a time",
        "the first point:",
        *(f"  {line}" for line in run_plan.lines(plan.first)),
    ]
