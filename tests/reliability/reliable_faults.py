"""Writers of trimtab whose every operation can be refused, or be the last thing that their process does."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import reliable_work as work

from trimtab import store
from trimtab.engine import checkpoint, reference

Writer = Callable[[Path], None]


class Faults:
    """Counts the operations of a writer, and at the `at`-th refuses it or ends the process."""

    def __init__(self, at: int, act: Callable[[], None]) -> None:
        self.at, self.act, self.n, self.names = at, act, 0, list[str]()

    def __call__(self, name: str) -> None:
        self.n += 1
        self.names.append(name)
        if self.n == self.at:
            self.act()


def refuse() -> None:
    raise OSError(28, "No space left on device")


def end() -> None:
    os._exit(9)


class _Counted(io.TextIOWrapper):
    """A file that counts its writes; a refused one leaves the first half of its text behind."""

    faults: Faults

    def write(self, text: str) -> int:
        try:
            self.faults("write")
        except OSError:
            super().write(text[: len(text) // 2])
            raise
        return super().write(text)


@contextmanager
def faulty(faults: Faults) -> Iterator[None]:
    """Every write, sync, rename, removal and new folder of trimtab, and every tensor file, passes through `faults`."""

    def counted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            faults(name)
            return real(*arguments, **options)

        return call

    def opened(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if mode in ("w", "a"):
            faults("open")
            options.pop("encoding", None)
            counting = _Counted(real_open(file, mode + "b"), encoding="utf-8", newline=options.get("newline"))
            counting.faults = faults
            return counting
        return real_open(file, mode, *arguments, **options)

    def tensors(held: Any, path: Path) -> None:
        try:
            faults("tensors")
        except OSError:
            path.write_bytes(b"half of it")
            raise
        real_tensors(held, path)

    real_open, real_tensors = io.open, checkpoint.save_file
    with ExitStack() as patched:
        for name in ("fsync", "rename", "replace", "mkdir", "chmod"):
            patched.enter_context(patch.object(os, name, counted(name, getattr(os, name))))
        patched.enter_context(patch.object(io, "open", opened))
        patched.enter_context(patch.object(checkpoint, "save_file", tensors))
        patched.enter_context(patch.object(reference, "save_file", tensors))
        yield


def save_next(parent: Path) -> None:
    work.save_checkpoint(parent, 3)


def fill_next(_parent: Path) -> None:
    work.fill_cache([7, 8])


def write_next(parent: Path) -> None:
    store.write_json(parent / "plan.json", {"steps": 2})


def replace_next(parent: Path) -> None:
    store.commit_folder(parent / "model", lambda folder: store.write_text(folder / "card", "new"))


def prepare_old(writer: Writer, parent: Path) -> None:
    """What was there before."""
    if writer is save_next:
        work.save_checkpoint(parent, 1)
        work.save_checkpoint(parent, 2)
    elif writer is fill_next:
        work.fill_cache([1, 2])
    elif writer is write_next:
        store.write_json(parent / "plan.json", {"steps": 1})
    else:
        store.commit_folder(parent / "model", lambda folder: store.write_text(folder / "card", "old"))


def state_of(writer: Writer, parent: Path) -> str:
    """Whether the old state or the new one can be read, whole; an error where neither can."""
    if writer is save_next:
        step, problems = work.newest_checkpoint(parent)
        assert problems == []
        return {2: "old", 3: "new"}[step]
    if writer is fill_next:
        n, held = work.cached(10)
        assert held.damaged_shards == ()
        return {2: "old", 4: "new"}[n]
    if writer is write_next:
        return {1: "old", 2: "new"}[store.read_json(parent / "plan.json")["steps"]]
    # what was being replaced may stand beside its name after a kill; the next writer puts it back
    store.commit_folder(parent / "other", lambda folder: store.write_text(folder / "x", "x"))
    assert store.damage(parent / "model") == []
    return (parent / "model" / "card").read_text()


def ended(_tell: Any, writer: Writer, parent: Path, at: int) -> None:
    with faulty(Faults(at, end)):
        writer(parent)
