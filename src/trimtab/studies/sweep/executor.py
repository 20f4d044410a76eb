"""Where jobs are made: `submit(job) -> future`, the one seam between a sweep and the machines it runs on.

InlineExecutor   in the sweep's own process, one after another
PlaceExecutor    at places that make one job at a time each: worker processes of this machine (`local`), actors on a Ray
                 cluster (`ray_places`), jobs in SLURM's queue (`slurm_places`)
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Protocol

from trimtab.errors import ConfigError
from trimtab.progress import Reporter
from trimtab.runtime.signals import Stop
from trimtab.studies.sweep.job import GPU_VARIABLE, Job, Outcome
from trimtab.studies.sweep.job_run import make
from trimtab.studies.sweep.resources import Resources
from trimtab.studies.sweep.worker import WorkerProcess


class Place(Protocol):
    """Makes one job at a time. `stop` comes from another thread, and asks for an end that loses nothing."""

    def make(self, job: Job) -> Outcome:
        """Raises LostJobError where the process or the machine is gone."""

    def stop(self) -> None: ...

    def close(self) -> None: ...


class Executor(Protocol):
    """`n_slots`: how many jobs it has use for at once."""

    n_slots: int

    def submit(self, job: Job) -> Future[Outcome]: ...

    def stop(self) -> None:
        """Ask every job in work for an end that loses nothing."""

    def close(self) -> None: ...


def connect(resources: Resources) -> None:
    """What must be done before signals are listened to: joining a Ray cluster replaces every handler by Ray's own."""
    if resources.cluster == "ray":
        from trimtab.studies.sweep.ray_places import join_cluster

        join_cluster()


def open_executor(resources: Resources, *, n_jobs: int, sweep_folder: str, reporter: Reporter, stop: Stop) -> Executor:
    """After `connect`; for so many jobs at once at most. Raises ConfigError where the cluster cannot be had."""
    match resources.cluster:
        case "local":
            workers = min(resources.workers or 1, n_jobs)
            if workers == 1 and resources.cpus_per_run is None and resources.gpus_per_run is None:
                return InlineExecutor(reporter=reporter, stop=stop)
            return PlaceExecutor(local_places(workers, resources, gpus=visible_gpus()))
        case "ray":
            from trimtab.studies.sweep.ray_places import ray_places

            return PlaceExecutor(ray_places(resources, n_jobs=n_jobs))
        case "slurm":
            from trimtab.studies.sweep.slurm_places import slurm_places

            return PlaceExecutor(slurm_places(resources, n_jobs=n_jobs, sweep_folder=sweep_folder))


class InlineExecutor:
    """Makes a job in this process while `submit` waits."""

    n_slots = 1

    def __init__(self, *, reporter: Reporter, stop: Stop) -> None:
        self._reporter, self._stop = reporter, stop

    def submit(self, job: Job) -> Future[Outcome]:
        future: Future[Outcome] = Future()
        future.set_result(make(job, reporter=self._reporter, stop=self._stop))
        return future

    def stop(self) -> None:
        """The signal has been seen already."""

    def close(self) -> None:
        """Nothing is open."""


class PlaceExecutor:
    """Hands each job to a place that is idle; a thread waits at each."""

    def __init__(self, places: Sequence[Place]) -> None:
        self.n_slots = len(places)
        self._places = places
        self._idle: SimpleQueue[Place] = SimpleQueue()
        for place in places:
            self._idle.put(place)
        self._pool = ThreadPoolExecutor(len(places), thread_name_prefix="place")
        self._is_stopped = threading.Event()

    def submit(self, job: Job) -> Future[Outcome]:
        return self._pool.submit(self._make, job)

    def _make(self, job: Job) -> Outcome:
        place = self._idle.get()
        try:
            if self._is_stopped.is_set():
                return Outcome("stopped", 0.0, {})
            return place.make(job)
        finally:
            self._idle.put(place)

    def stop(self) -> None:
        self._is_stopped.set()
        with ThreadPoolExecutor(len(self._places)) as pool:  # at once: a place far away may take its time
            list(pool.map(lambda place: place.stop(), self._places))

    def close(self) -> None:
        self._pool.shutdown()
        for place in self._places:
            place.close()


# --- this machine ----------------------------------------------------------------------------------------------------


def local_places(workers: int, resources: Resources, *, gpus: Sequence[str]) -> Sequence[WorkerProcess]:
    """Worker processes, each with its share of cores and a GPU of its own as far as they go.

    gpus: as CUDA_VISIBLE_DEVICES names them. Raises ConfigError where they are fewer than the workers were promised.
    """
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    n_threads = str(resources.cpus_per_run or os.environ.get("OMP_NUM_THREADS") or max(1, n_cores // workers))
    return [
        WorkerProcess({"OMP_NUM_THREADS": n_threads} | ({} if gpu is None else {GPU_VARIABLE: gpu}))
        for gpu in gpu_of_workers(workers, gpus, gpus_per_run=resources.gpus_per_run)
    ]


def gpu_of_workers(workers: int, gpus: Sequence[str], *, gpus_per_run: float | None) -> list[str | None]:
    """The GPU that each worker sees, in turn; "" hides them all, None leaves the environment as it is.

    Of 2 GPUs, 3 workers get the first, the second, the first; with a whole one promised to each that is refused.
    """
    if gpus_per_run == 0:
        return [""] * workers
    if gpus_per_run is not None and workers > len(gpus) * int(1 / gpus_per_run):
        raise ConfigError(
            f"{workers} workers with {gpus_per_run:g} GPU each do not fit {len(gpus)} GPUs",
            remedy="fewer --workers, a smaller --gpus-per-run such as 0.5, or --gpus-per-run 0",
        )
    return [gpus[i % len(gpus)] if gpus else None for i in range(workers)]


def visible_gpus() -> list[str]:
    """This process's GPUs, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    names = [name.strip() for name in os.environ.get(GPU_VARIABLE, "").split(",") if name.strip()]
    n_gpus = torch.cuda.device_count()
    return names[:n_gpus] if names else [str(i) for i in range(n_gpus)]
