"""Callbacks of a run in progress: what they are told, and what becomes of their answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

from trimtab.callbacks import Callback, End, Milestone, Step
from trimtab.errors import StopError
from trimtab.runtime.run_setup import RunSetup
from trimtab.runtime.training_state import TrainingState


def tell_step(training: TrainingState, row: Mapping[str, float | int]) -> None:
    """An optimizer step is done; `row` is its line of `metrics.jsonl`."""
    event = Step(training.setup.folder.root, training.step, training.order.steps, row)
    _tell(training, lambda callback: callback.step(event))


def end_on_time(training: TrainingState) -> None:
    """End a run whose steps have taken `train.max_minutes`: the step that is done is its last."""
    minutes = training.setup.config.train.max_minutes
    if minutes is None or training.step >= training.milestones.last:
        return
    if training.setup.processes.first(lambda: training.seconds >= 60 * minutes):  # by one clock
        training.milestones = training.milestones.end_at(training.step, by="train.max_minutes")


def tell_milestone(training: TrainingState, evidence: Mapping[str, Any]) -> None:
    """The held-out pairs were looked at; `evidence` as `engine.evaluation` has it."""
    rewards, losses, drift = evidence["rewards"], evidence["losses"], evidence["drift"]
    n_tokens = sum(sum(pair.own_lengths) for pair in training.heldout)
    event = Milestone(
        training.setup.folder.root,
        training.step,
        training.order.steps,
        training.order.epochs_done(training.step),
        accuracy=rewards["accuracy"],
        reward_gap=rewards["reward_gap"],
        loss=sum(losses) / len(losses),
        drift=None if drift is None else sum(drift["squares"]) / n_tokens,
    )
    _tell(training, lambda callback: callback.milestone(event))


def _tell(training: TrainingState, call: Callable[[Callback], bool | None]) -> None:
    if training.has_listeners:
        end = training.setup.processes.first(lambda: _answer(training, call))
        if end is not None:
            training.milestones = training.milestones.end_at(training.step, by=end)


def _answer(training: TrainingState, call: Callable[[Callback], bool | None]) -> str | None:
    """Who wants the run to end here, if anyone does."""
    end = None
    for callback in training.callbacks:
        try:
            is_enough = call(callback)
        except Exception:  # the step is done and sound, and nothing of it is lost
            if training.checkpoint_step != training.step and training.setup.processes.alone:
                training.save()
            raise
        if is_enough is True and training.step < training.milestones.last:
            end = end or type(callback).__qualname__
    return end


@contextmanager
def until_the_end(setup: RunSetup, callbacks: Sequence[Callback]) -> Iterator[None]:
    """Within, a run goes on; afterwards each callback knows how it ended, whatever another one raises."""
    outcome: Literal["done", "stopped", "failed"] = "failed"
    try:
        yield
        outcome = "done"
    except (StopError, KeyboardInterrupt):
        outcome = "stopped"
        raise
    finally:
        page = setup.folder.report("html")
        event = End(setup.folder.root, outcome, page if page.is_file() else None)
        with ExitStack() as ends:
            for callback in reversed(callbacks):
                ends.callback(callback.end, event)
