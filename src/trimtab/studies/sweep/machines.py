"""The ledger of a sweep that several machines share: an optuna study in a database that all of them reach.

Each machine keeps its own sweep folder, run folders and ledger; the study says which run is whose, and what came of it.
A run that a machine takes is a trial that it adds, running, with the run's name. Of several such trials of one run the
one with the lowest number holds it, and the others step back: numbers are given out one after another by the database,
so that no two machines make one run. (`Study.ask` would not do: it makes up a trial where none waits, cannot say which
it wants, and two processes on one SQLite file can be handed the same.) A trial whose machine has not been heard of for
`LEASE` seconds, by the database's clock, is failed, and its run is free again.

optuna's states: complete (with the headline win rate as its value), pruned (done without one, or starved), fail
(failed, stopped, lost). The run's own state and its numbers are in the trial's user attributes.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.errors import ConfigError, StoreError
from trimtab.records import digest
from trimtab.studies.sweep.grid import Sweep
from trimtab.studies.sweep.ledger import Ledger, Row, State, Wanted, is_alive, process_start

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial

VARIABLE = "TRIMTAB_STORAGE"  # as good as --storage, and out of the shell's history
STUDY = "TRIMTAB_STUDY"  # set for the workers of a sweep that has joined a study
LEASE = 120  # seconds; a study keeps that of the machine which made it
_BEATS = 4  # in one lease
_PATIENCE = 30.0  # seconds until a study that another machine is making must be whole
_FIRST = ("done", "running", "starved", "failed")  # which of a run's trials speaks for it
_ABOUT = "trimtab"  # the study's attribute that says which sweep it is
_RESULT = "result"  # a trial's attribute: the run's state, seconds, work, numbers and error
_AGAIN = "again:"  # … and the numbers of finished trials that no longer count


def shown(url: str) -> str:
    """A database's address for people: without user, password and options."""
    scheme, _, rest = url.partition("://")
    place = rest.partition("?")[0]
    return f"{scheme}://{place.rpartition('@')[2] if not scheme.startswith('sqlite') else place}"


def study_name(sweep: Sweep) -> str:
    """What machines have to agree in to meet: the last part of the sweep's folder."""
    return f"trimtab sweep {Path(sweep.out).name}"


def about(kept: Mapping[str, Any], wanted: Iterable[Wanted]) -> dict[str, Any]:
    """What every machine of a sweep must have alike: its axes, base and points, and each run's configuration."""
    runs = {run.name: digest(dict(run.config) | {"out": ""}) for run in wanted}
    return dict(kept) | {"runs": digest(runs)}


@dataclass(frozen=True, slots=True)
class Meeting:
    """Where the machines of a sweep meet: its study, and the database that this is in."""

    study: Study
    storage: RDBStorage


