"""Places in SLURM's queue: each job of the sweep is a SLURM job, handed in through submitit.

Partition, account, time limit and the like are what sbatch reads from its own variables (`SBATCH_PARTITION`,
`SBATCH_TIMELIMIT`, …). The queue itself says when a job is over: submitit asks sacct, which only answers where the
cluster keeps accounts.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trimtab.errors import ConfigError
from trimtab.progress import reporter
from trimtab.records import digest
from trimtab.runtime.signals import stop_on_signal
from trimtab.studies.sweep.job import Job, LostJobError, Outcome
from trimtab.studies.sweep.job_run import enter, make, refusal
from trimtab.studies.sweep.resources import Resources

POLL_SECONDS = 2.0  # between questions to the queue, of all places together
END_SECONDS = 120.0  # until a cancelled job must have left the queue
MOST_PLACES = 64  # a thread each
RESULT_SECONDS = 10.0  # until a result on a shared disk must be seen here after its job has left the queue


def make_on_node(tree: Mapping[str, Any], n_threads: int) -> dict[str, Any]:
    """What the SLURM job does. The signal before its time limit is as good as SIGTERM: a checkpoint, and an outcome."""
    os.environ["OMP_NUM_THREADS"] = str(n_threads)  # before torch is imported
    job = Job.from_json(tree)
    if reason := refusal(job):
        return Outcome("failed", 0.0, {}, error=reason).to_json()
    enter(job)
    with stop_on_signal() as stop:
        signal.signal(signal.SIGUSR2, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        return make(job, reporter=reporter(quiet=True), stop=stop).to_json()


@dataclass(slots=True)
class Queue:
    """What SLURM has of one sweep's jobs, by their common name. One question serves all places."""

    name: str
    has_accepted: bool = False  # any job at all
    _ids: frozenset[str] = frozenset()
    _is_fresh_until: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def has(self, job_id: str) -> bool:
        """Whether it waits or runs. While the controller does not answer, what it said last holds."""
        with self._lock:
            if time.monotonic() >= self._is_fresh_until:
                self._ask()
            return job_id in self._ids

    def add(self, job_id: str) -> None:
        with self._lock:
            self._ids |= {job_id}
            self.has_accepted = True

    def clear(self) -> None:
        """Cancel what an earlier process of this sweep left here. Raises ConfigError where it stays."""
        self._ask(raises=True)
        if self._ids:
            _run("scancel", "--me", f"--name={self.name}")
        deadline = time.monotonic() + END_SECONDS
        while self._ids:
            if time.monotonic() > deadline:
                jobs = ", ".join(sorted(self._ids))
                raise ConfigError(f"jobs of this sweep are still in the queue: {jobs}", remedy=f"scancel {jobs}")
            time.sleep(POLL_SECONDS)
            self._ask()

    def _ask(self, *, raises: bool = False) -> None:
        answer = _run("squeue", "--noheader", "--me", f"--name={self.name}", "--format=%i")
        if answer.returncode == 0:
            self._ids = frozenset(answer.stdout.split())
        elif raises:
            raise ConfigError(
                f"SLURM's controller does not answer: {answer.stderr.strip() or answer.returncode}",
                remedy="start the sweep where squeue and sbatch work",
            )
        self._is_fresh_until = time.monotonic() + POLL_SECONDS


@dataclass(slots=True)
class SlurmPlace:
    """Room for one job of the sweep in the queue."""

    executor: Any  # submitit's
    queue: Queue
    submit_lock: threading.Lock
    n_threads: int
    job_id: str | None = None
    is_stopped: bool = False

    def make(self, job: Job) -> Outcome:
        import submitit

        try:
            with self.submit_lock:
                ticket = self.executor.submit(make_on_node, job.to_json(), self.n_threads)
                self.queue.add(ticket.job_id)
        except submitit.core.utils.FailedJobError as error:
            reason = str(error).strip().splitlines()[-1]
            if self.queue.has_accepted:
                raise LostJobError(f"sbatch refused it: {reason}") from error
            raise ConfigError(
                f"sbatch refuses the sweep's jobs: {reason}",
                remedy="set what this cluster wants in sbatch's own variables: SBATCH_PARTITION, SBATCH_ACCOUNT, …",
            ) from error
        self.job_id = ticket.job_id
        if self.is_stopped:  # while the job was handed in
            self.stop()
        while not _has_result(ticket) and self.queue.has(ticket.job_id):
            time.sleep(POLL_SECONDS / 4)
        self.job_id = None
        deadline = time.monotonic() + RESULT_SECONDS
        while not _has_result(ticket):
            if time.monotonic() > deadline:
                raise LostJobError(f"SLURM's job {ticket.job_id} ended without a result, see {ticket.paths.stderr}")
            time.sleep(POLL_SECONDS / 4)
        try:
            return Outcome.from_json(ticket.result())
        except (submitit.core.utils.FailedJobError, submitit.core.utils.UncompletedJobError) as error:
            raise LostJobError(f"SLURM's job {ticket.job_id}: {str(error).splitlines()[-1]}") from error

    def stop(self) -> None:
        """What waits leaves the queue; what runs is told to end with a checkpoint."""
        self.is_stopped = True
        if (job_id := self.job_id) is not None:  # which may end meanwhile
            _run("scancel", "--state=PENDING", job_id)
            _run("scancel", "--signal=TERM", job_id)

    def close(self) -> None:
        """Its job is over."""


def slurm_places(resources: Resources, *, n_jobs: int, sweep_folder: str) -> Sequence[SlurmPlace]:
    """One for every job that there can be at once, or as many as was asked for; the queue makes the rest wait.

    Raises ConfigError without submitit, and where this machine cannot hand in jobs.
    """
    try:
        import submitit
    except ImportError:
        raise ConfigError("--on slurm needs submitit", remedy="pip install 'trimtab[slurm]'") from None
    if absent := [name for name in ("sbatch", "squeue", "scancel", "srun") if shutil.which(name) is None]:
        raise ConfigError(
            f"there is no {', '.join(absent)} here", remedy="start the sweep on a machine from which SLURM takes jobs"
        )
    if resources.gpus_per_run not in (None, 0, 1):
        raise ConfigError(
            f"--gpus-per-run {resources.gpus_per_run:g} is no number of GPUs for SLURM", remedy="write --gpus-per-run 1"
        )
    root = Path(sweep_folder).absolute()
    queue = Queue(f"trimtab-{digest(str(root))[:12]}")
    queue.clear()
    cpus = resources.cpus_per_run or 1
    # a folder for each start: its files go by the numbers of jobs, which a cluster that was set up anew gives out again
    folder = root / "slurm" / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    executor = submitit.SlurmExecutor(folder)
    executor.update_parameters(
        job_name=queue.name,
        time=None,  # submitit's own default is five minutes; the partition's, or SBATCH_TIMELIMIT, holds
        cpus_per_task=cpus,
        srun_args=[f"--cpus-per-task={cpus}"],  # which srun takes from its job no more, from 22.05 on
        **({"gpus_per_node": 1} if resources.gpus_per_run else {}),
    )
    lock = threading.Lock()
    n_places = min(n_jobs, resources.workers or MOST_PLACES)
    return [SlurmPlace(executor, queue, lock, cpus) for _ in range(n_places)]


def _has_result(ticket: Any) -> bool:
    """Asked of the folder, not of the file: a network drive remembers for a while that a file was not there."""
    path: Path = ticket.paths.result_pickle
    return path.parent.is_dir() and path in path.parent.iterdir()


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # SLURM's own programs
