"""`model/`: the weights of the milestone that was picked, as the folder that others load.

A policy is a plain transformers or PEFT folder. A reward model is assembled from what training saved, and read again by
transformers before it counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from trimtab import store
from trimtab.engine import evaluation, score_head
from trimtab.engine.models import Precision
from trimtab.engine.reward import RewardModel
from trimtab.errors import ModelError
from trimtab.runtime.training_state import TrainingState

PROBES = 4  # pairs that a saved reward model is asked of
_GAP: Mapping[Precision, float] = {"float32": 1e-3, "mixed": 0.1, "bfloat16": 0.25, "float16": 0.1}
"""What rounding, of packs and of merging, may change a reward gap by: nats, and share of one that is larger."""


def write(training: TrainingState, step: int, into: Path) -> None:
    """The model after `step` updates into the existing folder `into`.

    Raises ModelError where transformers reads other rewards from a reward model's folder than training saw.
    """
    if not training.objective.on_scores:
        _write_parts(training, step, into)
        return
    setup, pairs = training.setup, training.heldout or training.pairs
    is_wide = setup.config.adapter.kind != "none" or setup.precision != "bfloat16"
    parts = into / "parts"
    parts.mkdir()
    _write_parts(training, step, parts)
    score_head.assemble(
        parts,
        into,
        dtype="float32" if is_wide else "bfloat16",
        last_id=pairs[0].chosen_ids[-1],
        trust_remote_code=setup.config.model.trust_remote_code,
    )
    store.remove(parts)
    saved, probes = RewardModel.load(into, dtype="float32", device="cpu"), pairs[:PROBES]
    for pair, gap in zip(probes, _gaps(training, step), strict=False):
        chosen, rejected = saved.score_ids([pair.prompt_ids + ids for ids in (pair.chosen_ids, pair.rejected_ids)])
        if not abs(chosen - rejected - gap) <= _GAP[setup.precision] * max(1.0, abs(gap)):
            raise ModelError(
                f"{setup.config.model.name}: transformers reads a reward gap of {chosen - rejected:.4g} from the saved "
                f"model for {pair.id}, and training saw {gap:.4g}",
                remedy="this family's classifier computes otherwise than its language model: take another family",
            )


def _write_parts(training: TrainingState, step: int, into: Path) -> None:
    if step == training.step:
        training.save_parts(into)
    else:
        training.milestones.copy(step, into)


def _gaps(training: TrainingState, step: int) -> list[float]:
    """Reward gaps of the first pairs after `step`: of the held-out ones, or where there are none, of those of now."""
    rewards = training.milestones.rewards(step)
    if rewards is not None:
        return list(rewards["reward_gaps"])
    probes = training.pairs[:PROBES]
    sums_R = evaluation.score(training.scorer, probes, objective=training.objective, pack_tokens=training.pack_tokens)
    return [float(gap) for gap in sums_R[0::2] - sums_R[1::2]]
