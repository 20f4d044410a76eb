"""The sampling benchmark: what it counts, and a small run of it from end to end."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
import real_model

import sampling
import trimtab
from trimtab import windtunnel


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
    runs = {sampling.ALONE: alone, sampling.OURS: ours}
    page = sampling.text([{"name": "a", "words": "b", "n_prompts": 2, "runs": runs, "about": about}])
    assert "| 50 (40 to 60) | 3.50 (3.00 to 4.00) |" in page


def test_one_command_writes_the_numbers_and_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--prompts", "3", "--repeats", "1", "--threads", "1", "--shape", "tiny", "--longest", "6"]
    sampling.main([*words, "--out", str(tmp_path)])
    jobs = json.loads((tmp_path / "sampling.json").read_text(encoding="utf-8"))
    assert [job["name"] for job in jobs] == ["wind tunnel", "tiny"]
    assert all(len(job["runs"]) == 4 for job in jobs)
    page = (tmp_path / "SAMPLING.md").read_text(encoding="utf-8")
    assert all(name in page for name in sampling.CONTENDERS)
    assert "tokens/s" in capsys.readouterr().out


@pytest.mark.slow
def test_a_real_model_is_measured_in_processes_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded model stands for a real one; it takes turns with itself from the same source."""
    row = {"prompt": "What is 2 + 3?", "chosen": "5", "rejected": "6"}
    texts = tmp_path / "pairs.jsonl"
    texts.write_text("".join(json.dumps(row | {"prompt": f"{n} + 3?"}) + "\n" for n in (1, 1, 2)), encoding="utf-8")
    monkeypatch.setattr(real_model, "LIMIT", 9)
    told = argparse.Namespace(
        model=str(windtunnel.model_folder()),
        texts=str(texts),
        prompts=2,
        earlier=Path(trimtab.__file__).parents[1],
        llama_python=None,
        threads=1,
        repeats=1,
    )
    job = real_model.measure(told, temperature=0.7, log=tmp_path / "log")
    assert job["n_prompts"] == 2, "equal prompts are asked once"
    assert list(job["runs"]) == [real_model.EARLIER, real_model.OURS]
    assert [run["tokens"] for runs in job["runs"].values() for run in runs] == [18, 18]
