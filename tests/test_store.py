"""Whole or not at all: every write of the store, and what it says about damage."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from trimtab import disk, store
from trimtab.errors import StoreError


def filled(folder: Path) -> None:
    (folder / "a.txt").write_text("alpha")
    (folder / "inner").mkdir()
    (folder / "inner" / "b.bin").write_bytes(bytes(range(256)))


def test_a_committed_folder_verifies_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    target = store.commit_folder(tmp_path / "step-1", filled)
    assert store.damage(target) == []
    assert [path.name for path in tmp_path.iterdir()] == ["step-1"]
    listed = json.loads((target / store.MANIFEST).read_text())["files"]
    assert listed["inner/b.bin"]["bytes"] == 256


@pytest.mark.parametrize("harm", ["delete", "truncate", "flip", "zero"])
@pytest.mark.parametrize("name", ["a.txt", "inner/b.bin", store.MANIFEST])
def test_every_damage_is_found_and_the_older_folder_is_used(tmp_path: Path, name: str, harm: str) -> None:
    older = store.commit_folder(tmp_path / "step-1", filled)
    newer = store.commit_folder(tmp_path / "step-2", filled)
    path = newer / name
    content = path.read_bytes()
    match harm:
        case "delete":
            path.unlink()
        case "truncate":
            path.write_bytes(content[:-1])
        case "flip":
            path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
        case "zero":
            path.write_bytes(bytes(len(content)))
    assert store.damage(newer)
    found, problems = store.newest_valid(tmp_path, "step-")
    assert found == older
    assert any("step-2" in problem for problem in problems)


def test_a_writer_that_fails_leaves_the_old_folder(tmp_path: Path) -> None:
    target = store.commit_folder(tmp_path / "model", filled)

    def failing(folder: Path) -> None:
        (folder / "a.txt").write_text("new")
        raise OSError(28, "No space left on device")

    with pytest.raises(StoreError, match="No space left") as caught:
        store.commit_folder(target, failing)
    assert "free" in caught.value.remedy
    assert (target / "a.txt").read_text() == "alpha"
    assert store.damage(target) == []
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_kill_between_any_two_writes_leaves_a_valid_folder(tmp_path: Path) -> None:
    """The writer is killed at its n-th sync, for every n it has: the newest valid folder is always whole."""
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from trimtab import store\n"
        "left = int(sys.argv[2])\n"
        "real = os.fsync\n"
        "def fsync(handle):\n"
        "    global left\n"
        "    if left == 0: os._exit(9)\n"
        "    left -= 1\n"
        "    real(handle)\n"
        "os.fsync = fsync\n"
        "store.commit_folder(Path(sys.argv[1]) / 'step-2', lambda f: (f / 'a.txt').write_text('beta'))\n"
    )
    store.commit_folder(tmp_path / "step-1", filled)
    codes = []
    for n in range(6):
        done = subprocess.run([sys.executable, "-c", script, str(tmp_path), str(n)], check=False)
        codes.append(done.returncode)
        found, _ = store.newest_valid(tmp_path, "step-")
        assert found is not None
        assert store.damage(found) == []
    assert codes[0] == 9
    assert codes[-1] == 0


def test_files_get_the_mode_of_the_umask(tmp_path: Path) -> None:
    def secret(folder: Path) -> None:
        (folder / "w").write_text("x")
        (folder / "w").chmod(0o600)

    before = os.umask(0o022)
    try:
        target = store.commit_folder(tmp_path / "m", secret)
    finally:
        os.umask(before)
    assert stat.S_IMODE((target / "w").stat().st_mode) == 0o644


def test_pruning_keeps_two_valid_ones_and_the_pinned(tmp_path: Path) -> None:
    for n in range(5):
        store.commit_folder(tmp_path / f"step-{n}", filled)
    (tmp_path / "step-4" / "a.txt").write_text("damaged")
    store.prune(tmp_path, "step-", keep=2, keep_names=frozenset({"step-0"}))
    assert store.damage(tmp_path / "step-4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-0", "step-2", "step-3", "step-4"]


def flip_a_byte(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])


@pytest.mark.parametrize("keep", [2, 3, 4])
def test_pruning_never_leaves_fewer_than_two_valid_whichever_is_damaged(tmp_path: Path, keep: int) -> None:
    """Every set of older folders with a flipped byte (same size): two valid ones stay, or nothing valid is deleted."""
    for harmed in range(2**4):
        parent = tmp_path / f"{keep}-{harmed}"
        for n in range(5):
            store.commit_folder(parent / f"step-{n}", filled)
        for n in range(4):
            if harmed >> n & 1:
                flip_a_byte(parent / f"step-{n}" / "inner" / "b.bin")
        valid = 5 - harmed.bit_count()
        store.prune(parent, "step-", keep=keep, valid_name="step-4")
        left = [path for path in parent.iterdir() if not store.damage(path)]
        assert len(left) >= min(2, valid)
        assert parent / "step-4" in left


def test_pruning_after_a_commit_reads_one_other_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(7):
        store.commit_folder(tmp_path / f"step-{n}", filled)
    (tmp_path / "step-4" / "a.txt").write_text("longer than it was")
    read: list[Path] = []
    digest = store.file_digest
    monkeypatch.setattr(store, "file_digest", lambda path: read.append(path) or digest(path))
    store.prune(tmp_path, "step-", keep=4, valid_name="step-6")
    assert {path.relative_to(tmp_path).parts[0] for path in read} == {"step-5"}
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"step-{n}" for n in (2, 3, 4, 5, 6)]


def test_a_torn_last_line_is_left_out_and_resuming_keeps_what_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"ste')
    assert [row["step"] for row in store.read_jsonl(path)] == [1, 2, 3]
    with store.JsonLines(path, keep=lambda row: row["step"] <= 2) as lines:
        lines.append({"step": 3, "again": True})
    assert [row.get("again") for row in store.read_jsonl(path)] == [None, None, True]


def test_a_commit_that_fails_takes_the_new_folders_above_it_away_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()

    def failing(folder: Path) -> None:
        (folder / "a.txt").write_text("x")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        store.commit_folder(tmp_path / "old" / "new" / "newer" / "data", failing)
    assert list(tmp_path.rglob("*")) == [tmp_path / "old"]


def test_rows_are_written_and_read_one_by_one(tmp_path: Path) -> None:
    """A lone surrogate, which UTF-8 cannot say, comes back; a torn line does not; nothing is there before the end."""
    path = tmp_path / "rows.jsonl"

    def rows() -> Iterator[dict[str, str]]:
        yield {"text": "\ud83d and é"}
        assert not path.exists()
        yield {"text": "b"}

    store.write_jsonl(path, rows())
    with path.open("a") as file:
        file.write('{"text": "to')
    found = store.iter_jsonl(path)
    assert next(found) == {"text": "\ud83d and é"}
    assert list(found) == [{"text": "b"}]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_one_sentence(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="Permission denied"):
        store.write_json(tmp_path / "inner" / "x.json", {})


def test_a_path_through_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write"):
        store.write_json(tmp_path / "file" / "x.json", {})


def test_what_does_not_fit_is_refused_before_it_starts(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="are needed"):
        disk.require_space(tmp_path / "not-there-yet", 10**18)
    disk.require_space(tmp_path, 1)


def test_a_second_process_is_refused_the_folder(tmp_path: Path) -> None:
    script = f"from pathlib import Path\nfrom trimtab import store\nwith store.lock(Path({str(tmp_path)!r})): pass\n"
    with store.lock(tmp_path):
        held = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    free = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "in use by another" in held.stderr
    assert free.returncode == 0


def test_numbers_that_are_not_numbers_are_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        store.write_json(tmp_path / "x.json", {"loss": float("nan")})


def test_what_a_killed_writer_left_is_cleared_and_what_it_set_aside_comes_back(tmp_path: Path) -> None:
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True
    )
    pid = dead.stdout.strip()
    model = store.commit_folder(tmp_path / "model", filled)
    model.rename(tmp_path / f".old-{pid}-model")
    (tmp_path / f".tmp-{pid}-model").mkdir()
    (tmp_path / f".tmp-{os.getppid()}-busy").mkdir()
    store.commit_folder(tmp_path / "other", filled)
    assert store.damage(tmp_path / "model") == []
    assert sorted(path.name for path in tmp_path.iterdir()) == [f".tmp-{os.getppid()}-busy", "model", "other"]


WRITE_OFTEN = """
import sys, pathlib
from trimtab import store
target, mark, gate = pathlib.Path(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3])
while not gate.exists():
    pass
