"""One contender is one process that answers orders: a line of JSON in, a line of JSON out.

    bench → {"do": "train", …} or {"do": "matmul"}        worker → {"seconds": …, "cpu": …, "peak": …, …}

Processes of their own let the bench take turns among warm contenders. What libraries print goes to stderr.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
def timed() -> Iterator[Callable[[], dict[str, float]]]:
    """Wall and processor seconds since the start of the block, and the peak of memory (bytes) within it."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forgets the peak so far
    wall, cpu = time.perf_counter(), time.process_time()
    yield lambda: {
        "seconds": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
        "peak": memory("VmHWM"),
    }


def matmul_speed(seconds: float = 1.5) -> float:
    """Operations a second of the fastest of three square fp32 products: this machine's ceiling at this moment."""
    import torch

    best = 0.0
    for n in (768, 1536, 2560):
        a, b = torch.rand(n, n), torch.rand(n, n)
        out = torch.empty(n, n)
        torch.mm(a, b, out=out)
        done, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds / 3:
            torch.mm(a, b, out=out)
            done += 1
        best = max(best, done * 2 * n**3 / (time.perf_counter() - start))
    return best
