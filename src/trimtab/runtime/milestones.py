"""Milestones: the weights that a run may end with, each with what held-out pairs said of it right then.

    milestones/step-XXXXXXXX/
      evidence.json     rewards, losses and drift on the held-out pairs, after that many updates
      …                 a plain transformers or PEFT folder, where the weights may be needed

They belong to training and are no stage of their own: they must be taken between two of its steps, and `model/`, which
they decide, is what training makes. Folders are committed whole; a resumed run finds those of the steps it keeps, and
takes the others again, to the same bytes.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from trimtab import store
from trimtab.analysis import selection
from trimtab.analysis.intervals import FloatArray
from trimtab.analysis.token_calibration import per_token
from trimtab.engine.order import Order
from trimtab.records import TokenPair
from trimtab.runtime.run_setup import RunSetup

PREFIX = "step-"
SHARES_OF_AN_EPOCH = (0.1, 0.25, 0.5, 1.0)
LATER_EPOCHS = 8  # milestones after the first epoch, at most, and the last step

_EVIDENCE = "evidence.json"
_NO_DRIFT = "the objective has no reference, so there is nothing to drift from"
_DRIFT = (
    "mean over the held-out responses' tokens of ½ (log policy − log reference)², in nats (Schulman's k2). Over "
    "responses that the reference wrote it estimates KL(reference ‖ policy) while it is small, and too high later"
)


def steps(order: Order) -> tuple[int, ...]:
    """10, 25, 50 and 100 % of the first epoch (of the run, where that is shorter), later epochs' ends, the last step.

    Of many later epochs every second, third, …: each milestone is a model on the disk.
    """
    first = min(order.steps_per_epoch, order.steps)
    early = {max(1, round(share * first)) for share in SHARES_OF_AN_EPOCH}
    later = range(first + order.steps_per_epoch, order.steps, order.steps_per_epoch)
    every = max(1, -(-len(later) // LATER_EPOCHS))
    return tuple(sorted(early | set(later[every - 1 :: every]) | {order.steps}))


@dataclass(frozen=True, slots=True)
class Milestones:
    """Those of one run. Without held-out pairs there are none."""

    setup: RunSetup
    order: Order
    heldout: Sequence[TokenPair]

    @property
    def steps(self) -> tuple[int, ...]:
        return steps(self.order) if self.heldout else ()

    def bytes_needed(self, model: nn.Module) -> int:
        """What they take on disk until the pick: the weights, or an adapter's alone."""
        whole = self.setup.config.adapter.kind == "none"
        one = sum(p.numel() * p.element_size() for p in model.parameters() if whole or p.requires_grad)
        return one * sum(self._keeps_weights(step) for step in self.steps)

    def due(self, step: int) -> bool:
        """Whether the policy after `step` updates is a milestone that is not on disk yet."""
        return step in self.steps and not self._is_whole(step)

    def begin(self, step: int) -> None:
        """A run begins, or goes on after `step`: what an earlier life took beyond that is taken again."""
        for later in (one for one in self.steps if one > step):
            store.remove(self._at(later))

    def take(self, step: int, *, evidence: dict[str, Any], save: Callable[[Path], None]) -> None:
        """Keep the evidence and, where it may be needed, the model; `save` writes it into a folder."""

        def write(into: Path) -> None:
            if self._keeps_weights(step):
                save(into)
            store.write_json(into / _EVIDENCE, {"step": step, "epoch": self.order.epochs_done(step)} | evidence)

        store.commit_folder(self._at(step), write)

    def pick(self) -> dict[str, Any]:
        """The choice with all of its numbers, as `selection.json` has them. Milestones that were lost are named."""
        last = self.order.steps
        told: dict[str, Any] = {
            "by": self.setup.config.select.by,
            "rule": selection.RULE if self.setup.config.select.by == "held_out" else "the last step",
            "last": last,
            "n": len(self.heldout),
            "ids": [pair.id for pair in self.heldout],
        }
        if not self.heldout:
            why = "no pairs were held out, so there is nothing to choose by"
            nothing: dict[str, Any] = {"drift_note": None, "warning": None, "lost": [], "milestones": []}
            return told | {"picked": last, "why": why} | nothing
        lost = [step for step in self.steps if not self._is_whole(step)]
        found = [self._read(step) for step in self.steps if step not in lost]
        choice = selection.choose(found, by=self.setup.config.select.by)
        numbers = selection.numbers(found, picked=choice.step)
        return told | {
            "picked": choice.step,
            "why": choice.why,
            "drift_note": _NO_DRIFT if found[-1].drift_P is None else _DRIFT,
            "warning": selection.outdone(numbers),
            "lost": lost,
            "milestones": [row.to_json() for row in numbers],
        }

    def rewards(self, step: int) -> dict[str, Any] | None:
        """Held-out rewards after `step`, as `heldout.json` has them; None without held-out pairs."""
        if not self.heldout:
            return None
        told: dict[str, Any] = store.read_json(self._at(step) / _EVIDENCE)["rewards"]
        return told

    def copy(self, step: int, into: Path) -> None:
        """The model after `step`, as it was saved, into an existing folder."""
        for path in sorted(self._at(step).iterdir()):
            if path.name not in (_EVIDENCE, store.MANIFEST):
                shutil.copy2(path, into / path.name)

    def clear(self) -> None:
        """After the pick nothing of them is needed, unless `select.keep`."""
        if not self.setup.config.select.keep:
            store.remove(self.setup.folder.milestones)

    def _keeps_weights(self, step: int) -> bool:
        """The last step's are in memory when the pick is made, and in the last checkpoint."""
        told = self.setup.config.select
        return told.keep or (told.by == "held_out" and step < self.order.steps)

    def _is_whole(self, step: int) -> bool:
        """Verified, and with its weights where they may be needed: the last step of a shorter course kept none."""
        folder = self._at(step)
        return not store.damage(folder) and (not self._keeps_weights(step) or any(folder.glob("*.safetensors")))

    def _at(self, step: int) -> Path:
        return self.setup.folder.milestones / f"{PREFIX}{step:08d}"

    def _read(self, step: int) -> selection.Milestone:
        told = store.read_json(self._at(step) / _EVIDENCE)
        drift = told["drift"]
        return selection.Milestone(
            step=step,
            epoch=told["epoch"],
            gaps_P=np.array(told["rewards"]["reward_gaps"], dtype=np.float64),
            losses_P=np.array(told["losses"], dtype=np.float64),
            drift_P=None if drift is None else self._a_token(drift["squares"], sides=(0, 1)),
            chosen_P=None if drift is None else self._a_token(drift["log_ratios"], sides=(0,)),
            rejected_P=None if drift is None else self._a_token(drift["log_ratios"], sides=(1,)),
        )

    def _a_token(self, sums_R: Sequence[float], *, sides: Sequence[int]) -> FloatArray:
        """Sums over responses (chosen 2p, rejected 2p + 1) as values a pair whose mean is the mean over tokens."""
        lengths_P2 = np.array([[len(pair.chosen_ids), len(pair.rejected_ids)] for pair in self.heldout], np.float64)
        sums_P2 = np.array(sums_R, dtype=np.float64).reshape(-1, 2)
        return per_token(sums_P2[:, sides].sum(axis=1), lengths_P2[:, sides].sum(axis=1))


def lines(told: dict[str, Any]) -> list[str]:
    """The pick for a terminal."""
    found = []
    if told["lost"]:
        steps_lost = ", ".join(str(step) for step in told["lost"])
        found.append(f"milestones of an earlier life are gone or damaged, so they could not be picked: {steps_lost}")
    where = "the last step" if told["picked"] == told["last"] else f"step {told['picked']} of {told['last']}"
    picked = next((one for one in told["milestones"] if one["picked"]), None)
    figures = ""
    if picked is not None:
        figures = f" (held-out accuracy {picked['accuracy']['value']:.3f}, loss {picked['loss']['value']:.4f}"
        figures += "" if picked["drift"] is None else f", drift {picked['drift']['value']:.3g} nats a token"
        figures += f", {picked['n']} pairs)"
    doubts = [f"warning: {told['warning']}"] if told["warning"] else []
    return [*found, f"the model is that of {where}, because {told['why']}{figures}", *doubts]
