"""The runs of a sweep that several machines share: an optuna study in a database that all of them reach.

Each machine keeps its own sweep folder, run folders and run table; the study says which run is whose, and what came of
it. A run that a machine takes is a trial that it adds, running, with the run's name. Of several such trials of one run
the one with the lowest number has it, and the others step back: numbers are given out one after another by the
database, so that no two machines make one run. (`Study.ask` would not do: it makes up a trial where none waits, cannot
say which it wants, and two processes on one SQLite file can be handed the same.) A trial whose machine has not been
heard of for `LEASE` seconds, by the database's clock, is failed, and its run is free again.

optuna's states: complete (with the headline win rate as its value), pruned (done without one, or starved), fail
(failed, stopped, lost). The run's own state and its numbers are in the trial's user attributes.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from trimtab import store
from trimtab.errors import StoreError
from trimtab.studies.sweep.numbers import PointNumbers
from trimtab.studies.sweep.run_table import (
    FILE_NAME,
    Outcome,
    Run,
    RunTable,
    State,
    is_alive,
    process_start,
    retried_states,
)
from trimtab.studies.sweep.shared_study import LEASE, StudyAddress, StudyContent, connect

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial

RANKS: Sequence[State] = ("done", "running", "starved", "failed")  # which trial of a run counts; a stopped one never
RESULT = "result"  # a trial's attribute: the run's state, seconds, work, numbers and error
RETRY_PREFIX = "again:"  # the study's attributes with the numbers of finished trials that no longer count

_log = logging.getLogger("trimtab")


class SharedRuns:
    """A machine's run table and the study together, with the methods of `RunTable`."""

    poll_seconds = 2.0

    def __init__(self, table: RunTable, study: Study, storage: RDBStorage, *, root: Path) -> None:
        self._table, self._study, self._storage = table, study, storage
        self._machine = f"{socket.gethostname()}:{root.resolve()}"
        self._claims: dict[str, tuple[FrozenTrial, threading.Event]] = {}  # by run: its trial, and when that ended
        self._silent_since: dict[int, float] = {}  # when trials that have never sent a heartbeat were first looked at
        self._is_waiting = False

    def plan(self, runs: Iterable[Run], *, retry_failed: bool, stop_starved: bool) -> None:
        """As `RunTable.plan`; failed and starved runs that are to be tried again are freed for every machine."""
        self._table.plan(runs, retry_failed=retry_failed, stop_starved=stop_starved)
        retries = retried_states(retry_failed=retry_failed, stop_starved=stop_starved)
        with _database_errors():
            for trial in self._trials():
                if _state(trial) in retries:
                    self._study.set_user_attr(f"{RETRY_PREFIX}{trial.number}", True)

    def runs(self) -> list[Run]:
        """This machine's runs; of those that others made or are making, what the study knows."""
        with _database_errors():
            trials = self._counting_trials()
        return [self._run(run, trials.get(run.name)) for run in self._table.runs()]

    def _run(self, run: Run, trial: FrozenTrial | None) -> Run:
        if trial is None:  # finished here, and unknown to the study: taking it again tells the study, at no cost
            return run if run.state == "stopped" else replace(run, state="waiting")
        state, result = _state(trial), trial.user_attrs.get(RESULT, {})
        is_mine = trial.user_attrs["machine"] == self._machine
        is_whole = run.state == "done" and (Path(run.folder) / "report.json").is_file()
        if is_mine and (state != "done" or is_whole):
            return replace(run, state=state)
        numbers = result.get("numbers")
        return replace(
            run,
            state=state,
            elsewhere=trial.user_attrs["folder"],
            error=result.get("error"),
            seconds=result.get("seconds", 0.0),
            task_seconds=result.get("computed", {}),
            numbers=None if numbers is None else PointNumbers.from_json(numbers),
        )

    def take(self) -> Run | None:
        """The next run that may start here and that no machine makes; first those whose shared work is done here.

        On one machine, runs that share reference log-probs and unaligned answers wait for the first of them.
        """
        self._free_dead_trials()
        runs = self.runs()
        keys_in_cache = {run.cache_key for run in runs if run.state == "done" and run.is_here}
        keys_in_work = {run.cache_key for run in runs if run.state == "running" and run.is_here} - keys_in_cache
        free = [run for run in runs if run.state in ("waiting", "stopped") and run.cache_key not in keys_in_work]
        for run in sorted(free, key=lambda run: run.cache_key not in keys_in_cache):
            if self._claim(run):
                own_run = self._table.claim(run.name)
                if own_run is not None:
                    return own_run
                self._step_back(run, "another worker of this machine was first")
        return None

    def _claim(self, run: Run) -> bool:
        """Add a trial of the run; whether it is the one that counts."""
        from optuna.trial import TrialState, create_trial

        attributes = {
            "run": run.name, "machine": self._machine, "pid": os.getpid(), "started": process_start(os.getpid()),
            "folder": f"{socket.gethostname()}:{Path(run.folder).resolve()}",
            **{f"sets {key}": value for key, value in run.settings.items()},
        }  # fmt: skip
        with _database_errors():
            template = create_trial(state=TrialState.RUNNING, user_attrs=attributes)
            trial = self._storage.get_trial(self._storage.create_new_trial(self._study._study_id, template))
            self._keep_alive(run.name, trial)
            holder = self._counting_trials().get(run.name)
        if holder is not None and holder.number == trial.number:
            return True
        self._step_back(run, "another machine was first")
        return False

    def _step_back(self, run: Run, reason: str) -> None:
        self._end(run.name, Outcome("stopped", 0.0, {}, error=reason))

    def finish(self, run: Run, outcome: Outcome) -> None:
        """As `RunTable.finish`, for every machine to see. A run that was given to another meanwhile is the other's."""
        self._table.finish(run, outcome)
        self._end(run.name, replace(outcome, seconds=run.seconds + outcome.seconds))

    def _end(self, name: str, outcome: Outcome) -> None:
        import optuna
        from optuna.trial import TrialState

        trial, has_ended = self._claims.pop(name)
        has_ended.set()
        numbers = outcome.numbers
        rates = numbers.answers.win_rates if numbers else ()
        headline = rates[0].estimate.value if rates else None
        result = {
            "seconds": outcome.seconds, "computed": dict(outcome.task_seconds), "error": outcome.error,
            "numbers": None if numbers is None else numbers.to_json(), "state": outcome.state,
        }  # fmt: skip
        try:
            with _database_errors():
                self._storage.set_trial_user_attr(trial._trial_id, RESULT, result)
                if outcome.state == "done" and headline is not None:
                    self._study.tell(trial.number, headline)
                else:
                    is_sound = outcome.state in ("done", "starved")
                    self._study.tell(trial.number, state=TrialState.PRUNED if is_sound else TrialState.FAIL)
        except (optuna.exceptions.UpdateFinishedTrialError, ValueError):
            _log.warning("%s: this machine was not heard of for too long, and the run was given away", name)

    def is_over(self) -> bool:
        """Whether nothing waits and nothing runs, on any machine. Says once that it waits for others."""
        open_runs = [run for run in self.runs() if run.state in ("waiting", "running", "stopped")]
        if open_runs and not self._is_waiting and not any(run.is_here for run in open_runs):
            self._is_waiting = True
            n = len(open_runs)
            _log.warning("waiting for %d runs on other machines, to map them too; Ctrl-C ends only this", n)
        return not open_runs

    # --- trials ------------------------------------------------------------------------------------------------------

    def _trials(self) -> list[FrozenTrial]:
        return [trial for trial in self._study.get_trials(deepcopy=False) if "run" in trial.user_attrs]

    def _counting_trials(self) -> dict[str, FrozenTrial]:
        """The trial that counts, by run: a finished one before a running one, and of two the earlier."""
        retries = {
            int(name.removeprefix(RETRY_PREFIX)) for name in self._study.user_attrs if name.startswith(RETRY_PREFIX)
        }
        trials = [trial for trial in self._trials() if _state(trial) in RANKS and trial.number not in retries]
        trials.sort(key=lambda trial: (RANKS.index(_state(trial)), trial.number), reverse=True)
        return {trial.user_attrs["run"]: trial for trial in trials}  # of several of a run the last stays

    def _keep_alive(self, name: str, trial: FrozenTrial) -> None:
        """Send heartbeats until the trial ends. A database that is away for less than the lease does no harm."""
        has_ended = threading.Event()
        self._storage.record_heartbeat(trial._trial_id)
        self._storage.set_trial_user_attr(trial._trial_id, "beats", True)
        self._claims[name] = (trial, has_ended)

        def send_heartbeats() -> None:
            while not has_ended.wait(self._storage.heartbeat_interval):
                try:
                    self._storage.record_heartbeat(trial._trial_id)
                except Exception as error:
                    _log.warning("the sweep's database does not answer (%s)", type(error).__name__)

        threading.Thread(target=send_heartbeats, daemon=True, name=f"heartbeat of {name}").start()

    def _free_dead_trials(self) -> None:
        """Fail the trials of machines that are not heard of, and of processes of this machine that are gone."""
        import optuna

        with _database_errors():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # experimental since version 2.9
                optuna.storages.fail_stale_trials(self._study)
            for trial in self._trials():
                if _state(trial) == "running" and self._is_dead(trial):
                    self._study.tell(trial.number, state=optuna.trial.TrialState.FAIL, skip_if_finished=True)

    def _is_dead(self, trial: FrozenTrial) -> bool:
        """Beside what optuna sees: a process of this machine that is gone, and one that died before its first beat."""
        attributes = trial.user_attrs
        if attributes["machine"] == self._machine:
            return not is_alive(attributes["pid"], attributes["started"])
        if attributes.get("beats"):
            return False
        since = self._silent_since.setdefault(trial.number, time.monotonic())
        return time.monotonic() - since > (self._storage.grace_period or LEASE)


Runs = RunTable | SharedRuns  # of one machine, or of several


@contextmanager
def open_runs(root: Path, address: StudyAddress | None, *, content: StudyContent | None = None) -> Iterator[Runs]:
    """The runs of the sweep in a folder; with an address together with those of the study there (see `connect`)."""
    with store.database(root / FILE_NAME) as connection:
        table = RunTable(connection)
        if address is None:
            yield table
        else:
            with connect(address, content=content) as (study, storage):
                yield SharedRuns(table, study, storage, root=root)


@contextmanager
def _database_errors() -> Iterator[None]:
    """Raises StoreError where the database does not answer."""
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        raise StoreError(
            f"the sweep's database does not answer ({type(error).__name__})",
            remedy="the same command goes on when it is there again",
        ) from error


def _state(trial: FrozenTrial) -> State:
    """The run's state as its machine wrote it; stopped, too, where that machine was not heard of any more."""
    if not trial.state.is_finished():
        return "running"
    state: State = trial.user_attrs.get(RESULT, {}).get("state", "stopped")
    return state
