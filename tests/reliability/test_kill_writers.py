"""kill -9 at random moments, and a refusal or the end of the process at every single operation of a write.

Promised each time: nothing torn is accepted, nothing that was acknowledged is lost, and the next process goes on.
"""

from __future__ import annotations

import random
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

import children
import pytest
import reliable_faults as faults
import reliable_work as work

from trimtab import store
from trimtab.errors import StoreError
from trimtab.judging.verdict_cache import VerdictCache

KILLS = pytest.mark.parametrize("kills", [8, pytest.param(200, marks=pytest.mark.slow)])


def killed(rng: random.Random, of: Any, *arguments: Any) -> list[int]:
    """Let a writer finish up to three writes and a part of the next, kill it, and return what it had acknowledged."""
    child = children.Child(of, *arguments)
    since, took = time.monotonic(), 0.0
    for _ in range(1 + rng.randrange(4)):
        child.hear()
        since, took = time.monotonic(), time.monotonic() - since
    assert child.kill_after(rng.uniform(0, min(took, 0.1))) == -signal.SIGKILL
    return [number for number in child.told if number != "ready"]


def litter(parent: Path) -> list[str]:
    return [path.name for path in parent.iterdir() if path.name.startswith((".tmp-", ".old-"))]


@KILLS
def test_the_checkpoint_writer(place: Path, kills: int) -> None:
    rng, step, acknowledged = random.Random(1), 0, 0  # noqa: S311  # moments, no secrets
    for _ in range(kills):
        told = killed(rng, work.save_checkpoints, place, step + 1)
        acknowledged += len(told)
        found, problems = work.newest_checkpoint(place)
        assert problems == []
        # the one that was being written may be there too: whole, and not yet acknowledged
        assert max(told, default=step) <= found <= max(told, default=step) + 1
        assert len(litter(place)) <= 2
        step = found
    assert acknowledged > kills / 2
    work.save_checkpoint(place, step + 1)
    assert work.newest_checkpoint(place) == (step + 1, [])
    assert litter(place) == []
    assert len(list(place.glob("step-*"))) == 2


@KILLS
def test_the_reference_cache(kills: int) -> None:
    rng, n, acknowledged = random.Random(2), 0, 0  # noqa: S311  # moments, no secrets
    for _ in range(kills):
        told = killed(rng, work.fill_the_cache, n)
        acknowledged += len(told)
        found, held = work.cached(n + len(told) + 2)
        assert held.damaged_shards == ()
        assert n + len(told) <= found <= n + len(told) + 1
        n = found
    assert acknowledged > kills / 2
    work.fill_cache([n])
    assert work.cached(n + 2)[0] == n + 1
    assert litter(work.KEY.folder) == []


@KILLS
def test_the_verdict_store(place: Path, kills: int) -> None:
    rng, n, acknowledged, path = random.Random(3), 0, 0, place / "verdicts.sqlite"  # noqa: S311  # moments
    for _ in range(kills):
        told = killed(rng, work.put_verdicts, path, n)
        acknowledged += len(told)
        found = work.verdicts(path, n + len(told) + 5)
        assert found >= set(range(n + len(told)))
        assert len(found) <= n + len(told) + 1
        n = len(found)
    assert acknowledged > kills / 2


@KILLS
def test_the_run_table_of_a_sweep(place: Path, kills: int) -> None:
    """A run that its worker was killed in is free again, and a run that was written down as done stays done."""
    rng, path, done = random.Random(4), place / "ledger.sqlite", set[str]()  # noqa: S311  # moments
    planned = 0
    for _ in range(kills):
        told = killed(rng, work.plan_and_work_off_runs, path)
        found, n = work.finished_runs(path)
        assert found >= done | set(told)
        assert len(found) <= len(done) + len(told) + 1
        assert n >= planned
        done, planned = found, n
    code, _ = children.run(work.work_off_runs, path)
    assert code == 0
    done, n = work.finished_runs(path)
    assert len(done) == n > kills
    assert n % 20 == 0


# --- every single operation -----------------------------------------------------------------------------------------


WRITERS = pytest.mark.parametrize(
    "writer", [faults.save_next, faults.fill_next, faults.write_next, faults.replace_next]
)


@WRITERS
def test_refused_at_every_operation(place: Path, monkeypatch: pytest.MonkeyPatch, writer: Any) -> None:
    at, states, said = 0, [], []
    while True:
        at += 1
        parent = place / str(at)
        monkeypatch.setenv("TRIMTAB_HOME", str(parent))
        faults.prepare_old(writer, parent)
        faulting = faults.Faults(at, faults.refuse)
        try:
            with faults.faulty(faulting):
                writer(parent)
        except StoreError as error:
            said.append(error.message.replace(str(parent), "PARENT"))
        states.append(faults.state_of(writer, parent))
        if faulting.n < at:
            break
        writer(parent)  # the next attempt goes through
        assert faults.state_of(writer, parent) == "new"
    assert states.count("old") >= 4
    assert states[-1] == "new"
    assert len(said) >= states.count("old")
    assert all("PARENT" in one and "No space left" in one and " free)" in one for one in said)
    assert {"fsync", "mkdir", "write"} <= set(faulting.names)


@WRITERS
@pytest.mark.parametrize("apart", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_ended_at_every_operation(place: Path, monkeypatch: pytest.MonkeyPatch, writer: Any, apart: int) -> None:
    at, code, states = 2 - apart, 9, []
    while code == 9:
        at += apart
        parent = place / str(at)
        monkeypatch.setenv("TRIMTAB_HOME", str(parent))
        faults.prepare_old(writer, parent)
        code, _ = children.run(faults.ended, writer, parent, at)
        states.append(faults.state_of(writer, parent))
        writer(parent)
        assert faults.state_of(writer, parent) == "new"
    assert code == 0
    assert states.count("old") >= (4 if apart == 1 else 1)
    assert states[-1] == "new"


def test_a_verdict_interrupted_at_every_instruction(place: Path) -> None:
    """SQLite is stopped at its n-th instruction, for every n that a `put` has: the row is there or it is not."""
    stopped, before = 0, {0}
    with store.database(place / "verdicts.sqlite") as connection:
        kept = VerdictCache(connection)
        work.put_verdict(kept, 0)
        for number in range(1, 10_000):
            left = number

            def count() -> int:
                nonlocal left
                left -= 1
                return left == 0

            connection.set_progress_handler(count, 1)
            returned = _put(kept, number)
            connection.set_progress_handler(None, 0)
            assert not connection.in_transaction
            there = work.verdicts(place / "verdicts.sqlite", number + 1)  # each of them whole
            assert there - {number} == before
            before = there
            if returned:  # a stop after the commit took effect leaves a row that nobody was told of
                assert number in there
                break
            stopped += 1
    assert stopped > 20
    assert len(before) < 10


def _put(kept: VerdictCache, number: int) -> bool:
    try:
        work.put_verdict(kept, number)
    except sqlite3.OperationalError:
        return False
    return True
