"""Every file of a checkpoint, the reference cache and the verdict cache, harmed in four ways: found, said, survived."""

from __future__ import annotations

import logging
import random
import signal
import sqlite3
from pathlib import Path

import children
import pytest
import reliable_work as work

from trimtab import store
from trimtab.errors import StoreError
from trimtab.judging.verdict_cache import VerdictCache

HARMS = ("delete", "truncate", "flip", "zero")
CHECKPOINT = ("weights.safetensors", "optimizer.safetensors", "rng.safetensors", "state.json", "manifest.json")


def harm(path: Path, how: str, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    match how:
        case "delete":
            path.unlink()
            return
        case "truncate":
            del content[rng.randrange(len(content)) :]
        case "flip":
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        case "zero":
            content = bytearray(len(content))
    path.write_bytes(content)


@pytest.mark.parametrize("times", [1, pytest.param(50, marks=pytest.mark.slow)])
@pytest.mark.parametrize("how", HARMS)
@pytest.mark.parametrize("name", CHECKPOINT)
def test_a_checkpoint(place: Path, name: str, how: str, times: int) -> None:
    rng = random.Random(f"{name} {how}")  # noqa: S311  # places, no secrets
    for number in range(times if how in ("flip", "truncate") else 1):
        parent = place / str(number)
        work.save_checkpoint(parent, 1)
        work.save_checkpoint(parent, 2)
        harm(parent / "step-00000002" / name, how, rng)
        step, problems = work.newest_checkpoint(parent)
        assert step == 1
        assert any("step-00000002" in problem for problem in problems)
        # a manifest that names another digest is told as the file that it accuses
        assert name == "manifest.json" or any(name in problem for problem in problems)


@pytest.mark.parametrize("how", HARMS)
@pytest.mark.parametrize("name", ["rows.safetensors", "manifest.json"])
def test_a_shard_of_the_reference_cache(place: Path, name: str, how: str) -> None:
    work.fill_cache([1, 2, 3])
    (shard,) = work.KEY.folder.glob("shard-*")
    work.fill_cache([5, 6])
    harm(shard / name, how, random.Random(how))  # noqa: S311  # places, no secrets
    n, held = work.cached(10)
    assert n == 2
    assert [folder for folder, _ in held.damaged_shards] == [shard]
    assert name in held.damaged_shards[0][1] or name == "manifest.json"
    store.remove(shard)
    work.fill_cache([1, 2, 3])
    assert work.cached(10)[0] == 5


@pytest.mark.parametrize("how", HARMS)
def test_the_key_that_lies_in_the_cache_for_people_is_written_again(place: Path, how: str) -> None:
    work.fill_cache([1])
    harm(work.KEY.folder / "key.json", how, random.Random(how))  # noqa: S311  # places, no secrets
    work.fill_cache([2])
    assert work.cached(5)[0] == 2
    assert store.read_json(work.KEY.folder / "key.json") == work.KEY.to_json()


def filled(path: Path, n: int) -> None:
    with store.database(path) as connection:
        kept = VerdictCache(connection)
        for number in range(n):
            work.put_verdict(kept, number)
        kept.fail("late", judge="judge", subject="p", kind="timeout", message="slow", attempts=1)


@pytest.mark.parametrize("flips", [20, pytest.param(500, marks=pytest.mark.slow)])
def test_a_flipped_bit_in_the_verdict_store(place: Path, caplog: pytest.LogCaptureFixture, flips: int) -> None:
    """No verdict is ever another one; one that is not there any more was told of, or the file is refused."""
    rng = random.Random(5)  # noqa: S311  # places, no secrets
    filled(place / "whole.sqlite", 60)
    whole, found = (place / "whole.sqlite").read_bytes(), {"refused": 0, "dropped": 0, "harmless": 0}
    refusals: list[str] = []
    for number in range(flips):
        path = place / f"{number}.sqlite"
        path.write_bytes(whole)
        harm(path, "flip", rng)
        caplog.clear()
        try:
            with caplog.at_level(logging.WARNING, "trimtab"):
                there = work.verdicts(path, 60)
        except StoreError as error:
            refusals.append(error.message)
            found["refused"] += 1
            continue
        said = "were damaged and are dropped" in caplog.text
        assert there == set(range(60)) or said
        found["dropped" if said else "harmless"] += 1
        with store.database(path) as connection:
            kept = VerdictCache(connection)
            for lost in set(range(60)) - there:
                work.put_verdict(kept, lost)
        assert work.verdicts(path, 60) == set(range(60))
        path.unlink()
    assert all(str(place) in words and "damaged" in words for words in refusals)
    print(f"{flips} flipped bits: {found}")
    assert found["dropped"] > flips / 4


@pytest.mark.parametrize("how", ["truncate", "zero"])
def test_a_verdict_store_that_is_cut_or_wiped(place: Path, how: str) -> None:
    path = place / "verdicts.sqlite"
    filled(path, 60)
    if how == "truncate":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 // 4096 * 4096])
    else:
        harm(path, how, random.Random(0))  # noqa: S311  # places, no secrets
    with pytest.raises(StoreError, match="damaged") as caught:
        work.verdicts(path, 60)
    assert str(path) in caught.value.message


def test_a_verdict_store_that_is_gone_starts_anew(place: Path) -> None:
    assert work.verdicts(place / "verdicts.sqlite", 60) == set()


def test_rows_from_before_there_were_seals_are_sealed(place: Path) -> None:
    path = place / "verdicts.sqlite"
    filled(path, 5)
    with sqlite3.connect(path) as old:
        old.execute("ALTER TABLE verdicts DROP COLUMN seal")
        old.execute("ALTER TABLE failures DROP COLUMN seal")
        old.execute("PRAGMA user_version = 1")
    old.close()
    assert work.verdicts(path, 5) == set(range(5))
    with sqlite3.connect(path) as new:
        assert new.execute("PRAGMA user_version").fetchone() == (2,)
        assert new.execute("SELECT COUNT(*) FROM verdicts WHERE seal IS NULL").fetchone() == (0,)
    new.close()


@pytest.mark.parametrize("how", ["flip", "zero"])
def test_a_run_goes_on_from_the_older_checkpoint_and_says_so(place: Path, tiny: Path, how: str) -> None:
    told = {"train": {"save_every": 2}}
    assert children.run(work.train, place / "straight", tiny, told)[0] == 0
    out = place / "run"
    assert children.run(work.train, out, tiny, told, 7)[0] == -signal.SIGKILL
    harm(out / "checkpoints" / "step-00000006" / "weights.safetensors", how, random.Random(how))  # noqa: S311
    code, heard = children.run(work.train, out, tiny, told)
    assert code == 0
    said = [message[1] for message in heard if message[0] == "said"]
    assert any("step-00000006/weights.safetensors" in line and "does not verify" in line for line in said)
    assert any("goes on after step 4" in line for line in said)
    work.same(place / "straight", out)
