"""The optuna study in which the machines of a sweep meet, and the database that it is in."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.errors import ConfigError
from trimtab.records import digest
from trimtab.studies.sweep.grid import Sweep
from trimtab.studies.sweep.identity import SweepIdentity
from trimtab.studies.sweep.run_table import Run

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import RDBStorage

STORAGE_VARIABLE = "TRIMTAB_STORAGE"  # as good as --storage, and out of the shell's history
STUDY_VARIABLE = "TRIMTAB_STUDY"  # set for the workers of a sweep that has joined a study
LEASE = 120  # seconds; a study keeps that of the machine which made it
HEARTBEATS = 4  # in one lease, so that a single one may fail
STUDY_TIMEOUT = 30.0  # seconds until a study that another machine is making must say what it is about
# seconds between tries to make the tables: of several machines that start on a fresh database at once all but one fail
CREATION_WAITS = (0.2, 0.4, 0.8, 1.6)
ABOUT = "trimtab"  # the study's attribute that says which sweep it is


def public_url(url: str) -> str:
    """A database's address for people: without user, password and options."""
    scheme, _, place = url.partition("?")[0].partition("://")
    return f"{scheme}://{place if scheme.startswith('sqlite') else place.rpartition('@')[2]}"


@dataclass(frozen=True, slots=True)
class StudyAddress:
    """Where the machines of a sweep meet: a database, and in it a study, by the last part of the sweep's folder."""

    storage: str
    name: str

    @classmethod
    def of(cls, sweep: Sweep, *, storage: str | None) -> StudyAddress | None:
        return None if storage is None else cls(storage, f"trimtab sweep {Path(sweep.out).name}")

    @classmethod
    def from_environment(cls) -> StudyAddress | None:
        """What a sweep's process tells its workers by `environment`. A storage alone is the user's, of any sweep."""
        name = os.environ.get(STUDY_VARIABLE)
        return None if name is None else cls(os.environ[STORAGE_VARIABLE], name)

    @property
    def environment(self) -> Sequence[tuple[str, str]]:
        return [(STORAGE_VARIABLE, self.storage), (STUDY_VARIABLE, self.name)]


@dataclass(frozen=True, slots=True)
class StudyContent:
    """What every machine of a sweep must have alike: the sweep, and (as a digest) each run's configuration."""

    sweep: SweepIdentity
    runs: str

    @classmethod
    def of(cls, sweep: SweepIdentity, runs: Iterable[Run]) -> StudyContent:
        return cls(sweep, digest({run.name: digest(dict(run.config) | {"out": ""}) for run in runs}))

    def to_json(self) -> dict[str, Any]:
        return self.sweep.to_json() | {"runs": self.runs}


@contextmanager
def connect(address: StudyAddress, *, content: StudyContent | None) -> Iterator[tuple[Study, RDBStorage]]:
    """The study, made if need be, and its database. `content`: what it must be about; None to trust it.

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
        storage = _storage(address.storage)
        study = _study(storage, address.name, content)
    except (SQLAlchemyError, ImportError, optuna.exceptions.OptunaError) as error:
        raise ConfigError(
            f"{public_url(address.storage)} is no database that a sweep can share ({type(error).__name__})",
            remedy="write --storage sqlite:////folder/sweep.db or postgresql://USER:PASSWORD@HOST/NAME; the folder or "
            "the server must be there, and Python's driver for it installed",
        ) from error
    try:
        yield study, storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _storage(url: str) -> RDBStorage:
    from optuna.storages import RDBStorage
    from sqlalchemy.exc import DBAPIError

    options: dict[str, Any] = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {"pool_pre_ping": True}
    waits = list(CREATION_WAITS)
    while True:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # optuna has called its heartbeat experimental since version 2.9
                return RDBStorage(url, engine_kwargs=options, heartbeat_interval=LEASE, grace_period=LEASE)
        except DBAPIError:
            if not waits:
                raise
            time.sleep(waits.pop(0))


def _study(storage: RDBStorage, name: str, content: StudyContent | None) -> Study:
    """Who makes the study says what it is about; the others read that, and must be about the same."""
    import optuna

    if content is not None:
        try:
            new = optuna.create_study(storage=storage, study_name=name, direction="maximize")
            new.set_user_attr(ABOUT, content.to_json() | {"lease": LEASE})
        except optuna.exceptions.DuplicatedStudyError:
            pass
    study = optuna.load_study(storage=storage, study_name=name)
    deadline = time.monotonic() + STUDY_TIMEOUT
    while (about := study.user_attrs.get(ABOUT)) is None:
        if time.monotonic() > deadline:
            raise ConfigError(f"the study {name!r} is none of trimtab's", remedy="choose another --out")
        time.sleep(0.1)
    if content is not None:
        differences = SweepIdentity.from_json(about).differences(content.sweep)
        if differences or about["runs"] != content.runs:
            difference_text = ", ".join(differences[:4]) or "values, seeds or what is judged"
            raise ConfigError(
                f"the database holds another sweep under {name!r}: it differs in {difference_text}",
                remedy="give every machine the same command, or this sweep another last name with --out",
            )
    storage.heartbeat_interval, storage.grace_period = max(1, about["lease"] // HEARTBEATS), about["lease"]
    return study
