"""`submit(job) -> future`: worker processes, what becomes of a lost one, who gets which GPU."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import Future
from pathlib import Path

import pytest

from trimtab import store
from trimtab.errors import ConfigError
from trimtab.progress import SilentReporter
from trimtab.runtime.signals import Stop
from trimtab.studies.sweep import job as jobs
from trimtab.studies.sweep import job_run
from trimtab.studies.sweep.dispatch import TRIES, Dispatcher
from trimtab.studies.sweep.executor import PlaceExecutor, gpu_of_workers, local_places
from trimtab.studies.sweep.job import GPU_VARIABLE, Job, LostJobError, Outcome
from trimtab.studies.sweep.resources import Resources
from trimtab.studies.sweep.run_table import FILE_NAME, Run, RunTable


def a_job(folder: Path, name: str = "a", **config: object) -> Job:
    store.write_json(folder / jobs.IDENTITY_FILE, {})
    return Job.of(name, "run", {"out": str(folder / name), **config}, sweep=folder, stop_starved=False)


# --- GPUs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("workers", "gpus", "share", "expected"),
    [
        (3, ["0", "1"], None, ["0", "1", "0"]),  # in turn, shared where they are fewer than the workers
        (2, ["GPU-a", "GPU-b", "GPU-c"], 1, ["GPU-a", "GPU-b"]),
        (4, ["0", "1"], 0.5, ["0", "1", "0", "1"]),
        (2, [], None, [None, None]),  # none here: the environment stays as it is
        (2, ["0"], 0, ["", ""]),  # hidden
    ],
)
def test_gpus_go_to_workers_in_turn(
    workers: int, gpus: list[str], share: float | None, expected: list[str | None]
) -> None:
    assert gpu_of_workers(workers, gpus, gpus_per_run=share) == expected


@pytest.mark.parametrize(("workers", "share"), [(3, 1.0), (5, 0.5)])
def test_more_workers_than_gpus_were_promised_are_refused(workers: int, share: float) -> None:
    with pytest.raises(ConfigError, match=rf"{workers} workers with {share:g} GPU each do not fit 2 GPUs"):
        gpu_of_workers(workers, ["0", "1"], gpus_per_run=share)


def test_every_worker_process_sees_its_own_gpu_and_threads(tmp_path: Path) -> None:
    """Two GPUs that this machine need not have: what each process itself says of its environment."""
    places = local_places(2, Resources(workers=2, cpus_per_run=1), gpus=["4", "6"])
    barrier, outcomes, job = threading.Barrier(2), dict[int, Outcome](), a_job(tmp_path, model={"name": "windtunnel"})

    def at(number: int) -> None:
        barrier.wait()
        outcomes[number] = places[number].make(job)

    threads = [threading.Thread(target=at, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for place in places:
        place.close()
    for number, gpu in ((0, "4"), (1, "6")):
        assert outcomes[number].state == "failed"
        assert outcomes[number].error == "data is not set"
        assert (outcomes[number].place or "").endswith(f", GPU {gpu}")
    assert os.environ.get(GPU_VARIABLE) is None


# --- workers ---------------------------------------------------------------------------------------------------------


def test_a_worker_that_dies_is_a_lost_job_and_the_next_gets_a_new_one(tmp_path: Path) -> None:
    (place,) = local_places(1, Resources(workers=1, cpus_per_run=1), gpus=[])
    first = place.make(a_job(tmp_path, model={"name": "windtunnel"}))
    assert first.state == "failed"
    process = place._process
    assert process is not None
    process.send_signal(signal.SIGSTOP)  # so that it cannot answer before it dies
    threading.Timer(0.3, process.kill).start()
    with pytest.raises(LostJobError, match="exit code -9"):
        place.make(a_job(tmp_path, model={"name": "windtunnel"}))
    again = place.make(a_job(tmp_path, model={"name": "windtunnel"}))
    place.close()
    assert again.state == "failed"


def test_a_job_from_elsewhere_is_refused_in_words(tmp_path: Path) -> None:
    job = a_job(tmp_path)
    assert job_run.refusal(job) is None
    (tmp_path / jobs.IDENTITY_FILE).unlink()
    assert "on a disk that all of them have at the same path" in (job_run.refusal(job) or "")
    assert "was started by 0.0.0" in (job_run.refusal(Job.from_json(job.to_json() | {"version": "0.0.0"})) or "")


# --- the sweep's loop ------------------------------------------------------------------------------------------------


class Losses:
    """An executor whose every job is lost for the first `n` times, by a process that ended."""

    n_slots = 1

    def __init__(self, n: int, outcome: Outcome | None = None) -> None:
        self.n, self.outcome, self.submissions = n, outcome, list[tuple[str, str]]()

    def submit(self, job: Job) -> Future[Outcome]:
        future = Future[Outcome]()
        self.submissions.append((job.name, job.kind))
        if len(self.submissions) > self.n:
            future.set_result(Outcome("waiting" if job.kind == "shared" else "done", 1.0, {"training": 1.0}))
        elif self.outcome is not None:
            future.set_result(self.outcome)
        else:
            future.set_exception(LostJobError("its process ended with exit code -9"))
        return future

    def stop(self) -> None: ...

    def close(self) -> None: ...


def dispatch(tmp_path: Path, executor: Losses | PlaceExecutor, n_runs: int = 1) -> list[Run]:
    runs = [Run(f"p{i}", f"p{i}", 0, str(tmp_path / f"p{i}"), {}, {"out": ""}, "same") for i in range(n_runs)]
    with store.database(tmp_path / FILE_NAME) as connection:
        table = RunTable(connection)
        table.plan(runs, retry_failed=False, stop_starved=False)
        Dispatcher(table, executor, folder=tmp_path, stop_starved=False, reporter=SilentReporter(), stop=Stop()).work()
        return table.runs()


def test_a_lost_run_is_made_again_and_not_for_ever(tmp_path: Path) -> None:
    (run,) = dispatch(tmp_path, Losses(TRIES - 1))
    assert (run.state, run.error) == ("done", None)
    for_ever = Losses(99)
    (tmp_path / FILE_NAME).unlink()
    (run,) = dispatch(tmp_path, for_ever)
    assert len(for_ever.submissions) == TRIES == 3
    assert (run.state, run.error) == (
        "failed",
        "lost 3 times, the last time because its process ended with exit code -9",
    )


def test_a_run_that_a_time_limit_stops_goes_on_as_long_as_it_trains(tmp_path: Path) -> None:
    """Nine allotted times, each of which trained: 9 · 1 s and the last one's 1 s."""
    (run,) = dispatch(tmp_path, Losses(9, Outcome("stopped", 1.0, {"training": 1.0}, error="SIGTERM")))
    assert (run.state, run.seconds, run.task_seconds) == ("done", 10.0, {"training": 10.0})


def test_a_lost_shared_job_is_made_again_before_any_run(tmp_path: Path) -> None:
    executor = Losses(1)
    runs = dispatch(tmp_path, executor, n_runs=2)
    assert executor.submissions == [("p0", "shared"), ("p0", "shared"), ("p0", "run"), ("p1", "run")]
    assert [run.state for run in runs] == ["done", "done"]
