"""One contender is one process that answers orders: a line of JSON in, a line of JSON out.

    bench → {"do": "train", …} or {"do": "matmul"}        worker → {"seconds": …, "cpu": …, "peak": …, …}

Processes of their own let the bench take turns among warm contenders. What libraries print goes to stderr.
Also how a block is timed and what a machine's ceilings are, for all that measures here.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TextIO


def open_channel() -> TextIO:
    """The real stdout, for answers alone; everything else that prints is sent to stderr."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return channel


def tell(channel: TextIO, answer: dict[str, Any]) -> None:
    channel.write(json.dumps(answer) + "\n")
    channel.flush()


def orders() -> Iterator[dict[str, Any]]:
    """Orders until the bench closes its end."""
    for line in sys.stdin:
        yield json.loads(line)


def memory(field: str) -> int:
    """Bytes of a line of /proc/self/status: VmHWM (peak) or VmRSS (now)."""
    rows = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(row.split()[1]) * 1024 for row in rows if row.startswith(f"{field}:"))


@contextmanager
def timed(device: str = "cpu") -> Iterator[Callable[[], dict[str, float]]]:
    """Wall and processor seconds since the start of the block, those of other processes among the latter, and the peak
    of memory (bytes) within it: of the process, or of the tensors on a GPU. A GPU is waited for at both ends."""
    if device == "cpu":
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forgets the peak so far
    else:
        import torch

        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
    wall, cpu, everyone = time.perf_counter(), time.process_time(), _busy_seconds()

    def took() -> dict[str, float]:
        if device != "cpu":
            torch.cuda.synchronize()
        seconds, busy = time.perf_counter() - wall, time.process_time() - cpu
        return {
            "seconds": seconds,
            "cpu": busy,
            "others": max(0.0, _busy_seconds() - everyone - busy),
            "peak": memory("VmHWM") if device == "cpu" else torch.cuda.max_memory_allocated(),
        }

    yield took


def _busy_seconds() -> float:
    """Of all processes on all processors since the machine started."""
    _, *ticks = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()
    return sum(map(int, ticks[:3])) / os.sysconf("SC_CLK_TCK")  # user, nice, system


def matmul_speed(
    seconds: float = 1.5, *, sizes: tuple[int, ...] = (768, 1536, 2560), device: str = "cpu", dtype: str = "float32"
) -> float:
    """Operations a second of the fastest of some square products of random numbers: the ceiling at this moment.

    On a CPU both of torch's libraries are asked, MKL (`torch.mm`) and oneDNN; the faster one is the ceiling.
    """
    import torch

    best = 0.0
    for n in sizes:
        a, b = (torch.rand(n, n, device=device).to(getattr(torch, dtype)) for _ in range(2))
        out = torch.empty_like(a)
        ways = [partial(torch.mm, a, b, out=out)]
        if device == "cpu" and dtype == "float32" and hasattr(torch.ops.mkldnn, "_linear_pointwise"):
            ways.append(partial(torch.ops.mkldnn._linear_pointwise, a, b, None, "none", [], ""))
        share = seconds / len(sizes) / len(ways)
        best = max(best, *(2 * n**3 * _times_a_second(way, share, device) for way in ways))
    return best


def ceilings() -> dict[str, Any]:
    """Operations a second of the fastest product in fp32 and in bf16, and the processor's instructions by name."""
    import torch

    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    units = [name for name in ("amx_bf16", "avx512_bf16") if f" {name}" in flags]
    found = {"matmul": matmul_speed(), "instructions": [torch.backends.cpu.get_cpu_capability(), *units]}
    return found | {"matmul_bf16": matmul_speed(dtype="bfloat16", sizes=(768, 1536))}


def copy_speed(seconds: float, *, megabytes: int, device: str = "cpu") -> float:
    """Bytes a second, read plus written, of copying a buffer larger than any cache."""
    import torch

    source = torch.randint(0, 255, (megabytes << 20,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() * _times_a_second(lambda: target.copy_(source), seconds, device)


def _times_a_second(work: Callable[[], object], seconds: float, device: str) -> float:
    import torch

    def wait() -> None:
        if device != "cpu":
            torch.cuda.synchronize()

    work()
    wait()
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        for _ in range(1 if device == "cpu" else 10):  # a GPU is kept busy while the next is asked for
            work()
            done += 1
        wait()
    return done / (time.perf_counter() - start)
