"""What a run takes on disk: said by `plan`, asked for before the first step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trimtab.engine import checkpoint
from trimtab.records import TokenPair
from trimtab.runtime import milestones
from trimtab.runtime.run_setup import RunSetup
from trimtab.tokenizer_files import TOKENIZER_FILES


@dataclass(frozen=True, slots=True)
class DiskUse:
    """Bytes. `checkpoint` is one of them: weights and optimizer; `n_checkpoints` are there at once while it trains, one
    of them half written, `n_finished` after its success. Milestones' weights stay only with `select.keep`.
    `reference` is the share of the global cache; a cached row is there already.
    """

    checkpoint: int
    n_checkpoints: int
    n_finished: int
    model: int
    milestones: int
    keeps_milestones: bool
    reference: int

    @property
    def peak(self) -> int:
        """In the run folder while it trains, and while its model is saved beside whole checkpoints."""
        whole = (self.n_checkpoints - 1) * self.checkpoint
        return whole + max(self.checkpoint, self.model) + self.milestones

    @property
    def finished(self) -> int:
        """In the run folder after its success."""
        return self.n_finished * self.checkpoint + self.model + (self.milestones if self.keeps_milestones else 0)

    def to_json(self) -> dict[str, Any]:
        return {
            "checkpoint_bytes": self.checkpoint,
            "checkpoints_bytes": self.n_checkpoints * self.checkpoint,
            "model_bytes": self.model,
            "milestones_bytes": self.milestones,
            "reference_bytes": self.reference,
            "peak_bytes": self.peak,
            "finished_bytes": self.finished,
        }


def disk_use(setup: RunSetup, *, pairs: Sequence[TokenPair], n_heldout: int) -> DiskUse:
    """Of one seed. `pairs`: those to train on; nothing is loaded."""
    config, shape = setup.config, setup.memory_shape
    has_adapter = config.adapter.kind != "none"
    width = 4 if has_adapter else setup.dtype.itemsize  # adapters are kept in fp32
    weights = width * (shape.trainable if has_adapter else shape.parameters)
    keep = config.train.keep_checkpoints
    return DiskUse(
        checkpoint=checkpoint.size(
            weights_bytes=width * shape.trainable,
            values=shape.trainable,
            fp32_copies=shape.trainable if width < 4 else 0,
        ),
        n_checkpoints=keep + 1,
        n_finished=checkpoints_after_success(keep),
        # a reward model is saved with its adapter merged, beside the parts that it is made of
        model=weights + (4 * shape.parameters if setup.objective.on_scores else 0) + _tokenizer_bytes(setup),
        milestones=weights * milestones.n_with_weights(config.select, setup.order(len(pairs)), n_heldout=n_heldout),
        keeps_milestones=config.select.keep,
        reference=sum(map(_reference_bytes, pairs)) if setup.objective.needs_reference else 0,
    )


def checkpoints_after_success(keep_checkpoints: int) -> int:
    """The newest alone, to train on from; more where more than the two that every run needs were asked for."""
    return 1 if keep_checkpoints == 2 else keep_checkpoints


def _reference_bytes(pair: TokenPair) -> int:
    """Four bytes a token, and of each response a digest and an offset."""
    return 4 * (len(pair.chosen_ids) + len(pair.rejected_ids)) + 2 * (32 + 8)


def _tokenizer_bytes(setup: RunSetup) -> int:
    return sum(path.stat().st_size for pattern in TOKENIZER_FILES for path in setup.model_folder.glob(pattern))
