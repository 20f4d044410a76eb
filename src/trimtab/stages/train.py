"""Train: pairs and reference log-probabilities in, an aligned model out.

    main     skips what is done already; loads (`runtime.training_loading`); steps; finishes
    _steps   optimizer steps until the run is done or a signal comes, and then a checkpoint
    _finish  the pick among the milestones, and the model as a plain folder

One optimizer step is: the batch that (seed, epoch, position) names, its gradient pack by pack, a clip, an update, a row
of `metrics.jsonl` and one of `visits.jsonl`. The objective is a value; nothing here knows which one it is.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trimtab import store
from trimtab.callbacks import Callback
from trimtab.engine import checkpoint, evaluation, memory, metrics, optim
from trimtab.engine.allocation import give_back
from trimtab.engine.processes import Interruption
from trimtab.errors import NumericsError
from trimtab.progress import Reporter
from trimtab.records import digest
from trimtab.runtime import listeners, milestones, model_card, precision, saved_model, screening_summary
from trimtab.runtime.batch_gradient import Batch, batch_gradient
from trimtab.runtime.disk_use import checkpoints_after_success
from trimtab.runtime.heldout_progress import heldout_progress
from trimtab.runtime.notices import notices
from trimtab.runtime.run_identity import run_identity
from trimtab.runtime.run_setup import RunSetup
from trimtab.runtime.signals import Stop, stop_on_signal
from trimtab.runtime.training_loading import load_training
from trimtab.runtime.training_log import training_log
from trimtab.runtime.training_plan import checkpoint_interval
from trimtab.runtime.training_state import TrainingState

GIVE_BACK_EVERY = 8  # steps; each costs 2 to 3 % of one where memory goes back to the system (`allocation.give_back`)


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
    training = load_training(setup, identity, reporter=reporter, resume_anyway=resume_anyway)
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


# --- steps -----------------------------------------------------------------------------------------------------------


def _steps(training: TrainingState, stop: Stop, reporter: Reporter, *, until: int | None) -> None:
    """Optimizer steps until the run is done or a signal has come; the last thing is always a checkpoint."""
    steps = training.order.steps
    save_every = checkpoint_interval(training.setup, training.order)
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
