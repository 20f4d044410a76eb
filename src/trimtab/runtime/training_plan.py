"""What training will do: said by `plan`, before anything is loaded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from trimtab.engine import grouping, kl
from trimtab.engine.order import Order, started_steps
from trimtab.records import TokenPair
from trimtab.runtime import milestones
from trimtab.runtime.run_setup import RunSetup

CHECKPOINTS_A_RUN = 10  # of 2.5 s beside steps of 19 s: .1 to 3.2 % of the time (`benchmarks/checkpoints.py`)


@dataclass(frozen=True, slots=True)
class TrainPlan:
    """What training will do. Lengths are tokens as they are computed: what pairs of a batch share counts once.

    `kl_tokens_per_epoch`: of the forward passes that an objective's KL term takes (`engine.kl`), 0 without one.
    """

    pairs: int
    steps: int
    steps_per_epoch: int
    pairs_seen: int
    tokens_per_epoch: int
    response_tokens_per_epoch: int
    kl_tokens_per_epoch: int
    longest_pair_tokens: int
    largest_batch_tokens: int
    group_by: Literal["prompt", "none"]
    learning_rate: float
    warmup_steps: int
    save_every: int
    milestones: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"milestones": list(self.milestones)}


def training_plan(setup: RunSetup, pairs: Sequence[TokenPair]) -> TrainPlan:
    """What training on these pairs will do."""
    order = setup.training_order(pairs)
    tokens, kl_rows = grouping.count(order, pairs), kl.rows_for(setup.objective, pairs)
    return TrainPlan(
        pairs=len(pairs),
        steps=order.steps,
        steps_per_epoch=order.steps_per_epoch,
        pairs_seen=order.pairs_seen(order.steps),
        tokens_per_epoch=tokens.epoch,
        response_tokens_per_epoch=tokens.responses,
        kl_tokens_per_epoch=grouping.count(order, kl_rows).epoch if kl_rows else 0,
        longest_pair_tokens=max(pair.n_tokens for pair in pairs),
        largest_batch_tokens=tokens.largest_batch,
        group_by="none" if order.prompts is None else "prompt",
        learning_rate=setup.peak_learning_rate,
        warmup_steps=started_steps(setup.config.train.warmup, order.steps),
        save_every=checkpoint_interval(setup, order),
        milestones=milestones.steps(order),
    )


def checkpoint_interval(setup: RunSetup, order: Order) -> int:
    """Steps between two checkpoints."""
    return setup.config.train.save_every or math.ceil(order.steps / CHECKPOINTS_A_RUN)
