"""What a run says of itself while it goes on, to whoever listens: each step, each milestone, and its end.

    class Enough(trimtab.Callback):
        def milestone(self, event: trimtab.Milestone) -> bool:
            return event.accuracy > 0.9  # True ends training here, with a checkpoint and a model

    trimtab.train("windtunnel", pairs="windtunnel", objective=trimtab.Dpo(), callbacks=[Enough()])

Trackers listen in the same way (`runtime.trackers`). With several seeds the events of all come one run after another;
`folder` says whose they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True)
class Step:
    """An optimizer step that is done, and in `metrics.jsonl`. `steps`: of the whole run, as planned.

    `metrics` is that row: `loss`, `grad_norm`, `rewards/accuracies`, … (README, “What the numbers mean”); shares in [0,
    1], log-probs in nats, `seconds` since training began.
    """

    folder: Path
    step: int
    steps: int
    metrics: Mapping[str, float | int]


@dataclass(frozen=True, slots=True)
class Milestone:
    """What the held-out pairs say of the weights after `step` updates, means over them.

    `accuracy`: share with a positive reward gap, ties as half; `reward_gap`: in the objective's own units; `loss`:
    under the objective; `drift`: from the reference, nats a token (as in `selection.json`), None without one.
    """

    folder: Path
    step: int
    steps: int
    epoch: float
    accuracy: float
    reward_gap: float
    loss: float
    drift: float | None


@dataclass(frozen=True, slots=True)
class End:
    """A run is over. `stopped`: by a signal, with a checkpoint; `failed`: by an error, which goes on to the caller.

    `report` is None where none was written.
    """

    folder: Path
    outcome: Literal["done", "stopped", "failed"]
    report: Path | None


class Callback(Protocol):
    """Derive from it and write the methods that matter; the others do nothing.

    `step` and `milestone` end training when they return True: what is there then is trained no further, gets a
    checkpoint and becomes the model, and the rest of the run goes on with it. What a callback raises ends the run with
    a checkpoint. They are called between two steps, whose time they add to.
    """

    def step(self, event: Step, /) -> bool | None:
        """After each optimizer step."""

    def milestone(self, event: Milestone, /) -> bool | None:
        """After each look at the held-out pairs, which follows the step's own event."""

    def end(self, event: End, /) -> None:
        """Once, whatever came of the run."""
