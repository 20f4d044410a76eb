"""`trimtab` with something going wrong in one of its processes: `process_faults.py RANK:STEP:FAULT WORD…`.

FAULT `later` is a kill after STEP seconds, wherever the process is then.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import Any

import torch

from trimtab import cli
from trimtab.engine import gradient
from trimtab.engine.processes import Processes
from trimtab.runtime import preflight

torch.set_num_threads(1)


def act(fault: str) -> None:
    match fault:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "term":
            os.kill(os.getpid(), signal.SIGTERM)
        case "raise":
            raise ValueError("a fault of this test's")
        case "memory":
            raise MemoryError("not enough memory")
        case "sleep":
            time.sleep(1000)
        case _:
            raise AssertionError(fault)


def main(plan: str, words: list[str]) -> None:
    rank, step, fault = plan.split(":")
    if fault == "elsewhere" and os.environ["RANK"] == rank:  # as if on a host with another disk
        preflight.PACKAGES = ()
    if fault == "later" and os.environ["RANK"] == rank:
        threading.Timer(float(step), lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
    accumulate, calls = gradient.accumulate, 0

    def faulty(scorer: Any, *arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        is_here = os.environ.get("RANK", "0") == rank and str(calls) == step
        if is_here and fault == "nan":
            with torch.no_grad():  # of the model in this process, and for this step: all learn of it
                next(iter(scorer.model.parameters()))[3:9] = torch.nan
        elif is_here and fault != "later":
            act(fault)
        return accumulate(scorer, *arguments, **options)

    gradient.accumulate = faulty
    cli.main(words)


if __name__ == "__main__":
    assert Processes  # the package under test is the one that is imported
    main(sys.argv[1], sys.argv[2:])
