"""Train: pairs and reference log-probabilities in, an aligned model out.

One optimizer step is: the batch that (seed, epoch, position) names, its gradient pack by pack, a clip, an update, a row
of `metrics.jsonl`. The objective is a value; nothing here knows which one it is.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trimtab import store
from trimtab.engine import checkpoint, evaluation, finite, gradient, memory, metrics, models, optim, reference
from trimtab.engine import nonfinite_pairs as culprits
from trimtab.engine.order import Order
from trimtab.engine.scoring import Scorer
from trimtab.engine.screening import Costs, Forecast
from trimtab.engine.shrinking import Shrinking, active
from trimtab.errors import NumericsError
from trimtab.objectives import Objective
from trimtab.progress import Advance, Reporter
from trimtab.records import TokenPair, digest
from trimtab.runtime import memory_fit, model_card, resuming
from trimtab.runtime.milestones import Milestones
from trimtab.runtime.milestones import lines as milestone_lines
from trimtab.runtime.milestones import steps as milestone_steps
from trimtab.runtime.model_loading import chat_template, checked_scorer, load_unaligned
from trimtab.runtime.notices import notices
from trimtab.runtime.run_identity import reference_key, run_identity
from trimtab.runtime.run_setup import RunSetup
from trimtab.runtime.signals import Interrupted, Stop, stop_on_signal
from trimtab.runtime.symptom_watch import watch_from

CHECKPOINTS_A_RUN = 10
GIVE_BACK_EVERY = 8  # steps


def plan(setup: RunSetup, pairs: Sequence[TokenPair]) -> dict[str, Any]:
    """What training on these pairs will do. Lengths are tokens, each prompt counted once for both responses."""
    order = setup.order(len(pairs))
    batches = [order.batch(step).indices for step in range(min(order.steps, order.steps_per_epoch))]
    return {
        "pairs": len(pairs),
        "steps": order.steps,
        "steps_per_epoch": order.steps_per_epoch,
        "pairs_seen": order.pairs_seen(order.steps),
        "tokens_per_epoch": sum(pair.n_tokens for pair in pairs),
        "longest_pair_tokens": max(pair.n_tokens for pair in pairs),
        "largest_batch_tokens": max(sum(pairs[i].n_tokens for i in batch) for batch in batches),
        "learning_rate": setup.peak_learning_rate,
        "warmup_steps": math.ceil(setup.config.train.warmup * order.steps),
        "save_every": _save_every(setup, order),
        "milestones": list(milestone_steps(order)),
    }


def main(setup: RunSetup, *, reporter: Reporter, resume_anyway: bool = False) -> None:
    """Write `model/`, `metrics.jsonl`, `visits.jsonl`, `heldout.json`, `selection.json` and `checkpoints/`.

    Goes on from the newest valid checkpoint; `resume_anyway`: also where its course has changed (see `resuming`).
    """
    folder = setup.folder
    folder.require(folder.data, "prepare")
    if setup.objective.needs_reference:
        folder.require(folder.reference, "reference")
    identity = run_identity(setup)
    made_from = digest(identity | {"select.by": setup.config.select.by})
    if folder.is_done("train", made_from):
        reporter.say("train: this model is trained already")
        return
    setup.use_threads()
    work = _begin(setup, identity, reporter, resume_anyway)
    for line in notices(setup, work.scorer, pack_tokens=work.pack_tokens):
        reporter.say(f"train: {line}")
    if folder.versions.is_file():
        store.write_json(folder.versions, store.read_json(folder.versions) | {"attention": work.scorer.attention_name})
    with (
        stop_on_signal() as stop,
        store.JsonLines(folder.metrics, keep=lambda row: resuming.until(row, work.step)) as log,
        store.JsonLines(folder.visits, keep=lambda row: resuming.until(row, work.step)) as visits,
        reporter.track("training", total=work.order.steps, unit="steps", done=work.step) as advance,
    ):
        _steps(work, stop, log, visits, advance, reporter)
    if work.step < work.order.steps or work.milestones.due(work.step):
        raise stop.error(f"stopped after step {work.step} of {work.order.steps} with a checkpoint")
    _finish(work, reporter)
    made = [folder.model, folder.metrics, folder.visits, folder.heldout, folder.selection]
    folder.finish("train", made_from, made + ([] if work.forecast is None else [folder.screening]))
    work.milestones.clear()


@dataclass(slots=True)
class _Work:
    """What one life of a run works with. The last five change as it goes and return from a checkpoint."""

    setup: RunSetup
    identity: dict[str, Any]
    train: list[TokenPair]
    heldout: list[TokenPair]
    reference: reference.Reference | None
    loaded: models.Loaded
    model: Any
    optimizer: optim.AdamW
    scorer: Scorer
    order: Order
    milestones: Milestones
    forecast: Forecast | None
    shrinking: Shrinking | None
    pack_tokens: int
    step: int
    seconds: float
    before: dict[str, Any] | None


def _begin(setup: RunSetup, identity: dict[str, Any], reporter: Reporter, anyway: bool) -> _Work:
    """Everything loaded, and put back to where the newest valid checkpoint was, if there is one."""
    config, folder, objective = setup.config, setup.folder, setup.objective
    train, heldout = folder.train_pairs(), folder.heldout_pairs()
    order = setup.order(len(train))
    resumed = resuming.find(folder, identity, anyway=anyway, steps=order.steps, reporter=reporter)
    held = None
    if objective.needs_reference:
        held = reference.read(reference_key(setup), [*train, *heldout])
        held.require([*train, *heldout])
    state = resumed.extra if resumed else {}
    fit = memory_fit.fit(setup, pairs=train)
    pack_tokens = config.engine.pack_tokens or state.get("pack_tokens") or fit.pack_tokens
    if fit.checkpointing != "off":
        memory.lean_allocation()
        reporter.say(f"train: activation checkpointing is {fit.checkpointing}: less memory, more time")
    loaded = load_unaligned(setup)
    model = loaded.model
    models.end_generation_at(model, chat_template(loaded).stop_ids)  # what is saved says where it learned to stop
    if config.train.freeze_embeddings:
        models.freeze_embeddings(model)
    if (lora := setup.lora_options) is not None:
        model = models.attach_lora(model, **lora)
    optimizer = optim.AdamW(model, weight_decay=config.train.weight_decay, kind=config.train.optimizer)
    models.lean_embedding(model)
    milestones = Milestones(setup, order, heldout)
    kept = config.train.keep_checkpoints
    taken = checkpoint.bytes_needed(optimizer) * (kept + 1) + milestones.bytes_needed(model)
    store.require_space(folder.checkpoints, int(1.2 * taken))
    scorer = checked_scorer(model, packed=config.engine.packed, checkpointing=fit.checkpointing, pairs=train)
    screens = config.engine.screening != "off" and objective.has_dead_zone and not scorer.has_dropout
    costs = Costs.of(model, prompts=scorer.prompts, calls=config.engine.screening == "auto")
    forecast = Forecast(len(train), costs=costs, state=state.get("forecast")) if screens else None
    shrinking = Shrinking(len(train), state=state.get("shrinking")) if config.engine.shrinking == "on" else None
    if resumed:
        checkpoint.load(resumed, optimizer)
        reporter.say(f"train: goes on after step {resumed.step} from {resumed.folder}")
        before = state["before"]
    else:
        torch.manual_seed(config.seed)
        before = evaluation.heldout(
            scorer, heldout, objective=objective, reference=held, pack_tokens=pack_tokens, untrained=True
        )
    milestones.begin(resumed.step if resumed else 0)
    return _Work(
        setup, identity, train, heldout, held, loaded, model, optimizer, scorer,
        order, milestones, forecast, shrinking, pack_tokens,
        resumed.step if resumed else 0, state.get("seconds", 0.0), before,
    )  # fmt: skip


def _steps(
    work: _Work, stop: Stop, log: store.JsonLines, visits: store.JsonLines, advance: Advance, reporter: Reporter
) -> None:
    """Optimizer steps until the run is done or a signal has come; the last thing is always a checkpoint."""
    told, saved = work.setup.config.train, work.step
    watch = watch_from(work.setup, steps=work.order.steps, dtype=work.scorer.dtype)
    _milestone(work, stop)  # that a signal or a kill may have left out
    while work.step < work.order.steps and not stop:
        began = time.perf_counter()
        indices = work.order.batch(work.step).indices
        pairs = [work.train[i] for i in indices]
        objective = work.setup.objective.at(work.order.epochs_done(work.step))
        try:
            result, norm = _gradient(work, indices, objective, stop)
        except Interrupted:
            break
        except NumericsError:
            _keep(work, saved)
            raise
        except (RuntimeError, MemoryError) as error:
            if not memory.is_out_of_memory(error):
                raise
            work.pack_tokens = memory.halve_pack_tokens(
                work.pack_tokens, longest_group=max(pair.n_tokens for pair in pairs)
            )
            reporter.say(f"train: out of memory; the step is repeated with packs of {work.pack_tokens:,} tokens")
            continue
        rate = optim.learning_rate(
            work.step,
            total=work.order.steps,
            peak=work.setup.peak_learning_rate,
            schedule=told.schedule,
            warmup=told.warmup,
        )
        work.optimizer.step(learning_rate=rate)
        work.step += 1
        took = time.perf_counter() - began
        work.seconds += took
        _remember(work, indices, result)
        row = metrics.row(
            result,
            objective=objective,
            step=work.step,
            epoch=work.order.epochs_done(work.step),
            seconds=work.seconds,
            step_seconds=took,
            grad_norm=norm,
            learning_rate=rate,
            tokens=sum(pair.n_tokens for pair in pairs),
            peak_memory_bytes=memory.peak_bytes(work.scorer.device),
        )
        log.append(row)
        visits.append(metrics.visit(result, step=work.step, indices=indices))
        for symptom in watch.saw(row):
            reporter.say(f"train: {symptom.sentence}")
        advance(1, loss=row["loss"], accuracy=row["rewards/accuracies"], active=row["active/pair"])
        _milestone(work, stop)
        if work.step % GIVE_BACK_EVERY == 0:
            memory.give_back()
        if work.step % _save_every(work.setup, work.order) == 0:
            _save(work)
            saved = work.step
    if saved != work.step:
        _save(work)


def _gradient(
    work: _Work, indices: Sequence[int], objective: Objective, stop: Stop
) -> tuple[gradient.BatchResult, float]:
    """The batch's gradient, clipped, into the parameters, and its norm before; at the first step, with the guard.

    May leave by `Interrupted`. Raises NumericsError, naming the pairs, when any number is not finite.
    """
    held, scorer, pairs = work.reference, work.scorer, [work.train[i] for i in indices]
    reference_R = None if held is None else gradient.weighted_sums(held.of_pairs(pairs), pairs, objective)
    stale_sums_R = None
    if work.shrinking is not None:
        unread = evaluation.log_ratios(torch.zeros(2 * len(pairs)), reference_R, pairs)
        stale_sums_R = work.shrinking.stale_sums_R(indices, unread, objective=objective)
    work.optimizer.zero_gradients()
    try:
        result = gradient.accumulate(
            scorer,
            pairs,
            objective=objective,
            reference_logps_R=reference_R,
            pack_tokens=work.pack_tokens,
            screen_R=None if work.forecast is None else work.forecast.screen_R(indices, pairs),
            stale_sums_R=stale_sums_R,
            # dropout has drawn from its generator by then: such a step is finished, not left
            on_pack=(lambda: None) if scorer.has_dropout else stop.check,
        )
    except NumericsError as error:
        raise culprits.of_forward(error, scorer, pairs, step=work.step + 1, pack_tokens=work.pack_tokens) from error
    if work.step == 0:
        evaluation.guard_first_batch(
            scorer, result, objective=objective, reference_R=reference_R, pairs=pairs, pack_tokens=work.pack_tokens
        )
    norm = work.optimizer.clip(work.setup.config.train.max_grad_norm)
    if not math.isfinite(norm):
        raise culprits.of_gradient(
            scorer, pairs, result, objective=objective, step=work.step + 1, pack_tokens=work.pack_tokens
        )
    return result, norm


def _milestone(work: _Work, stop: Stop) -> None:
    """Where one is due: held-out pairs under the weights of now, and these. A signal leaves it to the next life."""
    if stop or not work.milestones.due(work.step):
        return
    try:
        evidence = evaluation.evidence(
            work.scorer,
            work.heldout,
            objective=work.setup.objective,
            reference=work.reference,
            pack_tokens=work.pack_tokens,
            advance=lambda _responses: stop.check(),
        )
    except Interrupted:
        return
    work.milestones.take(
        work.step, evidence=evidence, save=lambda into: models.save(work.model, work.loaded.tokenizer, into)
    )


def _remember(work: _Work, indices: Sequence[int], result: gradient.BatchResult) -> None:
    """What this visit of these pairs tells about their next one."""
    if work.forecast is not None:
        work.forecast.record(indices, result.active_R, screened_R=result.screened_R, stale_R=result.stale_R)
    if work.shrinking is not None:
        work.shrinking.record(indices, result.log_ratios, active_R=result.active_R, stale_R=result.stale_R)


def _keep(work: _Work, saved: int) -> None:
    """What was trained before a step that failed on its numbers. Dropout has drawn from its generator by then."""
    broken = finite.not_finite(work.optimizer.parameters.items())
    if saved != work.step and not broken and not work.scorer.has_dropout:
        _save(work)


def _save(work: _Work) -> None:
    extra = {
        "pack_tokens": work.pack_tokens,
        "seconds": work.seconds,
        "forecast": None if work.forecast is None else work.forecast.state(),
        "shrinking": None if work.shrinking is None else work.shrinking.state(),
        "before": work.before,
    }
    checkpoint.save(
        work.setup.folder.checkpoints,
        step=work.step,
        optimizer=work.optimizer,
        identity=work.identity,
        extra=extra,
        keep=work.setup.config.train.keep_checkpoints,
    )


def _finish(work: _Work, reporter: Reporter) -> None:
    """What screening did, the pick and its held-out rewards, and the model as a plain transformers or PEFT folder."""
    if work.forecast is not None:
        store.write_json(work.setup.folder.screening, _screening(work, work.forecast, reporter))
    selected = work.milestones.pick()
    for line in milestone_lines(selected):
        reporter.say(f"train: {line}")
    picked, ids = selected["picked"], [pair.id for pair in work.heldout]
    told = {"n": len(ids), "ids": ids, "before": work.before, "after": work.milestones.rewards(picked)}
    store.write_json(work.setup.folder.heldout, told)
    store.write_json(work.setup.folder.selection, selected)
    rows = store.read_jsonl(work.setup.folder.metrics)
    card = model_card.text(
        work.setup,
        rows=rows,
        heldout=told,
        selected=selected,
        changes=resuming.changes(work.setup.folder),
    )

    def write(into: Path) -> None:
        if picked == work.step:
            models.save(work.model, work.loaded.tokenizer, into)
        else:
            work.milestones.copy(picked, into)
        store.write_text(into / "README.md", card)

    store.commit_folder(work.setup.folder.model, write)


def _screening(work: _Work, forecast: Forecast, reporter: Reporter) -> dict[str, Any]:
    """Responses by what was done with them, over all visits; with shrinking, after the re-check of those left over."""
    told: dict[str, Any] = {
        "mode": "screening" if work.shrinking is None else "shrinking",
        "steps": work.step,
        "responses_screened": forecast.screened,
        "promoted": forecast.promoted,
    }
    if (shrinking := work.shrinking) is None:
        return told
    if indices := shrinking.pending:
        pairs = [work.train[i] for i in indices]
        objective = work.setup.objective.at(work.order.epochs_done(work.step))
        with reporter.track("re-check", total=2 * len(pairs), unit="responses") as advance:
            policy_R = evaluation.score(
                work.scorer, pairs, objective=objective, pack_tokens=work.pack_tokens, advance=advance
            )
        held = work.reference
        reference_R = None if held is None else gradient.weighted_sums(held.of_pairs(pairs), pairs, objective)
        shrinking.recheck(indices, active(objective, evaluation.log_ratios(policy_R, reference_R, pairs)))
    return told | {
        "shrunk_visits": shrinking.skipped,
        "rechecked": shrinking.rechecked,
        "missed": shrinking.missed,
    }


def _save_every(setup: RunSetup, order: Order) -> int:
    return setup.config.train.save_every or math.ceil(order.steps / CHECKPOINTS_A_RUN)
