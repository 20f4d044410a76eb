"""`trimtab run` on several processes: it starts itself under `torch.distributed.run`, and says so."""

from __future__ import annotations

import atexit
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from trimtab.config import EngineSection
from trimtab.engine.processes import is_started
from trimtab.errors import PeerError

TOGETHER = frozenset({"run", "reference", "train", "generate", "doctor"})
"""Commands that several processes run together; any other is the first one's."""

GRACE = 3.0  # seconds in which a launcher ends all processes because the first has ended


@contextmanager
def one_of_several() -> Iterator[Callable[[Sequence[str]], bool]]:
    """Whether these words are for this process, which a launcher has started. What is wrong before processes have met
    is wrong for all, in the same words: the others leave it to the first to say so."""
    is_first = not is_started() or os.environ["RANK"] == "0"
    try:
        yield lambda words: is_first or not TOGETHER.isdisjoint(words[:1])
    except Exception as error:
        if not (is_first or isinstance(error, PeerError) or getattr(error, "of_job", False)):
            time.sleep(GRACE)
        raise


def end_after(work: Callable[[], None]) -> NoReturn:
    """Ends this process, one of several, with the exit code of `work`, and without the interpreter's own end.

    Threads of gloo outlive their group. One that asks for the interpreter while that ends is aborted, and a launcher
    then takes a whole run for a failed one: 1 of 7 launches under `engine.shard gradients`.
    """
    code = 0
    try:
        work()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def start_if_several(engine: EngineSection, *, say: Callable[[str], None]) -> None:
    """Where the configuration means one process this returns. Else the processes are started with this very command,
    and this one exits as they do."""
    size = size_of(engine)
    if size == 1:
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(engine.threads or max(1, cores // size)))
    command = [f"--nproc-per-node={size}", "--standalone", "-m", "trimtab", *sys.argv[1:]]
    say(f"{size} processes: torchrun {' '.join(command)}")
    sys.exit(_run(command))


def size_of(engine: EngineSection) -> int:
    """How many processes the configuration means on this machine."""
    if engine.processes != "auto":
        return engine.processes
    if engine.device not in ("auto", "cuda"):
        return 1
    import torch

    return max(1, torch.cuda.device_count())


def _run(command: list[str]) -> int:
    """Their exit code: that of the first to fail."""
    import logging

    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)  # its processes have said why they ended
    try:
        run.main(command)
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        return failure.exitcode if failure.exitcode >= 0 else 128 - failure.exitcode
    except SignalException as error:
        return 128 + error.sigval
    return 0
