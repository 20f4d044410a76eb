"""`trimtab doctor` under a launcher: what each process of a job would train with, and how fast they talk."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

from trimtab import store
from trimtab.commands.doctor import Diagnosis
from trimtab.engine.processes import Processes
from trimtab.errors import ConfigError
from trimtab.runtime.preflight import refuse_difference, view_of_packages

MESSAGE_BYTES = 1 << 25  # of fp32 that are summed over all processes, as gradients are
TRIES = 3


@dataclass(frozen=True, slots=True)
class ProcessView:
    """One process: its host, what it computes on, memory free for it (bytes), whether it sees the cache folder."""

    rank: int
    host: str
    device: str
    free_bytes: int
    threads: int
    sees_cache: bool


@dataclass(frozen=True, slots=True)
class DryStart:
    """All processes, and what a sum over all of them takes: seconds a message, bytes a second of gradients."""

    diagnosis: Diagnosis
    processes: tuple[ProcessView, ...]
    seconds_a_message: float
    bytes_a_second: float

    def to_json(self) -> dict[str, Any]:
        link = {"seconds_a_message": self.seconds_a_message, "bytes_a_second": self.bytes_a_second}
        return self.diagnosis.to_json() | {"processes": [asdict(view) for view in self.processes]} | link


def main(diagnosis: Diagnosis, processes: Processes) -> DryStart:
    """Raises ConfigError where packages differ, or a process does not see the first one's cache folder."""
    import torch

    from trimtab.engine import memory, models

    refuse_difference(processes.gather(view_of_packages()))
    device, mark = models.pick_device(), store.home() / ".dry-start.json"
    processes.first(lambda: store.write_json(mark, {"processes": processes.size}))
    sharers = 1 if device.type == "cuda" else processes.local_size
    view = ProcessView(
        rank=processes.rank,
        host=str(view_of_packages()["host"]),
        device=torch.cuda.get_device_name() if device.type == "cuda" else device.type,
        free_bytes=memory.free_bytes(device) // sharers,
        threads=torch.get_num_threads(),
        sees_cache=mark.is_file(),
    )
    views = processes.gather(view)
    processes.first(lambda: store.remove(mark))
    if blind := [view for view in views if not view.sees_cache]:
        raise ConfigError(
            f"process {blind[0].rank} on {blind[0].host} does not see {store.home()} of the first process",
            remedy="put TRIMTAB_HOME, and the run folder, on a disk that all hosts share",
        )
    small, large = (torch.zeros(n // 4, device=device) for n in (4, MESSAGE_BYTES))
    seconds = _seconds(processes, small)
    return DryStart(diagnosis, tuple(views), seconds, MESSAGE_BYTES / _seconds(processes, large))


def lines(dry_start: DryStart) -> list[str]:
    """For people."""
    return [
        *(_line(view) for view in dry_start.processes),
        f"link         {dry_start.seconds_a_message * 1e3:.2f} ms a message, gradients summed at "
        f"{dry_start.bytes_a_second / 1e9:.2f} GB/s over {len(dry_start.processes)} processes",
    ]


def _line(view: ProcessView) -> str:
    memory = f"{view.free_bytes / 1e9:.1f} GB free"
    return f"process {view.rank:<4} {view.host}, {view.device}, {memory}, {view.threads} threads"


def _seconds(processes: Processes, tensor: Any) -> float:
    """Of one sum over all processes, the fastest of a few tries on the slowest process."""
    times = []
    for _ in range(TRIES + 1):  # the first one opens connections
        start = time.perf_counter()
        processes.sum_into([tensor])
        if tensor.device.type == "cuda":
            import torch

            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return max(processes.gather(min(times[1:])))