for number in range(150):
    store.commit_folder(target, lambda folder: (folder / "rows.txt").write_text(mark * 1000))
"""


def test_two_writers_of_one_folder_both_succeed(tmp_path: Path) -> None:
    """Two runs that compute the same rows of a shared cache: 12 of 300 such writes failed between two renames."""
    target, gate = tmp_path / "shard", tmp_path / "go"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITE_OFTEN, str(target), mark, str(gate)], stderr=subprocess.PIPE)
        for mark in "ab"
    ]
    gate.touch()
    for writer in writers:
        _, messages = writer.communicate(timeout=120)
        assert writer.returncode == 0, messages.decode()
    assert store.damage(target) == []
    assert (target / "rows.txt").read_text() in ("a" * 1000, "b" * 1000)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_windows_locks_a_byte_and_never_signals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for `msvcrt`: without `fcntl` a held folder is refused all the same."""
    held: set[str] = set()

    def locking(number: int, mode: int, n_bytes: int) -> None:
        assert (mode, n_bytes) == (2, 1)
        name = str(Path(f"/proc/self/fd/{number}").readlink())
        if name in held:
            raise PermissionError(13, "held")
        held.add(name)

    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", types.SimpleNamespace(LK_NBLCK=2, locking=locking))
    with store.lock(tmp_path), pytest.raises(StoreError, match="in use"), store.lock(tmp_path):
        pass


def test_windows_is_asked_for_a_process_without_a_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    """`os.kill(pid, 0)` would send Ctrl-C there."""

    def exit_code(handle: int, into: object) -> int:
        into._obj.value = {7: 259, 8: 0}[handle]  # type: ignore[attr-defined]  # what a byref points at
        return 1

    kernel = types.SimpleNamespace(
        OpenProcess=lambda _rights, _inherit, pid: {700: 7, 800: 8}.get(pid, 0),
        GetExitCodeProcess=exit_code, CloseHandle=lambda _handle: 1, GetLastError=lambda: 87,
    )  # fmt: skip
    monkeypatch.setattr(disk, "os", types.SimpleNamespace(name="nt"))
    monkeypatch.setattr("ctypes.windll", types.SimpleNamespace(kernel32=kernel), raising=False)
    assert [disk.is_running(pid) for pid in (700, 800, 900)] == [True, False, False]
