"""Train: pairs and reference log-probabilities in, an aligned model out.

    main     skips what is done already; loads; steps; finishes
    _load    model, optimizer and scorer, put back to the newest valid checkpoint where there is one
    _steps   optimizer steps until the run is done or a signal comes, and then a checkpoint
    _finish  the pick among the milestones, and the model as a plain folder

One optimizer step is: the batch that (seed, epoch, position) names, its gradient pack by pack, a clip, an update, a row
of `metrics.jsonl` and one of `visits.jsonl`. The objective is a value; nothing here knows which one it is.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from trimtab import disk, store
from trimtab.callbacks import Callback
from trimtab.engine import (
    checkpoint,
    evaluation,
    grouping,
    kl,
    memory,
    metrics,
    models,
    optim,
    reference,
)  # fmt: skip
from trimtab.engine.allocation import give_back, settle_allocation
from trimtab.engine.order import Order, started_steps
from trimtab.engine.processes import Interruption
from trimtab.engine.scoring import Scorer
from trimtab.engine.screening import Costs, Forecast
from trimtab.engine.shrinking import Shrinking
from trimtab.errors import NumericsError
from trimtab.progress import Reporter
from trimtab.records import TokenPair, digest
from trimtab.runtime import (
    listeners,
    memory_fit,
    milestones,
    model_card,
    precision,
    resuming,
    saved_model,
    screening_summary,
)  # fmt: skip
from trimtab.runtime.batch_gradient import Batch, batch_gradient
from trimtab.runtime.disk_use import checkpoints_after_success, disk_use
from trimtab.runtime.heldout_progress import heldout_progress
from trimtab.runtime.milestones import Milestones
from trimtab.runtime.model_loading import checked_scorer, load_trainable
from trimtab.runtime.notices import notices
from trimtab.runtime.run_identity import reference_key, run_identity
from trimtab.runtime.run_setup import RunSetup
from trimtab.runtime.signals import Stop, stop_on_signal
from trimtab.runtime.training_log import training_log
from trimtab.runtime.training_state import TrainingState

CHECKPOINTS_A_RUN = 10  # of 2.5 s beside steps of 19 s: .1 to 3.2 % of the time (`benchmarks/checkpoints.py`)
GIVE_BACK_EVERY = 8  # steps; each costs 2 to 3 % of one where memory goes back to the system (`allocation.give_back`)


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


def plan(setup: RunSetup, pairs: Sequence[TokenPair]) -> TrainPlan:
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
        save_every=_save_every(setup, order),
        milestones=milestones.steps(order),
    )


def main(
    setup: RunSetup,
    *,
    reporter: Reporter,
    resume_anyway: bool = False,
    until: int | None = None,
    callbacks: Sequence[Callback] = (),
) -> None:
    """Write `model/`, the logs `metrics.jsonl` and `visits.jsonl`, `outlook.json`, `heldout.json`, `selection.json` and
    `checkpoints/`. Goes on from the newest valid checkpoint; `resume_anyway`: also where its course has changed (see
    `resuming`). `until`: stop after so many steps, with a checkpoint and without a model.
    """
    folder, processes = setup.folder, setup.processes
    folder.require(folder.data, "prepare")
    if setup.objective.needs_reference:
        folder.require(folder.reference, "reference")
    processes.first(lambda: precision.settle(setup.apart, reporter=reporter))
    identity = run_identity(setup)
    inputs = digest(identity | {"select.by": setup.config.select.by})
    if processes.first(lambda: folder.is_done("train", inputs)):
        reporter.say("train: this model is trained already")
        return
    setup.use_threads()
    training = _load(setup, identity, reporter=reporter, resume_anyway=resume_anyway)
    training.callbacks = callbacks
    training.has_listeners = processes.first(lambda: bool(callbacks))
    noise = precision.harmless_noise(setup, training.scorer, training.pairs)
    for line in notices(setup, training.scorer, training.order, noise=noise, pack_tokens=training.pack_tokens):
        reporter.say(f"train: {line}")
    if processes.is_first and folder.versions.is_file():
        checked = {"attention": training.scorer.attention_name, "noise": None if noise is None else noise.to_json()}
        store.write_json(folder.versions, store.read_json(folder.versions) | checked)
    with stop_on_signal(processes) as stop:
        _steps(training, stop, reporter, until=until)
    last = training.milestones.last
    if until is not None and not stop and training.step < last:
        return
    if training.step < last or _is_due(training):
        raise stop.error(f"stopped after step {training.step} of {training.order.steps} with a checkpoint")

    def finish() -> None:
        _finish(training, reporter)
        outputs = [folder.model, folder.metrics, folder.visits, folder.heldout, folder.selection]
        outputs += [path for path in (folder.screening, folder.outlook) if path.is_file()]
        folder.finish("train", inputs, outputs)
        training.milestones.clear()  # after the note: without it the next life picks among them again

    processes.first(finish)


# --- loading ---------------------------------------------------------------------------------------------------------


def _load(setup: RunSetup, identity: dict[str, Any], *, reporter: Reporter, resume_anyway: bool) -> TrainingState:
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
    models.lean_embedding(model)
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


# --- steps -----------------------------------------------------------------------------------------------------------


def _steps(training: TrainingState, stop: Stop, reporter: Reporter, *, until: int | None) -> None:
    """Optimizer steps until the run is done or a signal has come; the last thing is always a checkpoint."""
    steps = training.order.steps
    save_every = _save_every(training.setup, training.order)
    with training_log(training, reporter) as log:
        _take_milestone(training, stop, reporter)  # one that a signal or a kill left out
        while training.step < min(training.milestones.last, until or steps) and not stop:
            start = time.perf_counter()
            training.setup.processes.at(f"step {training.step + 1}")
            try:
                batch = batch_gradient(training, stop)
            except Interruption as interruption:  # in the middle of a step, of which nothing counts: the next life
                stop.agree([interruption.number])  # does it whole
                break
            except NumericsError:
                training.save_if_sound()
                raise
            except (RuntimeError, MemoryError) as error:
                training.halve_packs(error, reporter)  # the gradient begins at zero again: the step is repeated
                continue
            row, visit = _update(training, batch, start=start)
            log(row, visit)
            listeners.tell_step(training, row)
            listeners.end_on_time(training)
            _take_milestone(training, stop, reporter)
            if training.step % GIVE_BACK_EVERY == 0:
                give_back()
            if training.step % save_every == 0:
                training.save()
        if training.checkpoint_step != training.step:
            training.save()


def _update(training: TrainingState, batch: Batch, *, start: float) -> tuple[dict[str, float | int], dict[str, Any]]:
    """Step the weights; the rows of `metrics.jsonl` and `visits.jsonl`. `start`: when the step began, in seconds."""
    setup, order, result = training.setup, training.order, batch.result
    rate = optim.learning_rate(
        training.step,
        total=order.steps,
        peak=setup.peak_learning_rate,
        schedule=setup.config.train.schedule,
        warmup=setup.config.train.warmup,
    )
    training.optimizer.step(learning_rate=rate)
    training.step += 1
    step_seconds = time.perf_counter() - start
    training.seconds += step_seconds
    # what this visit of these pairs says about their next one
    if training.forecast is not None:
        not_visited_R = result.stale_R | ~result.present_R
        training.forecast.record(batch.indices, result.active_R, screened_R=result.screened_R, stale_R=not_visited_R)
    if training.shrinking is not None:
        training.shrinking.record(batch.indices, result.log_ratios, active_R=result.active_R, stale_R=result.stale_R)
    row = metrics.row(
        result,
        objective=batch.objective,
        step=training.step,
        epoch=order.epochs_done(training.step),
        seconds=training.seconds,
        step_seconds=step_seconds,
        grad_norm=batch.norm,
        learning_rate=rate,
        tokens=sum(pair.n_tokens for pair in batch.pairs),
        peak_memory_bytes=memory.peak_bytes(training.scorer.device),
    )
    if batch.kl is not None:
        row["kl"] = batch.kl
    return row, metrics.visit(result, step=training.step, indices=batch.indices)


def _take_milestone(training: TrainingState, stop: Stop, reporter: Reporter) -> None:
    """Where one is due: held-out pairs under the weights of now, and these. A signal leaves it to the next life."""
    if stop or not _is_due(training):
        return
    processes = training.setup.processes
    try:
        with heldout_progress(
            reporter, training.heldout, f"after step {training.step}", processes=processes, check=stop.check
        ) as advance:
            evidence = evaluation.evidence(
                training.scorer,
                training.heldout,
                objective=training.setup.objective.with_kl(training.kl(training.kl_heldout) or 0.0),
                reference=training.reference,
                pack_tokens=training.pack_tokens,
                advance=advance,
                processes=processes,
            )
    except Interruption as interruption:
        stop.agree([interruption.number])
        return
    if processes.is_first:
        training.milestones.take(training.step, evidence=evidence, save=training.save_parts)
    listeners.tell_milestone(training, evidence)


def _is_due(training: TrainingState) -> bool:
    """Whether the policy of now is a milestone that is not on disk yet."""
    at_hand = training.step in training.milestones.steps
    return at_hand and training.setup.processes.first(lambda: training.milestones.due(training.step))


def _save_every(setup: RunSetup, order: Order) -> int:
    return setup.config.train.save_every or math.ceil(order.steps / CHECKPOINTS_A_RUN)


# --- the model -------------------------------------------------------------------------------------------------------


def _finish(training: TrainingState, reporter: Reporter) -> None:
    """What screening did, the pick and its held-out rewards, and the model as a plain transformers or PEFT folder."""
    setup, folder = training.setup, training.setup.folder
    if training.forecast is not None:
        if training.shrinking is not None:
            screening_summary.recheck_pending(
                training.shrinking,
                training.pairs,
                scorer=training.scorer,
                objective=training.objective,
                reference=training.reference,
                pack_tokens=training.pack_tokens,
                reporter=reporter,
            )
        summary = screening_summary.summarise(training.forecast, training.shrinking, steps=training.step)
        store.write_json(folder.screening, summary.to_json())
    selection = training.milestones.pick(training.heldout_before)
    for line in milestones.lines(selection):
        reporter.say(f"train: {line}")
    ids = [pair.id for pair in training.heldout]
    after = training.milestones.rewards(selection.picked)
    heldout = {"n": len(ids), "ids": ids, "before": training.heldout_before, "after": after}
    store.write_json(folder.heldout, heldout)
    store.write_json(folder.selection, selection.to_json())
    card = model_card.text(setup, rows=store.read_jsonl(folder.metrics), heldout=heldout, selection=selection)

    def write(into: Path) -> None:
        saved_model.write(training, selection.picked, into)
        store.write_text(into / "README.md", card)

    store.commit_folder(folder.model, write)
    if checkpoints_after_success(setup.config.train.keep_checkpoints) == 1:
        checkpoint.keep_newest(folder.checkpoints)
