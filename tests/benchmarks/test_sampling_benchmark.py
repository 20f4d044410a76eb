"""The sampling benchmark: what it counts, and a small run of it from end to end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import sampling


def test_everyone_is_asked_for_the_same_tokens() -> None:
    job = sampling.random_weights("tiny", 6, longest=12)
    assert len(set(map(len, job.prompts))) > 1
    assert len(set(job.limits)) > 1
    counts = {name: run(job, 0) for name, run in sampling.CONTENDERS.items()}
    assert set(counts.values()) == {sum(job.limits)}


def test_what_a_padded_batch_adds_behind_an_answer_does_not_count() -> None:
    assert sampling._said([5, 6, 2, 0, 0], (2,), 5) == 3
    assert sampling._said([5, 6, 7, 8, 9], (2,), 4) == 4


def test_ratios_are_taken_within_a_repeat() -> None:
    """10 and 20 tokens a second one by one, 40 and 60 by us: 4 times and 3 times, median 3.5; not 50 / 15."""
    alone = [{"tokens": 10, "seconds": 1.0}, {"tokens": 20, "seconds": 1.0}]
    ours = [{"tokens": 40, "seconds": 1.0}, {"tokens": 60, "seconds": 1.0}]
    about = {"date": "", "commit": "", "minutes": 0, "machine": "", "command": "", "versions": {}}
    job = {"name": "a", "words": "b", "n_prompts": 2, "runs": {sampling.ALONE: alone, sampling.OURS: ours}}
    page = sampling.text({"about": about, "repeats": 2, "jobs": [job]})
    assert "| 50 (40 to 60) | 3.50 (3.00 to 4.00) |" in page


def test_one_command_writes_the_numbers_and_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--prompts", "3", "--repeats", "1", "--threads", "1", "--shape", "tiny", "--longest", "6"]
    sampling.main([*words, "--out", str(tmp_path)])
    results = json.loads((tmp_path / "sampling.json").read_text(encoding="utf-8"))
    assert [job["name"] for job in results["jobs"]] == ["wind tunnel", "tiny"]
    assert all(len(job["runs"]) == 4 for job in results["jobs"])
    page = (tmp_path / "SAMPLING.md").read_text(encoding="utf-8")
    assert all(name in page for name in sampling.CONTENDERS)
    assert "tokens/s" in capsys.readouterr().out