@contextmanager
def opened(url: str, name: str, *, told: Mapping[str, Any] | None = None) -> Iterator[Meeting]:
    """The study of a sweep, made if need be. `told`: what it must be about (see `about`); None to trust it.

    Raises ConfigError without optuna, where the database cannot be had, or where it holds another sweep of that name.
    """
    try:
        import optuna
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError:
        raise ConfigError(
            "a sweep on several machines needs optuna", remedy="pip install 'trimtab[sweep]', or leave --storage out"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        storage = _storage(url)
        study = _joined(storage, name, told)
    except (SQLAlchemyError, ImportError, optuna.exceptions.OptunaError) as error:
        raise ConfigError(
            f"{shown(url)} is no database that a sweep can share ({type(error).__name__})",
            remedy="write --storage sqlite:////folder/sweep.db or postgresql://USER:PASSWORD@HOST/NAME; the folder or "
            "the server must be there, and Python's driver for it installed",
        ) from error
    try:
        yield Meeting(study, storage)
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _storage(url: str) -> RDBStorage:
    from optuna.storages import RDBStorage

    options: dict[str, Any] = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {"pool_pre_ping": True}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # optuna has called its heartbeat experimental since version 2.9
        return RDBStorage(url, engine_kwargs=options, heartbeat_interval=LEASE, grace_period=LEASE)


def _joined(storage: RDBStorage, name: str, told: Mapping[str, Any] | None) -> Study:
    """The study, which is about this sweep. Who makes it says what it is about; the others read that."""
    import optuna

    if told is not None:
        try:
            made = optuna.create_study(storage=storage, study_name=name, direction="maximize")
            made.set_user_attr(_ABOUT, {**told, "lease": LEASE})
        except optuna.exceptions.DuplicatedStudyError:
            pass
    study = optuna.load_study(storage=storage, study_name=name)
    until = time.monotonic() + _PATIENCE
    while (held := study.user_attrs.get(_ABOUT)) is None:
        if time.monotonic() > until:
            raise ConfigError(f"the study {name!r} is none of trimtab's", remedy="choose another --out")
        time.sleep(0.1)
    if told is not None:
        _require_same(name, held, told)
    storage.heartbeat_interval, storage.grace_period = max(1, held["lease"] // _BEATS), held["lease"]
    return study


def _require_same(name: str, held: Mapping[str, Any], told: Mapping[str, Any]) -> None:
    from trimtab.commands.run import differing

    changed = [key for key in ("keys", "points") if held[key] != told[key]] or differing(held["base"], told["base"])
    if changed or held["runs"] != told["runs"]:
        what = ", ".join(changed[:4]) or "values, seeds or what is judged"
        raise ConfigError(
            f"the database holds another sweep under {name!r} ({what} differ)",
            remedy="give every machine the same command, or this sweep another last name with --out",
        )


class Shared:
    """A machine's ledger and the study, as one ledger: what `working.work` and the sweep's page ask of `Ledger`."""

    look_again = 2.0

    def __init__(self, local: Ledger, meeting: Meeting, *, root: Path) -> None:
        self._local, self._study, self._storage = local, meeting.study, meeting.storage
        self._me = f"{socket.gethostname()}:{root.resolve()}"
        self._held: dict[str, tuple[FrozenTrial, threading.Event]] = {}
        self._silent: dict[int, float] = {}  # running trials that have never beaten, and since when that is known
        self._waits = False

    def plan(self, runs: Iterable[Wanted], *, retry_failed: bool, stop_starved: bool) -> None:
        """As `Ledger.plan`; failed and starved runs that are to be tried again are freed for every machine."""
        self._local.plan(runs, retry_failed=retry_failed, stop_starved=stop_starved)
        again = [*(["failed"] if retry_failed else []), *([] if stop_starved else ["starved"])]
        with _asking():
            for trial in self._trials():
                if _state(trial) in again:
                    self._study.set_user_attr(f"{_AGAIN}{trial.number}", True)

    def rows(self) -> list[Row]:
        """This machine's rows; of runs that others made or are making, what the study knows."""
        with _asking():
            speaking = self._speaking()
        return [self._seen(row, speaking.get(row.name)) for row in self._local.rows()]

    def _seen(self, row: Row, trial: FrozenTrial | None) -> Row:
        if trial is None:  # what only this machine's ledger knows is told by taking it again, which costs nothing
            return row if row.state == "stopped" else replace(row, state="waiting")
        told, state, result = trial.user_attrs, _state(trial), trial.user_attrs.get(_RESULT, {})
        mine = told["machine"] == self._me
        if mine and (state != "done" or (row.state == "done" and (Path(row.folder) / "report.json").is_file())):
            return replace(row, state=state)
        return replace(
            row,
            state=state,
            elsewhere=told["folder"],
            error=result.get("error"),
            seconds=result.get("seconds", 0.0),
            computed=result.get("computed", {}),
            numbers=result.get("numbers"),
        )

    def take(self) -> Row | None:
        """The next run that may start here and that no machine makes; first those whose shared work is done here.

        On one machine, runs that share reference log-probs and unaligned answers wait for the first of them.
        """
        self._free_of_the_dead()
        rows = self.rows()
        made = {row.kin for row in rows if row.state == "done" and row.elsewhere is None}
        making = {row.kin for row in rows if row.state == "running" and row.elsewhere is None}
        free = [
            row for row in rows if row.state in ("waiting", "stopped") and (row.kin in made or row.kin not in making)
        ]
        for row in sorted(free, key=lambda row: row.kin not in made):
            if self._claim(row):
                taken = self._local.claim(row.name)
                if taken is not None:
                    return taken
                self._end(row.name, "stopped", error="another worker of this machine was first")
        return None

    def _claim(self, row: Row) -> bool:
        from optuna.trial import TrialState, create_trial

        attributes = {
            "run": row.name, "claim": uuid.uuid4().hex, "machine": self._me, "pid": os.getpid(),
            "started": process_start(os.getpid()), "folder": f"{socket.gethostname()}:{Path(row.folder).resolve()}",
            **{f"sets {key}": value for key, value in row.grid.items()},
        }  # fmt: skip
        with _asking():
            self._study.add_trial(create_trial(state=TrialState.RUNNING, user_attrs=attributes))
            own = next(trial for trial in self._trials() if trial.user_attrs["claim"] == attributes["claim"])
            self._keep_alive(row.name, own)
            holder = self._speaking().get(row.name)
        if holder is not None and holder.number == own.number:
            return True
        self._end(row.name, "stopped", error="another machine was first")
        return False

    def finish(
        self,
        row: Row,
        state: State,
        *,
        seconds: float,
        computed: Mapping[str, float],
        numbers: Mapping[str, Any] | None = None,
        error: str | None = None,
        trace: str | None = None,
    ) -> None:
        """As `Ledger.finish`, for every machine to see. A run that was given to another meanwhile is the other's."""
        self._local.finish(row, state, seconds=seconds, computed=computed, numbers=numbers, error=error, trace=trace)
        told = {"seconds": row.seconds + seconds, "computed": dict(computed), "numbers": numbers, "error": error}
        self._end(row.name, state, **told)

    def is_over(self) -> bool:
        """Whether no run waits and none runs, on any machine. Says once that others are waited for."""
        left = [row for row in self.rows() if row.state in ("waiting", "running", "stopped")]
        if left and not self._waits and all(row.elsewhere for row in left):
            self._waits = True
            _log.warning("waiting for %d runs on other machines, to map them too; Ctrl-C ends only this", len(left))
        return not left

    # --- trials ------------------------------------------------------------------------------------------------------

    def _trials(self) -> list[FrozenTrial]:
        return [trial for trial in self._study.get_trials(deepcopy=False) if "run" in trial.user_attrs]

    def _speaking(self) -> dict[str, FrozenTrial]:
        """The trial that counts, by run: a finished one before a running one, and of two the earlier."""
        forgiven = {int(name.removeprefix(_AGAIN)) for name in self._study.user_attrs if name.startswith(_AGAIN)}
        found: dict[str, FrozenTrial] = {}
        for trial in self._trials():
            name, state = trial.user_attrs["run"], _state(trial)
            if state not in _FIRST or trial.number in forgiven:
                continue
            other = found.get(name)
            if other is None or (_FIRST.index(state), trial.number) < (_FIRST.index(_state(other)), other.number):
                found[name] = trial
        return found

    def _end(self, name: str, state: State, **told: Any) -> None:
        import optuna
        from optuna.trial import TrialState

        trial, ended = self._held.pop(name)
        ended.set()
        headline = _headline(told.get("numbers"))
        try:
            with _asking():
                self._storage.set_trial_user_attr(trial._trial_id, _RESULT, told | {"state": state})
                if state == "done" and headline is not None:
                    self._study.tell(trial.number, headline)
                else:
                    over = TrialState.PRUNED if state in ("done", "starved") else TrialState.FAIL
                    self._study.tell(trial.number, state=over)
        except (optuna.exceptions.UpdateFinishedTrialError, ValueError):
            _log.warning("%s: this machine was not heard of for too long, and the run was given away", name)

    def _keep_alive(self, name: str, trial: FrozenTrial) -> None:
        """Beat for the trial until it ends. A database that is away for less than the lease does no harm."""
        ended = threading.Event()
        self._storage.record_heartbeat(trial._trial_id)
        self._storage.set_trial_user_attr(trial._trial_id, "beats", True)
        self._held[name] = (trial, ended)

        def beat() -> None:
            while not ended.wait(self._storage.heartbeat_interval):
                try:
                    self._storage.record_heartbeat(trial._trial_id)
                except Exception as error:
                    _log.warning("the sweep's database does not answer (%s)", type(error).__name__)

        threading.Thread(target=beat, daemon=True, name=f"heartbeat of {name}").start()

    def _free_of_the_dead(self) -> None:
        """Fail the trials of machines that are not heard of, and of processes of this machine that are gone."""
        import optuna

        with _asking():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # experimental since version 2.9
                optuna.storages.fail_stale_trials(self._study)
            for trial in self._trials():
                if _state(trial) == "running" and self._is_dead(trial):
                    self._study.tell(trial.number, state=optuna.trial.TrialState.FAIL, skip_if_finished=True)

    def _is_dead(self, trial: FrozenTrial) -> bool:
        told = trial.user_attrs
        if told["machine"] == self._me:
            return not is_alive(told["pid"], told["started"])
        if told.get("beats"):
            return False  # optuna looks at its heartbeat
        known = self._silent.setdefault(trial.number, time.monotonic())
        return time.monotonic() - known > (self._storage.grace_period or LEASE)


_log = logging.getLogger("trimtab")


@contextmanager
def _asking() -> Iterator[None]:
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


def _state(trial: FrozenTrial) -> Any:
    """The run's state as its machine wrote it; `lost` where that machine was not heard of any more."""
    return "running" if not trial.state.is_finished() else trial.user_attrs.get(_RESULT, {}).get("state", "lost")


def _headline(numbers: Mapping[str, Any] | None) -> float | None:
    rates = (numbers or {}).get("win_rates")
    return None if not rates else rates[0]["win_rate"]["value"]
