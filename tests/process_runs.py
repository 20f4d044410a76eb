"""Runs on several processes for the tests: torchrun as a subprocess, one thread each, and never for ever."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

LIMIT = 90.0  # seconds
TESTS = Path(__file__).resolve().parent


def environment(home: Path, **more: str) -> dict[str, str]:
    """Of a process that computes with one thread and keeps its caches in `home`."""
    path = os.pathsep.join([str(TESTS.parent / "src"), str(TESTS)])
    own = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "TRIMTAB_HOME": str(home)}
    kept = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return kept | own | more


def command(words: Sequence[str], *, size: int) -> list[str]:
    """Python with these words (a script, or `-m` and a module) in `size` processes; one is started plainly."""
    if size == 1:
        return [sys.executable, *words]
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}"]
    return [sys.executable, *launcher, *words]


def run(
    words: Sequence[str], *, size: int, home: Path, more: Mapping[str, str] | None = None, limit: float = LIMIT
) -> subprocess.CompletedProcess[str]:
    """Start, wait for `limit` seconds at most, and hand back what was said."""
    return subprocess.run(
        command(words, size=size),
        env=environment(home, **(more or {})),
        capture_output=True,
        text=True,
        timeout=limit,
        check=False,
    )
