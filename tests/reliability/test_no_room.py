"""A full disk, a limit on file sizes, no permission, no memory: one sentence, and what was there before is there."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import children
import pytest
import reliable_work as work

from trimtab import store
from trimtab.disk import free
from trimtab.errors import StoreError
from trimtab.judging.verdict_cache import VerdictCache

TOLD: dict[str, Any] = {"train": {"save_every": 2}}
NOBODY = 65534
NEEDED_AND_FREE = r"\(about [\d.]+ (bytes|kB|MB) needed, [\d.]+ (bytes|kB|MB|GB) free\)"


@pytest.fixture
def small_disk(place: Path) -> Iterator[Path]:
    """A file system of 800 kB; skips where none may be mounted."""
    folder = place / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=800k,mode=777", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    if done.returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def refused(told: list[Any]) -> str:
    ((_, words),) = [message for message in told if message[0] == "refused"]
    return str(words)


def test_a_checkpoint_on_a_full_disk(small_disk: Path) -> None:
    work.save_checkpoint(small_disk, 1)
    (small_disk / "other").write_bytes(bytes(free(small_disk) - 20_000))
    with pytest.raises(StoreError, match="No space left on device") as caught:
        work.save_checkpoint(small_disk, 2)
    assert str(small_disk) in caught.value.message
    assert re.search(NEEDED_AND_FREE, caught.value.message)
    assert "free space" in caught.value.remedy
    assert work.newest_checkpoint(small_disk) == (1, [])
    assert sorted(path.name for path in small_disk.iterdir()) == ["other", "step-00000001"]
    (small_disk / "other").unlink()
    work.save_checkpoint(small_disk, 2)
    assert work.newest_checkpoint(small_disk) == (2, [])


def test_the_cache_and_the_verdicts_on_a_full_disk(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_HOME", str(small_disk))
    work.fill_cache([1])
    path = small_disk / "verdicts.sqlite"
    put: list[int] = []
    with pytest.raises(StoreError, match=r"verdicts\.sqlite: .*full.*free\)"):
        put_until_it_is_full(path, put)
    assert len(put) > 10
    with pytest.raises(StoreError, match="No space left"):
        work.fill_cache(range(100, 200))
    assert work.cached(5)[0] == 1
    for left in small_disk.glob("reference/*/.tmp*"):
        pytest.fail(f"{left} was left")
    # on the full disk itself not even a reader may open it: look at a copy
    for file in (path, path.with_name(f"{path.name}-wal")):
        if file.exists():
            (small_disk.parent / file.name).write_bytes(file.read_bytes())
    assert work.verdicts(small_disk.parent / path.name, 10_000) == set(put)


def put_until_it_is_full(path: Path, put: list[int]) -> None:
    with store.database(path) as connection:
        kept = VerdictCache(connection)
        for number in range(10_000):
            work.put_verdict(kept, number)
            put.append(number)


@pytest.mark.parametrize(
    "limit", [20_000, pytest.param(1_500, marks=pytest.mark.slow), pytest.param(100_000, marks=pytest.mark.slow)]
)
def test_a_limit_on_the_size_of_files(place: Path, tiny: Path, limit: int) -> None:
    """Reached by the log of visits, by the state of a checkpoint or by its tensors, in the middle of a run."""
    out = place / "run"
    assert children.run(work.train, out, tiny, TOLD, 5)[0] == -signal.SIGKILL
    before, problems = store.newest_valid(out / "checkpoints", "step-")
    assert before is not None
    assert problems == []
    code, told = children.run(work.train, out, tiny, TOLD, None, {resource.RLIMIT_FSIZE: limit})
    assert code == 1
    assert re.search(rf"cannot write {re.escape(str(out))}\S+: File too large", refused(told))
    assert " free)" in refused(told)
    assert store.newest_valid(out / "checkpoints", "step-") == (before, [])
    code, _ = children.run(work.train, out, tiny, TOLD)
    assert code == 0
    assert children.run(work.train, place / "straight", tiny, TOLD)[0] == 0
    work.same(place / "straight", out)


def test_what_will_not_fit_is_refused_before_the_first_step(small_disk: Path, tiny: Path) -> None:
    out = small_disk / "run"
    code, told = children.run(work.train, out, tiny, TOLD)
    assert code == 1
    assert re.search(r"checkpoints: [\d.]+ MB are needed and [\d.]+ kB are free", refused(told))
    assert not any(message[0] == "step" for message in told)
    assert not (out / "checkpoints").exists()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL") or sys.platform == "win32", reason="users of a Unix")
def test_a_folder_that_may_not_be_written(place: Path) -> None:
    """Root may write anywhere: where the tests run as root, a child gives that up first."""
    place.chmod(0o755)
    told_by = [work.as_user, NOBODY] if os.geteuid() == 0 else []
    locked = place / "locked"
    locked.mkdir(mode=0o555)
    for task, path in ((work.write_note, locked / "a.json"), (work.open_verdicts, locked / "inner" / "v.sqlite")):
        code, told = children.run(*told_by, task, path) if told_by else children.run(task, path)
        assert code == 1
        assert "Permission denied" in refused(told)
        assert str(locked) in refused(told)
        assert "make the folder writable" in refused(told)
    assert list(locked.iterdir()) == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS limits what Linux hands out")
def test_out_of_memory_halves_the_packs_and_ends_where_small_packs_do(place: Path) -> None:
    """A real limit on a run of the train stage: the weights are those of a run that had small packs from its start."""
    from stage_runs import write_model

    model = write_model(
        place / "model", hidden_size=128, intermediate_size=2048, num_hidden_layers=6, max_position_embeddings=2048
    )
    code, told = children.run(work.train_under_a_limit, place / "tight", model, 8000)
    assert code == 0, told[-1:]
    budgets = [message[1] for message in told if message[0] == "said" and "out of memory" in message[1]]
    assert budgets
    assert all("the step is repeated with packs of" in line for line in budgets)
    last = int(budgets[-1].rpartition("packs of ")[2].split()[0].replace(",", ""))
    assert 300 <= last < 8000
    code, _ = children.run(work.train_under_a_limit, place / "small", model, last)
    assert code == 0
    weights = [(place / name / "model" / "model.safetensors").read_bytes() for name in ("tight", "small")]
    assert weights[0] == weights[1]
    metrics = [store.read_jsonl(place / name / "metrics.jsonl") for name in ("tight", "small")]
    for one, two in zip(*metrics, strict=True):
        assert one["grad_norm"] == pytest.approx(two["grad_norm"], rel=1e-6)
