"""The processes of one job: which of them this is, and what they tell each other.

    join     the processes that torchrun's variables name (`env://`: torchrun, accelerate, srun, Ray, submitit), or one
    gather   a value from each, in order of rank
    together the same work everywhere; what fails on one fails on all, and is raised on all
    first    work of the first process alone; the others wait for its result (`follow`: until it has come)

Every exchange has a time limit. Before one each process notes in the store that they share how far it is, so that the
others can name who did not come, and where it was. The first to fail says so there too: it alone has the word.

A value, handed to whoever computes; there is no global one. Nothing of torch is imported before there are others.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from trimtab.errors import ConfigError, PeerError, TrimtabError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
Shard = Literal["none", "optimizer", "gradients"]

VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
START_SECONDS = 60.0  # until a process counts as unreachable, at least: all load torch first
BUCKET_BYTES = 1 << 26  # of small tensors that are summed in one message
_FAILURE = "trimtab/failure"


class _Link:
    """What changes while processes talk: the place in the order of their exchanges, and its name for people."""

    def __init__(self, store: Any) -> None:
        self.store = store  # torch's, as all processes see it
        self.exchanges = self.turns = 0
        self.place = "start"


@dataclass(frozen=True, slots=True)
class _Failure:
    error: Exception


class _OfAll(Exception):  # noqa: N818  # carries an error that all processes know of out of the work it came in
    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


@dataclass(frozen=True, slots=True)
class Processes:
    """This process (`rank`, from 0) among `size`; `local_size` of them on its host.

    `timeout`: seconds that an exchange may take. One process alone exchanges nothing.
    """

    rank: int = 0
    size: int = 1
    local_size: int = 1
    timeout: float = 0.0
    link: _Link | None = None

    @property
    def is_first(self) -> bool:
        """Whether it is this one that writes, reports and draws progress."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        return self.size == 1

    @property
    def apart(self) -> Processes:
        """This process with nobody to talk to, for work that it does alone; it still shares its host."""
        return replace(self, rank=0, size=1, link=None)

    def at(self, place: str) -> None:
        """Where the work is now (“step 17”), for messages about who is missing."""
        if self.link is not None:
            self.link.place = place

    def gather(self, value: T) -> list[T]:
        """The value of each process, in order of rank. Raises PeerError where one does not come within the limit, and
        on all what `together` caught on one."""
        return [value] if self.link is None else self._gather(value)

    def gather_to_first(self, value: T) -> list[T]:
        """The value of each process, in order of rank, on the first; nothing on the others."""
        if self.link is None:
            return [value]
        from torch import distributed

        values: list[Any] | None = [None] * self.size if self.is_first else None
        self._exchange(lambda: distributed.gather_object(value, values))
        return values or []

    def together(self, work: Callable[[], T]) -> list[T]:
        """What `work` gives on each process. What it raises on any of them, of a kind that a run can go on from or end
        in order with, all raise: the first in order of rank, and a number that is not finite before anything else."""
        if self.link is None:
            return [work()]
        try:
            try:
                value: Any = work()
            except Exception as error:
                if not _is_shared(error):
                    raise
                value = _Failure(_portable(error))
            return self._gather(value)
        except _OfAll as failure:
            raise failure.error from None

    def first(self, work: Callable[[], T]) -> T:
        """What `work` gives on the first process, on all; the others wait for it as long as it takes."""
        if self.link is None:
            return work()
        self.link.turns += 1
        key = f"trimtab/turn/{self.link.turns}"
        values: list[Any] = [None]
        if self.is_first:
            values = [work()]
            self.link.store.set(key, "done")
        else:
            self._wait(key)
        from torch import distributed

        self._exchange(lambda: distributed.broadcast_object_list(values, src=0))
        result: T = values[0]
        return result

    def follow(self) -> None:
        """The others wait here until the first has come."""
        self.first(lambda: None)

    def sum_into(self, tensors: Sequence[Tensor]) -> None:
        """Each tensor becomes its sum over all processes. Narrow numbers are summed in fp32."""
        if self.link is None:
            return
        import torch
        from torch import distributed

        for bucket in _buckets(tensors):
            narrow = bucket[0].itemsize < 4
            is_ready = len(bucket) == 1 and not narrow and bucket[0].is_contiguous()
            whole = bucket[0] if is_ready else torch.cat([tensor.flatten() for tensor in bucket])
            whole = whole.float() if narrow else whole
            self._exchange(lambda whole=whole: distributed.all_reduce(whole))  # type: ignore[misc]  # bound at once
            if whole is not bucket[0]:
                parts = torch.split(whole, [tensor.numel() for tensor in bucket])
                for tensor, part in zip(bucket, parts, strict=True):
                    tensor.copy_(part.view_as(tensor))

    @contextmanager
    def one_message(self) -> Iterator[None]:
        """Within: of all processes that fail, the first to do so raises its error; the others raise PeerError, which
        says nothing, with the same exit code. At the end the processes part."""
        if self.link is None:
            yield
            return
        try:
            yield
        except Exception as error:
            error.of_job = True  # type: ignore[attr-defined]  # whoever raises it has the word
            code = error.exit_code if isinstance(error, TrimtabError) else 1
            word = json.dumps({"rank": self.rank, "code": code})
            failure = {"rank": self.rank, "code": code}
            with suppress(Exception):  # the store may have gone with its process: then whoever is left speaks
                failure = json.loads(self.link.store.compare_set(_FAILURE, "", word))
            if failure["rank"] != self.rank:
                raise PeerError(failure["code"]) from error
            if isinstance(error, TrimtabError) and error.message and self.rank and not getattr(error, "of_all", False):
                error.message = f"process {self.rank} of {self.size}: {error.message}"
            raise
        else:
            from torch import distributed

            distributed.destroy_process_group()

    def _wait(self, key: str) -> None:
        """Until the first process has set `key`, without a limit."""
        pause = 0.002
        while not self._check(key):
            if self._check(_FAILURE):
                raise PeerError(self._failure()["code"])
            time.sleep(pause)
            pause = min(0.2, 1.5 * pause)

    # --- the wire ----------------------------------------------------------------------------------------------------

    def _gather(self, value: Any) -> list[Any]:
        from torch import distributed

        values: list[Any] = [None] * self.size
        self._exchange(lambda: distributed.all_gather_object(values, value))
        failures = [value.error for value in values if isinstance(value, _Failure)]
        if failures:
            error = min(failures, key=_severity)  # the first of the worst kind: the same one everywhere
            error.of_all = True  # type: ignore[attr-defined]  # whoever tells it need not say of which process it is
            raise _OfAll(error)
        return values

    def _exchange(self, exchange: Callable[[], object]) -> None:
        link = self.link
        assert link is not None, "alone"
        link.exchanges += 1
        try:
            link.store.set(f"trimtab/at/{self.rank}", json.dumps([link.exchanges, link.place]))
            exchange()
        except RuntimeError as error:
            raise self._absence(error) from error

    def _absence(self, error: RuntimeError) -> TrimtabError:
        """What to say of an exchange that failed: who is not there, and where it was last."""
        link = self.link
        assert link is not None, "alone"
        absent = []
        with suppress(Exception):  # the store may have gone with its process
            if self._check(_FAILURE):
                return PeerError(self._failure()["code"])
            for rank in range(self.size):
                has_begun = self._check(f"trimtab/at/{rank}")
                exchanges, place = json.loads(link.store.get(f"trimtab/at/{rank}")) if has_begun else (0, "start")
                if exchanges < link.exchanges:
                    absent.append(f"process {rank} (last heard of at {place})")
        names = ", ".join(absent) or "another process"
        late = f"has not come within {self.timeout:g} s" if "imed out" in str(error) else "is gone"
        return PeerError(1, f"{link.place}: {names} {late}")

    def _check(self, key: str) -> bool:
        assert self.link is not None, "alone"
        try:
            return bool(self.link.store.check([key]))
        except RuntimeError as error:  # the store has gone with its process
            raise PeerError(1, f"{self.link.place}: the first process is gone") from error

    def _failure(self) -> dict[str, Any]:
        assert self.link is not None, "alone"
        failure: dict[str, Any] = json.loads(self.link.store.get(_FAILURE))
        return failure


