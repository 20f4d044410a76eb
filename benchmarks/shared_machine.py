"""What a step costs beside another busy process: seconds alone and beside it, taking turns.

    python benchmarks/shared_machine.py [--baseline CHECKOUT]

Each contender is a warm process that makes one optimizer step after the other; the busy process is an endless loop of
one thread, and the scheduler shares the processors out as it likes. Writes `shared-machine.json` after each repeat, and
the page of `table.py`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import machine
import table
from contenders import Worker
from workload import SHAPES

BUSY = "while True: pass"


def main() -> None:
    told = _arguments()
    began, commit = datetime.now(UTC), machine.commit()
    checkouts = {table.AS_IT_IS: ("", told.threads), table.ONE_THREAD: ("", 1)}
    if told.baseline:
        checkouts[table.BEFORE] = (told.baseline, told.threads)
    log = told.out / "workers.log"
    words = ["--shape", told.shape, "--lengths", "ultrafeedback", "--pairs", str(told.pairs)]
    samples: list[dict[str, Any]] = []
    for name, (checkout, threads) in checkouts.items():
        worker = Worker.start(sys.executable, "trimtab_worker.py", words, threads=threads, log=log, checkout=checkout)
        _seconds(worker)  # buffers and kernels of these lengths
        for repeat in range(told.repeats):
            quiet = _seconds(worker)
            with busy_process():
                beside = _seconds(worker)
            samples.append({"contender": name, "repeat": repeat, "quiet": quiet, "beside": beside})
            print(f"{repeat} {name}: {quiet:.2f} s, beside a busy process {beside:.2f} s", flush=True)
        worker.stop()
        about = machine.about("shared_machine.py", began, commit, threads=told.threads)
        about["baseline"] = machine.commit(Path(told.baseline)) if told.baseline else ""
        settings = {"shape": told.shape, "pairs": told.pairs, "repeats": told.repeats}
        results = {"about": about, "settings": settings, "samples": samples}
        (told.out / table.SHARED).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    table.write(told.out)


@contextmanager
def busy_process() -> Iterator[None]:
    """One thread that never waits."""
    process = subprocess.Popen([sys.executable, "-c", BUSY])
    time.sleep(0.5)  # until Python has started
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _seconds(worker: Worker) -> float:
    order = {"rate": 1.0, "side": "both", "wrong": 0.0, "held": 0.0, "screening": False}
    return float(worker.order(do="train", **order)["seconds"])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="a step beside another busy process")
    parser.add_argument("--shape", default="60m", choices=SHAPES)
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=machine.threads_here())
    parser.add_argument("--baseline", help="another checkout, whose trimtab is measured too")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    return parser.parse_args()


if __name__ == "__main__":
    main()
