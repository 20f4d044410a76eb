"""A run killed after any step ends bit for bit where the uninterrupted one does, and no other run goes on from it."""

from __future__ import annotations

import random
import signal
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import children
import pytest
import reliable_work as work

from trimtab import store

STEPS = 12  # 24 pairs in batches of 4, two epochs: the first ends after step 6
CELLS = list(product(("full", "lora"), (1, 4), ("on", "off")))


def sections(adapter: str, packs: int, screening: str) -> dict[str, Any]:
    told: dict[str, Any] = {
        "train": {"save_every": 1},
        "engine": {"pack_tokens": {1: 1000, 4: 25}[packs], "screening": screening},
    }
    if adapter == "lora":  # screening is off with dropout, which then draws from the generator at each step
        told["adapter"] = {"kind": "lora", "rank": 4, "alpha": 8.0, "dropout": 0.0 if screening == "on" else 0.2}
    return told


def straight(place: Path, tiny: Path, told: dict[str, Any]) -> Path:
    out = place / "straight"
    code, _ = children.run(work.train, out, tiny, told)
    assert code == 0
    return out


def steps_of(child: list[Any]) -> list[int]:
    return [message[1] for message in child if message[0] == "step"]


def kill_and_resume(place: Path, tiny: Path, told: dict[str, Any], *, after: int, reference: Path) -> None:
    out = place / f"killed-{after}"
    code, first = children.run(work.train, out, tiny, told, after)
    assert code == -signal.SIGKILL
    assert steps_of(first) == list(range(1, after + 1))
    code, second = children.run(work.train, out, tiny, told)
    assert code == 0
    assert steps_of(second)[0] in (after, after + 1)  # the checkpoint of the last step may not have been written
    work.same(reference, out)


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_killed_after_every_step(place: Path, tiny: Path, cell: tuple[str, int, str]) -> None:
    told = sections(*cell)
    reference = straight(place, tiny, told)
    for after in range(1, STEPS + 1):
        kill_and_resume(place, tiny, told, after=after, reference=reference)


@pytest.mark.parametrize(
    ("cell", "after"),
    [(("full", 1, "on"), 3), (("full", 4, "off"), 6), (("lora", 4, "on"), 7), (("lora", 1, "off"), 9)],
    ids=str,
)
def test_killed_after_some_steps(place: Path, tiny: Path, cell: tuple[str, int, str], after: int) -> None:
    told = sections(*cell)
    kill_and_resume(place, tiny, told, after=after, reference=straight(place, tiny, told))


@pytest.mark.parametrize("schedules", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_any_schedule_of_kills_shows_each_pair_once_an_epoch(place: Path, tiny: Path, schedules: int) -> None:
    """Up to four kills between checkpoints that are one to five steps apart."""
    rng = random.Random(7)  # noqa: S311  # moments, no secrets
    for number in range(schedules):
        told = {"train": {"save_every": 1 + (number + 2) % 5}, "engine": {"screening": "on"}}
        out = place / str(number)
        for after in sorted(rng.sample(range(1, STEPS), rng.randint(1, 4))):
            code, _ = children.run(work.train, out, tiny, told, after)
            assert code == -signal.SIGKILL
        code, _ = children.run(work.train, out, tiny, told)
        assert code == 0
        rows = store.read_jsonl(out / "visits.jsonl")
        assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
        for epoch in (rows[:6], rows[6:]):
            assert Counter(pair for row in epoch for pair in row["pairs"]) == Counter(range(24))


# --- what may go on from a checkpoint -------------------------------------------------------------------------------


def killed_run(place: Path, tiny: Path) -> Path:
    code, _ = children.run(work.train, place / "run", tiny, {"train": {"save_every": 1}}, 5)
    assert code == -signal.SIGKILL
    return place / "run"


def test_the_course_may_change_when_told_so_and_nothing_else(place: Path, tiny: Path) -> None:
    out = killed_run(place, tiny)
    course = {"train": {"save_every": 1, "learning_rate": 1e-4, "epochs": 3}}
    code, told = children.run(work.train, out, tiny, course)
    assert code == 2
    ((_, refused),) = [message for message in told if message[0] == "refused"]
    assert "train.epochs was 2.0 and is 3.0" in refused
    assert "train.learning_rate was 0.005 and is 0.0001" in refused
    assert "--resume-anyway" in refused

    for other in ({"seed": 6}, {"objective": {"beta": 0.1}}, {"train": {"batch_pairs": 8}}, {"adapter": "lora"}):
        code, told = children.run(work.train, out, tiny, {**course, **other}, None, None, True)
        assert code == 2
        assert "belongs to another run" in told[-1][1]
        assert "--resume-anyway" not in told[-1][1]
    assert not (out / "resumed.json").exists()

    code, told = children.run(work.train, out, tiny, course, 9, None, True)
    assert code == -signal.SIGKILL
    code, told = children.run(work.train, out, tiny, course)  # its own checkpoint by now: no need to say it again
    assert code == 0
    (kept,) = store.read_json(out / "resumed.json")
    assert kept["after_step"] in (4, 5)
    assert sorted(line.split()[0] for line in kept["changed"]) == ["train.epochs", "train.learning_rate"]
    rows = store.read_jsonl(out / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 19))
    assert max(row["learning_rate"] for row in rows[:4]) > 1e-3
    assert max(row["learning_rate"] for row in rows[5:]) <= 1e-4
    card = (out / "model" / "README.md").read_text(encoding="utf-8")
    assert f"Resumed after step {kept['after_step']} though" in card
    assert "train.learning_rate was 0.005 and is 0.0001" in card


def test_other_data_is_refused_whatever_is_said(place: Path, tiny: Path) -> None:
    out = killed_run(place, tiny)
    rows = store.read_jsonl(out / "data" / "train.jsonl")
    store.write_jsonl(out / "data" / "train.jsonl", [*rows[1:], rows[0]])
    for anyway in (False, True):
        code, told = children.run(work.train, out, tiny, {"train": {"save_every": 1}}, None, None, anyway)
        assert code == 2
        assert "data was" in told[-1][1]


def test_a_run_that_is_to_end_before_its_checkpoint_is_refused(place: Path, tiny: Path) -> None:
    out = killed_run(place, tiny)
    shorter = {"train": {"save_every": 1, "max_steps": 2}}
    code, told = children.run(work.train, out, tiny, shorter, None, None, True)
    assert code == 2
    assert "is to end after 2" in told[-1][1]
