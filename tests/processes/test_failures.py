"""What happens to one process happens to all: they end together, say why once, and the next start goes on.

Each is the command line itself under torchrun, on two gloo processes; the fault is in `process_faults.py`.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from process_runs import TESTS, run
from trimtab import store

KILLS = int(os.environ.get("TRIMTAB_KILLS", "2"))
START = 20.0  # seconds until Python has loaded torch, on a busy machine

KEYS = {
    "data.limit": "40",
    "train.max_steps": "6",
    "train.batch_pairs": "6",
    "train.save_every": "2",
    "benchmark.name": "none",
    "judge.name": "none",
    "engine.dtype": "float32",
    "engine.threads": "1",
}


def _train(out: Path, *, fault: str = "", size: int = 2, **more: str) -> tuple[int, str]:
    """Exit code and words; `more`: keys, with two underscores for a dot."""
    keys = KEYS | {name.replace("__", "."): value for name, value in more.items()}
    flags = [word for name, value in keys.items() for word in (f"--{name}", value)]
    program = [str(TESTS / "process_faults.py"), fault] if fault else ["-m", "trimtab"]
    result = run([*program, "train", "--out", str(out), *flags], size=size, home=out.parent / "home")
    return result.returncode, result.stderr


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing happened to."""
    out = tmp_path_factory.mktemp("failures") / "whole"
    code, words = _train(out)
    assert code == 0, words
    return out


def _goes_on(out: Path, whole: Path) -> str:
    """The same command ends with the very weights of the run that nothing happened to; what it said."""
    code, words = _train(out)
    assert code == 0, words
    assert len(store.read_jsonl(out / "metrics.jsonl")) == 6
    a, b = (load_file(path / "model" / "model.safetensors") for path in (out, whole))
    assert all(bool((a[name] == b[name]).all()) for name in a), "bit by bit"
    return words


def test_a_killed_process_ends_all_and_the_next_start_resumes(whole: Path) -> None:
    out = whole.parent / "killed"
    start = time.monotonic()
    code, words = _train(out, fault="1:4:kill")
    assert code != 0
    assert time.monotonic() - start < 60
    assert (
        "Traceback" not in words.partition('Traceback (most recent call last):\n  File "<frozen runpy>"')[0]
    )  # torchrun's
    assert "goes on after step 2" in _goes_on(out, whole)


@pytest.mark.slow
@pytest.mark.parametrize("trial", range(KILLS))
def test_any_process_may_be_killed_at_any_moment(trial: int, whole: Path) -> None:
    """While it loads, computes, waits, writes, or just after: what is left is what the next start goes on with."""
    rng, out = random.Random(trial), whole.parent / f"moment-{trial}"  # noqa: S311  # test data
    rank, seconds, start = rng.randrange(2), rng.uniform(2.0, 14.0), time.monotonic()
    code, words = _train(out, fault=f"{rank}:{seconds:.2f}:later")
    assert time.monotonic() - start < seconds + START + 30, "all others end within 30 s"
    assert code != 0 or (out / "model").is_dir(), words
    _goes_on(out, whole)


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_after_the_same_step(whole: Path) -> None:
    out = whole.parent / "stopped"
    code, words = _train(out, fault="1:4:term")
    assert code != 0
    assert words.count("SIGTERM: stopped after step 3 of 6 with a checkpoint") == 1
    assert "goes on after step 3" in _goes_on(out, whole)


@pytest.mark.slow
def test_numbers_that_are_not_finite_on_one_process_name_their_pairs_once(whole: Path) -> None:
    out = whole.parent / "nan"
    code, words = _train(out, fault="1:4:nan")
    assert code != 0
    assert words.count("step 4: a log-probability is not finite for") == 1, words
    _goes_on(out, whole)


@pytest.mark.slow
def test_no_memory_on_one_process_halves_the_packs_of_all(whole: Path) -> None:
    out = whole.parent / "memory"
    code, words = _train(out, fault="1:4:memory")
    assert code == 0, words
    assert words.count("train: out of memory; the step is repeated with packs of") == 1
    assert len(store.read_jsonl(out / "metrics.jsonl")) == 6


@pytest.mark.slow
def test_an_error_on_one_process_is_told_by_it_alone(whole: Path) -> None:
    out = whole.parent / "raised"
    code, words = _train(out, fault="1:4:raise")
    assert code != 0
    assert words.count("a fault of this test's") == 1, words
    _goes_on(out, whole)


@pytest.mark.slow
def test_a_process_that_does_not_come_is_named_with_its_step(whole: Path) -> None:
    out = whole.parent / "late"
    code, words = _train(out, fault="1:4:sleep", engine__timeout="8")
    assert code != 0
    assert words.count("step 4: process 1 (last heard of at step 3) has not come within 8 s") == 1, words
    _goes_on(out, whole)


@pytest.mark.slow
@pytest.mark.parametrize("shard", ["optimizer", "gradients"])
def test_checkpoints_do_not_depend_on_the_number_of_processes(shard: str, whole: Path) -> None:
    """2 → 1 → 2 processes: the moments come along (a fresh AdamW would step 2 % of the weights elsewhere)."""
    out = whole.parent / f"sizes-{shard}"
    assert _train(out, fault="1:3:term", engine__shard=shard)[0] != 0
    assert _train(out, fault="0:3:term", engine__shard=shard, size=1)[0] == 143
    code, words = _train(out, engine__shard=shard)
    assert code == 0, words
    assert "goes on after step 4" in words
    a, b = (load_file(path / "model" / "model.safetensors") for path in (out, whole))
    assert all(float((a[name] - b[name]).norm() / b[name].norm()) <= 1e-5 for name in a)


@pytest.mark.slow
def test_more_processes_than_pairs_in_a_batch_are_refused_once(whole: Path) -> None:
    out = whole.parent / "crowd"
    code, words = _train(out, size=3, train__batch_pairs="2")
    assert code != 0
    assert words.count("a batch of 2 pairs cannot be dealt to 3 processes") == 1, words


@pytest.mark.slow
def test_wrong_words_are_answered_once(whole: Path) -> None:
    code, words = _train(whole.parent / "wrong", train__batch_pears="2")
    assert code != 0
    assert words.count("batch_pairs") == 1, words


@pytest.mark.slow
def test_other_data_on_one_process_is_named(whole: Path) -> None:
    """The folder is another one for the second process: as on hosts that share no disk."""
    out = whole.parent / "apart"
    shutil.copytree(whole, out)
    code, words = _train(out, fault="1:0:elsewhere")
    assert code != 0
    assert words.count("differs from the first") == 1, words


@pytest.mark.slow
def test_the_command_line_starts_its_own_processes(whole: Path) -> None:
    out = whole.parent / "own"
    code, words = _train(out, size=1, engine__processes="2")
    assert code == 0, words
    assert "2 processes: torchrun --nproc-per-node=2 --standalone -m trimtab" in words
    assert "train: 2 processes, engine.shard none" in words
    assert len(store.read_jsonl(out / "metrics.jsonl")) == 6


@pytest.mark.slow
def test_a_dry_start_names_every_process_and_its_link(whole: Path) -> None:
    result = run(["-m", "trimtab", "doctor", "--json"], size=2, home=whole.parent / "home")
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert [process["rank"] for process in answer["processes"]] == [0, 1]
    assert answer["bytes_a_second"] > 1e6
