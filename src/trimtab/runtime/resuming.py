"""Which checkpoint a run goes on from, and what may have changed since it was written.

A checkpoint belongs to one configuration and one data set; another one is refused, key by key. `--resume-anyway` lets
the course of training change: how long, how fast. What is trained, on what, in which order and towards what may not
change even then: that is another run. What was overridden is kept in `resumed.json` and told on the model card.
"""

from __future__ import annotations

from typing import Any

from trimtab import store
from trimtab.engine import checkpoint
from trimtab.errors import ConfigError
from trimtab.progress import Reporter
from trimtab.runtime.folder import Folder

COURSE = frozenset(
    f"train.{name}"
    for name in ("epochs", "max_steps", "learning_rate", "schedule", "warmup", "weight_decay", "max_grad_norm")
)
# keys that change the cost of a run, or its rounding: no checkpoint is refused for them, but a run folder is
COST = frozenset(
    {"train.save_every", "train.keep_checkpoints", "engine.pack_tokens", "engine.screening", "engine.checkpointing"}
)


def find(
    folder: Folder, identity: dict[str, Any], *, anyway: bool, steps: int, reporter: Reporter
) -> checkpoint.SavedCheckpoint | None:
    """The newest valid checkpoint that the run may go on from. `steps`: of the whole run, as configured now.

    Raises ConfigError, naming the keys, when the checkpoint was made from another configuration or other data.
    """
    found, damaged = checkpoint.find(folder.checkpoints, identity=identity, course=COURSE, anyway=anyway)
    for problem in damaged:
        reporter.say(f"train: passed over a checkpoint that does not verify: {problem}")
    if found is None:
        if damaged:
            reporter.say("train: no checkpoint verifies; training starts anew")
        store.remove(folder.resumed)
        return None
    if found.step > steps:
        raise ConfigError(
            f"{found.folder} is after step {found.step}, and the run is to end after {steps}",
            remedy="raise train.epochs or train.max_steps, or give the new run another --out",
        )
    if found.changed:
        entry = {"after_step": found.step, "changed": list(found.changed)}
        before = changes(folder)
        store.write_json(folder.resumed, before if entry in before[-1:] else [*before, entry])
        reporter.say(f"train: goes on though {'; '.join(found.changed)}")
    for log in (folder.metrics, folder.visits):
        rows = store.iter_jsonl(log) if log.is_file() else ()
        if n_lost := found.step - sum(until(row, found.step) for row in rows):
            reporter.say(f"train: {log.name} has lost {n_lost} of the {found.step} steps before")
    return found


def until(row: dict[str, Any], step: int) -> bool:
    """Whether a row of a log of training is of the steps up to this one."""
    told = row.get("step")
    return isinstance(told, int) and told <= step


def changes(folder: Folder) -> list[dict[str, Any]]:
    """What `--resume-anyway` let pass in this run: the step it went on after, and one line a key."""
    if not folder.resumed.is_file():
        return []
    told: list[dict[str, Any]] = store.read_json(folder.resumed)
    return told
