"""What the runs of a sweep may use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trimtab.errors import ConfigError

Cluster = Literal["local", "slurm", "ray"]


@dataclass(frozen=True, slots=True)
class Resources:
    """Where the runs of a sweep are made, how many at once (None: one here, as many as there is room on a cluster),
    and what each may use. `cpus_per_run` None: this machine's cores shared out, one elsewhere. `gpus_per_run` None:
    every worker one of this machine's GPUs in turn, one of a Ray cluster's if it has any, none of SLURM's.
    """

    cluster: Cluster = "local"
    workers: int | None = None
    cpus_per_run: int | None = None
    gpus_per_run: float | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"--workers {self.workers} is no number of workers", remedy="write --workers 2")
        if self.cpus_per_run is not None and self.cpus_per_run < 1:
            raise ConfigError(f"--cpus-per-run {self.cpus_per_run} is too few", remedy="write --cpus-per-run 1 or more")
        if self.gpus_per_run is not None and not 0 <= self.gpus_per_run <= 1:
            raise ConfigError(
                f"--gpus-per-run {self.gpus_per_run:g}: a run of a sweep is one process, on one GPU at most",
                remedy="write --gpus-per-run 1, or 0.5 for two runs on each GPU",
            )
