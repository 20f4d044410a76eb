"""What is worth knowing before the first step of training."""

from __future__ import annotations

from trimtab.engine import identity
from trimtab.engine.order import Order
from trimtab.engine.scoring import Scorer
from trimtab.runtime.precision import NoiseMeaning
from trimtab.runtime.run_setup import RunSetup


def notices(
    setup: RunSetup, scorer: Scorer, order: Order, *, noise: NoiseMeaning | None, pack_tokens: int
) -> list[str]:
    """The objective's regime, the path and how it computes, and what was switched off."""
    engine, objective = setup.config.engine, setup.objective
    path = f"the padded path, because {scorer.reason}" if scorer.reason else "prefix-shared packs"
    attention = f"attention by {scorer.attention_name}"
    threads = f"{setup.threads} thread{'' if setup.threads == 1 else 's'}"
    machine = f"{scorer.device.type}, {threads}" if scorer.device.type == "cpu" else str(scorer.device)
    lines = [
        *objective.notices(),
        f"{path}, up to {pack_tokens:,} tokens each, {setup.precision} on {machine}, {attention}",
    ]
    if not setup.processes.alone:
        lines.append(
            f"{setup.processes.size} processes, engine.shard {engine.shard}: the pairs of a batch are dealt out"
        )
    if noise is not None and noise.precision != "float32":
        lines.append(noise.sentence)
    if identity.is_adapter(setup.source_folder):
        lines.append(
            f"{setup.source_folder} is an adapter: the model is its base with the adapter merged in, kept in "
            f"{setup.model_folder}"
        )
    if order.prompts is not None:
        lines.append("pairs of a prompt go into one batch, where what they share is computed once (train.group_by)")
    if engine.shrinking == "on":
        lines.append(
            "shrinking is on: approximate; responses far inside the dead zone skip visits, and what that missed is "
            "counted in the report"
        )
    if engine.screening != "off" and objective.has_dead_zone and scorer.has_dropout:
        lines.append("screening is off: with adapter dropout two passes over one response are not the same model")
    if engine.screening == "on" and not objective.has_dead_zone:
        lines.append(f"screening is off: {objective.name} has no dead zone, so there is nothing to screen for")
    return lines
