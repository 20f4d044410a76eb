"""Which checkpoint a run goes on from, and what may have changed since it was written.

A checkpoint belongs to one configuration and one data set; another one is refused, key by key. `--resume-anyway` lets
the course of training change: how long, how fast. What is trained, on what, in which order and towards what may not
change even then: that is another run. What was overridden is kept in `resumed.json` and said on the model card.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trimtab import store
from trimtab.engine import checkpoint
from trimtab.errors import ConfigError
from trimtab.progress import Reporter
from trimtab.runtime.folder import Folder

COURSE = frozenset(
    f"train.{name}"
    for name in (
        "epochs",
        "max_steps",
        "max_minutes",
        "learning_rate",
        "schedule",
        "warmup",
        "weight_decay",
        "max_grad_norm",
    )
)
# keys that change the cost of a run, or its rounding: no checkpoint is refused for them, but a run folder is
COST = frozenset(
    {"train.save_every", "train.keep_checkpoints", "engine.pack_tokens", "engine.screening", "engine.checkpointing"}
)


@dataclass(frozen=True, slots=True)
class Change:
    """What `--resume-anyway` let pass: the step after which the run went on, and one line a key."""

    after_step: int
    changed: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {"after_step": self.after_step, "changed": list(self.changed)}


def find(
    folder: Folder, identity: dict[str, Any], *, anyway: bool, steps: int, reporter: Reporter
) -> checkpoint.SavedCheckpoint | None:
    """The newest valid checkpoint that the run may go on from. `steps`: of the whole run, as configured now.

    Raises ConfigError, naming the keys, when the checkpoint was made from another configuration or other data.
    """
    latest, damages = checkpoint.find(folder.checkpoints, identity=identity, course=COURSE, anyway=anyway)
    for damage in damages:
        reporter.say(f"train: passed over a checkpoint that does not verify: {damage}")
    if latest is None:
        if damages:
            reporter.say("train: no checkpoint verifies; training starts anew")
        store.remove(folder.overrides)
        return None
    if latest.step > steps:
        raise ConfigError(
            f"{latest.folder} is after step {latest.step}, and the run is to end after {steps}",
            remedy="raise train.epochs or train.max_steps, or give the new run another --out",
        )
    if latest.changed:
        change, before = Change(latest.step, latest.changed), changes(folder)
        if change not in before[-1:]:
            store.write_json(folder.overrides, [entry.to_json() for entry in (*before, change)])
        reporter.say(f"train: goes on though {'; '.join(latest.changed)}")
    for log in (folder.metrics, folder.visits):
        rows = store.iter_jsonl(log) if log.is_file() else ()
        if n_lost := latest.step - sum(until(row, latest.step) for row in rows):
            reporter.say(f"train: {log.name} has lost {n_lost} of the {latest.step} steps before")
    return latest


def until(row: dict[str, Any], step: int) -> bool:
    """Whether a row of a log of training is of the steps up to this one."""
    at = row.get("step")
    return isinstance(at, int) and at <= step


def changes(folder: Folder) -> list[Change]:
    """What `--resume-anyway` let pass in this run, oldest first."""
    if not folder.overrides.is_file():
        return []
    return [Change(entry["after_step"], tuple(entry["changed"])) for entry in store.read_json(folder.overrides)]
