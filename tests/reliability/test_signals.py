"""SIGTERM and SIGINT at random moments: a checkpoint of the step that was reached, the right code, and a resume."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path
from typing import Any

import children
import pytest
import reliable_work as work

from trimtab import store

TOLD: dict[str, Any] = {"train": {"save_every": 3, "epochs": 4}}  # 24 steps
STEPS = 24


def newest(out: Path) -> int:
    folder, problems = store.newest_valid(out / "checkpoints", "step-")
    assert problems == []
    return 0 if folder is None else int(folder.name.removeprefix("step-"))


def started(out: Path, tiny: Path, steps: int) -> children.Child:
    """A run that has told of so many steps."""
    child = children.Child(work.train, out, tiny, TOLD)
    while child.hear()[0] != "training":
        pass
    for _ in range(steps):
        child.hear()
    return child


@pytest.mark.parametrize("moments", [4, pytest.param(100, marks=pytest.mark.slow)])
def test_a_signal_at_any_moment(place: Path, tiny: Path, moments: int) -> None:
    rng = random.Random(11)  # noqa: S311  # moments, no secrets
    code, _ = children.run(work.train, place / "straight", tiny, TOLD)
    assert code == 0
    slowest = 0.0
    for number in range(moments):
        which = (signal.SIGTERM, signal.SIGINT)[number % 2]
        out = place / str(number)
        child = started(out, tiny, rng.randrange(STEPS - 4))
        time.sleep(rng.uniform(0, 0.05))
        asked = child.send(which)
        code = child.end()
        slowest = max(slowest, time.monotonic() - asked)
        assert code == 128 + which
        done = max((message[1] for message in child.told if message[0] == "step"), default=0)
        rows = store.read_jsonl(out / "metrics.jsonl")
        assert newest(out) == done == len(rows)  # nothing that was done is done again
        assert not (out / "model").exists()
        assert f"{which.name}: stopped after step {done} of {STEPS}" in child.told[-1][1]
        code, _ = children.run(work.train, out, tiny, TOLD)
        assert code == 0
        work.same(place / "straight", out)
    print(f"{moments} of {moments} resumed; slowest end {slowest:.2f} s after its signal")
    assert slowest < 25


@pytest.mark.parametrize("moments", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_a_second_signal_ends_at_once_and_the_last_checkpoint_is_whole(place: Path, tiny: Path, moments: int) -> None:
    """The second comes while the first is being answered: before, during and after the write of its checkpoint."""
    rng = random.Random(12)  # noqa: S311  # moments, no secrets
    code, _ = children.run(work.train, place / "straight", tiny, TOLD)
    assert code == 0
    for number in range(moments):
        out = place / str(number)
        child = started(out, tiny, 3 + rng.randrange(STEPS - 8))
        before = newest(out)
        child.send(signal.SIGINT)
        time.sleep(rng.uniform(0, 0.02))
        asked = child.send(signal.SIGINT)
        code = child.end()
        assert code in (-signal.SIGINT, 128 + signal.SIGINT)  # the latter: it had ended by itself
        assert time.monotonic() - asked < 25
        assert newest(out) >= before
        code, _ = children.run(work.train, out, tiny, TOLD)
        assert code == 0
        work.same(place / "straight", out)
