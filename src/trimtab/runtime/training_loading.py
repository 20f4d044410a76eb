"""Model, optimizer and scorer of a run, put back to the newest valid checkpoint where there is one."""

from __future__ import annotations

from typing import Any

import torch

from trimtab import disk
from trimtab.engine import checkpoint, evaluation, kl, optim, reference, trainable
from trimtab.engine.allocation import settle_allocation
from trimtab.engine.scoring import Scorer
from trimtab.engine.screening import Costs, Forecast
from trimtab.engine.shrinking import Shrinking
from trimtab.progress import Reporter
from trimtab.runtime import memory_fit, resuming
from trimtab.runtime.disk_use import disk_use
from trimtab.runtime.heldout_progress import heldout_progress
from trimtab.runtime.milestones import Milestones
from trimtab.runtime.model_loading import checked_scorer, load_trainable
from trimtab.runtime.run_identity import reference_key
from trimtab.runtime.run_setup import RunSetup
from trimtab.runtime.training_state import TrainingState


def load_training(
    setup: RunSetup, identity: dict[str, Any], *, reporter: Reporter, resume_anyway: bool
) -> TrainingState:
    """Everything that trains, and put back to where the newest valid checkpoint was, if there is one."""
    config, folder, objective = setup.config, setup.folder, setup.objective
    pairs, heldout = folder.train_pairs(), folder.heldout_pairs()
    kl_rows, kl_heldout = kl.rows_for(objective, pairs), kl.rows_for(objective, heldout)
    order = setup.training_order(pairs)
    processes = setup.processes
    latest = processes.first(
        lambda: resuming.find(folder, identity, anyway=resume_anyway, steps=order.steps, reporter=reporter)
    )
    state = latest.extra if latest else {}
    rows = None
    if objective.needs_reference:
        needed = [*pairs, *heldout, *kl_rows, *kl_heldout]
        rows = reference.read(reference_key(setup), needed)
        rows.require(needed)
    fit = min(processes.gather(memory_fit.fit(setup, pairs=pairs)), key=lambda fit: fit.pack_tokens)
    # what an out-of-memory error left of the packs, a resumed run keeps: the same packs give the same bits
    pack_tokens = config.engine.pack_tokens or state.get("pack_tokens") or fit.pack_tokens
    settle_allocation(lean=fit.checkpointing != "off")
    if fit.checkpointing != "off":
        reporter.say(f"train: activation checkpointing is {fit.checkpointing}: less memory, more time")
    if processes.is_first:
        disk.require_space(folder.checkpoints, int(1.2 * disk_use(setup, pairs=pairs, n_heldout=len(heldout)).peak))
    model, tokenizer = load_trainable(setup)
    optimizer = optim.AdamW(
        model,
        weight_decay=config.train.weight_decay,
        kind=config.train.optimizer,
        processes=processes,
        shard=config.engine.shard,
    )
    trainable.lean_embedding(model)
    scorer = checked_scorer(model, setup, checkpointing=fit.checkpointing, pairs=pairs)
    if latest:
        checkpoint.load(latest, optimizer)
        reporter.say(f"train: goes on after step {latest.step} from {latest.folder}")
        heldout_before = state["before"]
    else:
        torch.manual_seed(config.seed)  # of dropout; a checkpoint brings its generators along
        with heldout_progress(reporter, heldout, "before training", processes=processes) as advance:
            heldout_before = evaluation.heldout(
                scorer,
                heldout,
                objective=objective,
                reference=rows,
                pack_tokens=pack_tokens,
                untrained=setup.begins_at_reference,
                advance=advance,
                processes=processes,
            )
    step = latest.step if latest else 0
    run_milestones = Milestones(setup, order, heldout)
    processes.first(lambda: run_milestones.begin(step))
    return TrainingState(
        setup=setup,
        identity=identity,
        pairs=pairs,
        heldout=heldout,
        kl_rows=kl_rows,
        kl_heldout=kl_heldout,
        order=order,
        reference=rows,
        model=model,
        tokenizer=tokenizer,
        optimizer=optimizer,
        scorer=scorer,
        milestones=run_milestones,
        heldout_before=heldout_before,
        forecast=_forecast(setup, scorer, n_pairs=len(pairs), state=state.get("forecast")),
        shrinking=Shrinking(len(pairs), state=state.get("shrinking")) if config.engine.shrinking == "on" else None,
        pack_tokens=pack_tokens,
        step=step,
        seconds=state.get("seconds", 0.0),
        checkpoint_step=step,
    )


def _forecast(setup: RunSetup, scorer: Scorer, *, n_pairs: int, state: dict[str, Any] | None) -> Forecast | None:
    """None where nothing is screened. With dropout two passes over one response are not the same model."""
    mode = setup.config.engine.screening
    if mode == "off" or not setup.objective.has_dead_zone or scorer.has_dropout:
        return None
    costs = Costs.of(scorer.model, prompts=scorer.prompts, calls=mode == "auto")
    return Forecast(n_pairs, costs=costs, state=state)