ALONE = Processes()


def has_launcher(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a launcher has started this process, alone or with others."""
    return all(name in environment for name in VARIABLES)


def is_started(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a launcher has started this process as one of several."""
    return has_launcher(environment) and environment["WORLD_SIZE"] != "1"


def join(*, timeout: float, device: str = "auto", environment: Mapping[str, str] = os.environ) -> Processes:
    """The processes that the environment names; `ALONE` where it names no others. Each takes the GPU of its place on
    its host. Raises ConfigError where the others cannot be reached within `timeout` seconds."""
    if not is_started(environment):
        return ALONE
    import torch
    from torch import distributed
    from torch._C._distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    rank, size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
    local_rank = int(environment.get("LOCAL_RANK", rank))
    local_size = int(environment.get("LOCAL_WORLD_SIZE", size))
    on_gpu = device in ("auto", "cuda") and torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(local_rank % torch.cuda.device_count())
    start, limit = timedelta(seconds=max(timeout, START_SECONDS)), timedelta(seconds=timeout)
    try:
        if distributed.is_initialized():  # by Ray's TorchTrainer, with its own timeout; nothing public gives its store
            store = PrefixStore("trimtab", distributed.distributed_c10d._get_default_store())
            distributed.destroy_process_group()
        else:
            store, _, _ = next(rendezvous("env://", rank=rank, world_size=size, timeout=start))
        store.set(f"trimtab/here/{rank}", "")
        store.wait([f"trimtab/here/{peer}" for peer in range(size)], start)
        backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
        distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=limit)
    except (RuntimeError, ValueError) as error:
        head = f"{environment['MASTER_ADDR']}:{environment['MASTER_PORT']}"
        raise ConfigError(
            f"process {rank} of {size} cannot reach the others through {head}: {str(error).partition(chr(10))[0]}",
            remedy="look at MASTER_ADDR and MASTER_PORT, at firewalls, and whether all processes were started",
        ) from error
    return Processes(rank, size, local_size, timeout, _Link(store))


