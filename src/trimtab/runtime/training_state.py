"""What a run trains with, and how it is kept in a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trimtab.callbacks import Callback
from trimtab.engine import checkpoint, finite, kl, memory, models, optim, reference, score_head
from trimtab.engine.order import Order
from trimtab.engine.out_of_memory import is_out_of_memory
from trimtab.engine.response_sums import weighted_sums
from trimtab.engine.scoring import Scorer
from trimtab.engine.screening import Forecast
from trimtab.engine.shrinking import Shrinking
from trimtab.objectives import Objective
from trimtab.progress import Reporter
from trimtab.records import TokenPair
from trimtab.runtime.milestones import Milestones
from trimtab.runtime.run_setup import RunSetup


@dataclass(slots=True, kw_only=True)
class TrainingState:
    """Model, data and all that changes with the steps; the latter stands last, and comes back from a checkpoint.

    `kl_rows`, `kl_heldout`: mismatched rows beside both, where the objective needs them (`engine.kl`); else empty.
    `step`: updates so far; `seconds`: spent on them; `checkpoint_step`: updates in the newest checkpoint.
    """

    setup: RunSetup
    identity: dict[str, Any]
    pairs: list[TokenPair]
    heldout: list[TokenPair]
    kl_rows: list[TokenPair]
    kl_heldout: list[TokenPair]
    order: Order
    reference: reference.Reference | None
    model: Any
    tokenizer: Any
    optimizer: optim.AdamW
    scorer: Scorer
    milestones: Milestones
    heldout_before: dict[str, Any] | None
    forecast: Forecast | None
    shrinking: Shrinking | None
    pack_tokens: int
    step: int
    seconds: float
    checkpoint_step: int
    callbacks: Sequence[Callback] = ()
    has_listeners: bool = False  # callbacks, of the first process

    @property
    def objective(self) -> Objective:
        """As it is in force at the next step."""
        return self.setup.objective.at(self.order.epochs_done(self.step))

    def kl(self, rows: Sequence[TokenPair]) -> float | None:
        """The policy's divergence on these mismatched rows, nats, not below 0; None where there are none."""
        if self.reference is None or not rows:
            return None
        log_ratio = kl.estimate(
            self.scorer,
            rows,
            reference=self.reference,
            pack_tokens=self.pack_tokens,
            processes=self.setup.processes,
        )
        return max(0.0, log_ratio)

    def reference_sums(self, pairs: Sequence[TokenPair]) -> torch.Tensor | None:
        """[2P], nats, weighted as the objective weighs tokens; None where no reference is needed."""
        if self.reference is None:
            return None
        return weighted_sums(self.reference.of_pairs(pairs), pairs, self.objective)

    def halve_packs(self, error: Exception, reporter: Reporter) -> None:
        """After an out-of-memory error; raises any other again, and this one where the packs cannot be smaller."""
        if not is_out_of_memory(error):
            raise error
        longest = max(self.pairs[i].n_tokens for i in self.order.batch(self.step).indices)
        self.pack_tokens = memory.halve_pack_tokens(self.pack_tokens, longest_group=longest)
        reporter.say(f"train: out of memory; the step is repeated with packs of {self.pack_tokens:,} tokens")

    def save_parts(self, into: Path) -> None:
        """The model as it is, into an existing folder: what `model/` holds, or, of a reward model, what makes it."""
        write = score_head.save_parts if self.setup.objective.on_scores else models.save
        write(self.model, self.tokenizer, into)

    def save(self) -> None:
        """Commit a checkpoint, and prune older ones: the first process does, all take part."""
        checkpoint.save(
            self.setup.folder.checkpoints,
            step=self.step,
            optimizer=self.optimizer,
            identity=self.identity,
            extra={
                "pack_tokens": self.pack_tokens,
                "seconds": self.seconds,
                "forecast": None if self.forecast is None else self.forecast.state(),
                "shrinking": None if self.shrinking is None else self.shrinking.state(),
                "before": self.heldout_before,
            },
            keep=self.setup.config.train.keep_checkpoints,
            writes=self.setup.processes.is_first,
        )
        self.checkpoint_step = self.step

    def save_if_sound(self) -> None:
        """After a step that failed on its numbers: what was trained before it."""
        if self.checkpoint_step == self.step or self.scorer.has_dropout:
            return  # dropout has drawn from its generator by then: such a checkpoint would go on elsewhere
        is_sound = not finite.not_finite(self.optimizer.parameters.items())
        if all(self.setup.processes.gather(is_sound)):
            self.save()
