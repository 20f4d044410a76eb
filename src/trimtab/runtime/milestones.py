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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from trimtab import store
from trimtab.analysis import selection
from trimtab.analysis.intervals import FloatArray
from trimtab.analysis.token_calibration import per_token
from trimtab.config import SelectSection
from trimtab.engine.order import Order
from trimtab.records import TokenPair
from trimtab.runtime.run_setup import RunSetup

PREFIX = "step-"
SHARES_OF_AN_EPOCH = (0.1, 0.25, 0.5, 1.0)  # of the first epoch, close together early
LATER_EPOCHS = 8  # milestones after the first epoch, at most, and the last step: each is a model on the disk

_EVIDENCE = "evidence.json"
_NO_DRIFT = "the objective has no reference, so there is nothing to drift from"
_DRIFT = (
    "mean over the held-out responses' tokens of ½ (log policy − log reference)², in nats (Schulman's k2). Over "
    "responses that the reference wrote it estimates KL(reference ‖ policy) while it is small, and too high later"
)


def steps(order: Order) -> tuple[int, ...]:
    """10, 25, 50 and 100 % of the first epoch (of the run, where that is shorter), later epochs' ends, the last step.

    Of many later epochs every second, third, ….
    """
    first = min(order.steps_per_epoch, order.steps)
    early = {max(1, round(share * first)) for share in SHARES_OF_AN_EPOCH}
    later = range(first + order.steps_per_epoch, order.steps, order.steps_per_epoch)
    stride = max(1, -(-len(later) // LATER_EPOCHS))
    return tuple(sorted(early | set(later[stride - 1 :: stride]) | {order.steps}))


def n_with_weights(select: SelectSection, order: Order, *, n_heldout: int) -> int:
    """Milestones whose weights are on the disk until the pick."""
    return sum(_keeps_weights(select, step, last=order.steps) for step in steps(order)) if n_heldout else 0


def _keeps_weights(select: SelectSection, step: int, *, last: int) -> bool:
    """The last step's are in memory when the pick is made, and in the last checkpoint."""
    return select.keep or (select.by == "held_out" and step < last)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which milestone became the model and why, with the numbers of all: `selection.json`.

    `drift_note` says what drift is; `warning` is None where nothing speaks against the pick; `lost` are milestones that
    are gone or damaged; `early_end` says why `last` is not the step that was planned, if it is not.
    """

    by: str
    rule: str
    last: int
    pair_ids: tuple[str, ...]
    picked: int
    why: str
    drift_note: str | None
    warning: str | None
    lost: tuple[int, ...]
    milestones: tuple[selection.MilestoneNumbers, ...]
    early_end: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "by": self.by,
            "rule": self.rule,
            "last": self.last,
            "n": len(self.pair_ids),
            "ids": list(self.pair_ids),
            "picked": self.picked,
            "why": self.why,
            "drift_note": self.drift_note,
            "warning": self.warning,
            "lost": list(self.lost),
            "early_end": self.early_end,
            "milestones": [row.to_json() for row in self.milestones],
        }


@dataclass(frozen=True, slots=True)
class Milestones:
    """Those of one run. Without held-out pairs there are none. `early_end`: the step before the planned last one after
    which training was ended, and by whom."""

    setup: RunSetup
    order: Order
    heldout: Sequence[TokenPair]
    early_end: tuple[int, str] | None = None

    @property
    def last(self) -> int:
        """The step that training ends with."""
        return self.order.steps if self.early_end is None else self.early_end[0]

    @property
    def steps(self) -> tuple[int, ...]:
        earlier = (step for step in steps(self.order) if step < self.last)
        return (*earlier, self.last) if self.heldout else ()

    def end_at(self, step: int, *, by: str) -> Milestones:
        """The same with `step` as the last."""
        return replace(self, early_end=(step, by))

    def due(self, step: int) -> bool:
        """Whether the policy after `step` updates is a milestone that is not on disk yet."""
        return step in self.steps and not self._is_whole(step)

    def begin(self, step: int) -> None:
        """A run begins, or goes on after `step`: milestones beyond that are taken again."""
        for later in self.steps:
            if later > step:
                store.remove(self._folder(later))

    def take(self, step: int, *, evidence: dict[str, Any], save: Callable[[Path], None]) -> None:
        """Keep the evidence and, where it may be needed, the model; `save` writes it into a folder."""

        def write(into: Path) -> None:
            if _keeps_weights(self.setup.config.select, step, last=self.last):
                save(into)
            store.write_json(into / _EVIDENCE, {"step": step, "epoch": self.order.epochs_done(step)} | evidence)

        store.commit_folder(self._folder(step), write)

    def pick(self, untrained: Mapping[str, Any] | None) -> Selection:
        """The choice with all of its numbers. `untrained`: held-out rewards and losses from before training."""
        by, last, ids = self.setup.config.select.by, self.last, tuple(pair.id for pair in self.heldout)
        note = None
        if self.early_end is not None:
            note = f"training was ended after step {last} of {self.order.steps} by {self.early_end[1]}"
        rule = selection.RULE if by == "held_out" else "the last step"
        if not self.heldout:
            reason = "no pairs were held out, so there is nothing to choose by"
            return Selection(
                by, rule, last, ids, last, reason, drift_note=None, warning=None, lost=(), milestones=(), early_end=note
            )
        lost = tuple(step for step in self.steps if not self._is_whole(step))
        milestones = [self._read(step) for step in self.steps if step not in lost]
        choice = selection.choose(milestones, by=by)
        rows = selection.numbers(milestones, picked=choice.step)
        picked = next(milestone for milestone in milestones if milestone.step == choice.step)
        warnings = [selection.outdone(milestones, picked=choice.step)]
        if untrained is not None and "losses" in untrained:  # a checkpoint of an earlier version has none
            warnings.insert(0, selection.harm(picked, np.array(untrained["losses"], dtype=np.float64)))
        return Selection(
            by,
            rule,
            last,
            ids,
            choice.step,
            choice.why,
            drift_note=_NO_DRIFT if milestones[-1].drift_P is None else _DRIFT,
            warning=". ".join(filter(None, warnings)) or None,
            lost=lost,
            milestones=tuple(rows),
            early_end=note,
        )

    def rewards(self, step: int) -> dict[str, Any] | None:
        """Held-out rewards and losses after `step`, as `heldout.json` has them; None without held-out pairs."""
        if not self.heldout:
            return None
        evidence: dict[str, Any] = store.read_json(self._folder(step) / _EVIDENCE)
        return {**evidence["rewards"], "losses": evidence["losses"]}

    def copy(self, step: int, into: Path) -> None:
        """The model after `step`, as it was saved, into an existing folder."""
        for path in sorted(self._folder(step).iterdir()):
            if path.name not in (_EVIDENCE, store.MANIFEST):
                shutil.copy2(path, into / path.name)

    def clear(self) -> None:
        """After the pick nothing of them is needed, unless `select.keep`."""
        if not self.setup.config.select.keep:
            store.remove(self.setup.folder.milestones)

    def _is_whole(self, step: int) -> bool:
        """Verified, and with its weights where they may be needed: the last step of a shorter course kept none."""
        folder = self._folder(step)
        needs_weights = _keeps_weights(self.setup.config.select, step, last=self.last)
        return not store.damage(folder) and (not needs_weights or any(folder.glob("*.safetensors")))

    def _folder(self, step: int) -> Path:
        return self.setup.folder.milestones / f"{PREFIX}{step:08d}"

    def _read(self, step: int) -> selection.Milestone:
        tree = store.read_json(self._folder(step) / _EVIDENCE)
        drift = tree["drift"]
        return selection.Milestone(
            step=step,
            epoch=tree["epoch"],
            gaps_P=np.array(tree["rewards"]["reward_gaps"], dtype=np.float64),
            losses_P=np.array(tree["losses"], dtype=np.float64),
            drift_P=None if drift is None else self._a_token(drift["squares"], sides=(0, 1)),
            chosen_P=None if drift is None else self._a_token(drift["log_ratios"], sides=(0,)),
            rejected_P=None if drift is None else self._a_token(drift["log_ratios"], sides=(1,)),
        )

    def _a_token(self, sums_R: Sequence[float], *, sides: Sequence[int]) -> FloatArray | None:
        """Sums over responses (chosen 2p, rejected 2p + 1) as values a pair whose mean is the mean over the tokens that
        the assistant wrote; None where no held-out row has a response on these sides."""
        lengths_P = np.array([pair.own_lengths for pair in self.heldout], np.float64)[:, sides].sum(axis=1)
        sums_P2 = np.array(sums_R, dtype=np.float64).reshape(-1, 2)
        return per_token(sums_P2[:, sides].sum(axis=1), lengths_P) if lengths_P.any() else None


def lines(selection: Selection) -> list[str]:
    """The pick for a terminal."""
    lines = [] if selection.early_end is None else [selection.early_end]
    if selection.lost:
        numbers = ", ".join(map(str, selection.lost))
        lines.append(f"milestones from before this command are gone or damaged, so they could not be picked: {numbers}")
    origin = "the last step" if selection.picked == selection.last else f"step {selection.picked} of {selection.last}"
    figures = "".join(_figures(row) for row in selection.milestones if row.picked)
    lines.append(f"the model is that of {origin}, because {selection.why}{figures}")
    return lines if selection.warning is None else [*lines, f"warning: {selection.warning}"]


def _figures(row: selection.MilestoneNumbers) -> str:
    figures = {name: measure.value for name, measure in row.measures.items() if measure and measure.value is not None}
    drift = f", drift {figures['drift']:.3g} nats a token" if "drift" in figures else ""
    return f" (held-out accuracy {figures['accuracy']:.3f}, loss {figures['loss']:.4f}{drift}, {row.n} pairs)"