def deal(costs: Sequence[float], size: int) -> list[list[int]]:
    """Which numbers of a list each of `size` processes takes: the dearest first, each to whoever has least to do so
    far, among equals to the first (Graham's longest processing time, at most 4/3 of the best). In rising order."""
    shares: list[list[int]] = [[] for _ in range(size)]
    loads = [0.0] * size
    for number in sorted(range(len(costs)), key=lambda number: (-costs[number], number)):
        lightest = loads.index(min(loads))
        shares[lightest].append(number)
        loads[lightest] += costs[number]
    return [sorted(share) for share in shares]


def _is_shared(error: Exception) -> bool:
    """Whether it is for all processes what it is for one: bad numbers, no memory, a signal."""
    from trimtab.engine.out_of_memory import is_out_of_memory

    if isinstance(error, PeerError | _OfAll):
        return False
    return isinstance(error, TrimtabError | Interruption) or is_out_of_memory(error)


class Interruption(Exception):  # noqa: N818  # no error: it unwinds work that will be done again
    """Leaves a half-done step or pass. `number`: of the signal that asked for it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _portable(error: Exception) -> Exception:
    return error if isinstance(error, TrimtabError | Interruption) else MemoryError(str(error))


def _severity(error: Exception) -> int:
    return 0 if isinstance(error, TrimtabError) else 2 if isinstance(error, Interruption) else 1


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Neighbours of one kind together, up to `BUCKET_BYTES`; a larger tensor alone."""
    bucket: list[Tensor] = []
    n_bytes = 0
    for tensor in tensors:
        size = tensor.numel() * tensor.itemsize
        if bucket and (n_bytes + size > BUCKET_BYTES or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket, n_bytes = [], 0
        bucket.append(tensor)
        n_bytes += size
    if bucket:
        yield bucket
