"""What a sweep will do and need, said before anything starts: how many runs, and the training time of all of them."""

from __future__ import annotations

from typing import Any

from trimtab.commands import plan as of_run
from trimtab.config import to_json
from trimtab.progress import Reporter, SilentReporter, duration
from trimtab.records import digest
from trimtab.runtime import set_up
from trimtab.studies.sweep.grid import POINT, Point, Sweep

_SETS_THE_WORK = ("model", "data", "adapter", "engine", "windtunnel")
_OF_TRAINING = ("epochs", "max_steps", "batch_pairs", "optimizer", "freeze_embeddings")


def plan(sweep: Sweep, *, reporter: Reporter) -> dict[str, Any]:
    """The plan of the first point, and of every other one whose work is of another size; seconds add up over runs."""
    made: dict[str, dict[str, Any]] = {}
    for point in sweep.points:
        work = _work(point)
        if work not in made:
            made[work] = of_run.plan(set_up(point.config), reporter=SilentReporter() if made else reporter)
    seconds = {point.name: made[_work(point)]["engine"]["predicted_training_seconds"] for point in sweep.points}
    return {
        "kind": "sweep",
        "out": sweep.out,
        "axes": {axis.key: list(axis.values) for axis in sweep.axes},
        "points": [{"name": point.name, "predicted_training_seconds": seconds[point.name]} for point in sweep.points],
        "seeds": list(sweep.seeds),
        "runs": len(sweep.points) * len(sweep.seeds),
        "predicted_peak_bytes": max(told["engine"]["predicted_peak_bytes"] for told in made.values()),
        "predicted_training_seconds": len(sweep.seeds) * sum(seconds.values()),
        "first": made[_work(sweep.points[0])],
    }


def _work(point: Point) -> str:
    """Equal for points whose runs take the same time: labels, objectives and learning rates do not change it."""
    tree = to_json(point.config)
    labels = ("length_bias", "label_noise", "judge_length_bias", "seed")
    world = {key: value for key, value in tree["windtunnel"].items() if key not in labels}
    told = {name: tree[name] for name in _SETS_THE_WORK} | {"windtunnel": world}
    return digest([told, {key: tree["train"][key] for key in _OF_TRAINING}])


def lines(told: dict[str, Any]) -> list[str]:
    """The plan for a terminal."""
    sizes = " × ".join(f"{len(values)} {'named' if key == POINT else key}" for key, values in told["axes"].items())
    return [
        f"sweep      {len(told['points'])} points ({sizes}), seeds {_range(told['seeds'])}: {told['runs']} runs",
        f"in all     training {duration(told['predicted_training_seconds'])}, one run after another; "
        f"at most {told['predicted_peak_bytes'] / 1e9:.2f} GB at a time",
        "the first point:",
        *(f"  {line}" for line in of_run.lines(told["first"])),
    ]


def _range(seeds: list[int]) -> str:
    return str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
