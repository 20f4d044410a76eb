"""Places on a Ray cluster: each job is an actor on a node that has room for it, which starts a worker process there."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

from trimtab.errors import ConfigError
from trimtab.studies.sweep.job import GPU_VARIABLE, Job, LostJobError, Outcome
from trimtab.studies.sweep.resources import Resources
from trimtab.studies.sweep.worker import WorkerProcess

ADDRESS_VARIABLE = "RAY_ADDRESS"  # Ray's own
CONNECT_SECONDS = 10.0
LOSS_SECONDS = 10.0  # until Ray knows of a node that is gone: before that it puts the next actor there, too


class Runner:
    """The actor. It answers `stop` while `make` waits (two calls at once)."""

    def __init__(self, variables: dict[str, str]) -> None:
        self._worker = WorkerProcess(variables)

    def make(self, job: dict[str, Any]) -> dict[str, Any]:
        """The outcome; raises LostJobError where the worker process dies and the node lives."""
        outcome = self._worker.make(Job.from_json(job))
        self._worker.close()
        return outcome.to_json()

    def stop(self) -> None:
        self._worker.stop()


@dataclass(slots=True)
class RayPlace:
    """Room for one run on the cluster, wherever that is."""

    cpus: int
    gpus: float
    actor: Any = None

    def make(self, job: Job) -> Outcome:
        import ray

        # a run that was promised no GPU sees none, whatever Ray leaves visible
        variables = {"OMP_NUM_THREADS": str(self.cpus)} | ({} if self.gpus else {GPU_VARIABLE: ""})
        remote = cast(Any, ray.remote(Runner))
        try:
            self.actor = remote.options(
                num_cpus=self.cpus, num_gpus=self.gpus, max_concurrency=2, scheduling_strategy="SPREAD"
            ).remote(variables)
            return Outcome.from_json(ray.get(self.actor.make.remote(job.to_json())))
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, LostJobError):
                raise LostJobError(error.cause.message) from None
            raise
        except ray.exceptions.RayError as error:  # the actor, its node, or its memory
            time.sleep(LOSS_SECONDS)
            raise LostJobError(f"{type(error).__name__}: {str(error).splitlines()[0]}") from error
        finally:
            self.close()

    def stop(self) -> None:
        """An actor that still waits for room is given up; one that works ends its run with a checkpoint."""
        import ray

        if (actor := self.actor) is not None:  # which may end meanwhile
            _, not_begun = ray.wait([actor.stop.remote()], timeout=CONNECT_SECONDS)
            if not_begun:
                self.close()

    def close(self) -> None:
        import ray

        actor, self.actor = self.actor, None
        if actor is not None and ray.is_initialized():
            ray.kill(actor)


def ray_places(resources: Resources, *, n_jobs: int) -> Sequence[RayPlace]:
    """As many as the cluster has room for now, or as was asked for.

    In a cluster that was joined. Raises ConfigError where no node can ever hold one run.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus, gpus = resources.cpus_per_run or 1, resources.gpus_per_run
    if gpus is None:
        gpus = 1 if any(node.get("GPU") for node in nodes) else 0
    room = sum(_room(node, cpus, gpus) for node in nodes)
    if not room:
        raise ConfigError(
            f"no node of the Ray cluster has {cpus} CPUs{f' and {gpus:g} GPU' if gpus else ''} for a run",
            remedy="smaller --cpus-per-run or --gpus-per-run, or start a node that has them",
        )
    return [RayPlace(cpus, gpus) for _ in range(min(n_jobs, resources.workers or room))]


def _room(node: Mapping[str, float], cpus: int, gpus: float) -> int:
    """How many runs fit a node."""
    n_runs = int(node.get("CPU", 0) // cpus)
    return min(n_runs, int(node.get("GPU", 0) / gpus)) if gpus else n_runs


def join_cluster() -> None:
    """Raises ConfigError with what to do. Once in a process."""
    try:
        import ray
    except ImportError:
        raise ConfigError("--on ray needs Ray", remedy="pip install 'trimtab[ray]'") from None
    address = os.environ.get(ADDRESS_VARIABLE, "auto")
    remedy = (
        f"start one with `ray start --head`, or say where it is: export {ADDRESS_VARIABLE}=HOST:6379 (the port that "
        "`ray start --head` names)"
    )
    if address != "auto":
        url = urlsplit(address if "://" in address else f"ray://{address}")
        try:
            socket.create_connection((url.hostname or "", url.port or 6379), timeout=CONNECT_SECONDS).close()
        except (OSError, ValueError) as error:
            raise ConfigError(f"no head of a Ray cluster answers at {address} ({error})", remedy=remedy) from error
    if ray.is_initialized():
        return
    try:
        ray.init(address=address, log_to_driver=False, logging_level="WARNING")
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"no Ray cluster can be joined at {address}: {reason}", remedy=remedy) from error
