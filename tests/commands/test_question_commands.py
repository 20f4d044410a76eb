"""`trimtab audit` and `trimtab winrate`, and the mistakes that are found before a run folder exists."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trial_runs import TINY, call


def pair(n: int, **over: Any) -> dict[str, Any]:
    return {"prompt": f"What is {n} plus {n}?", "chosen": f"It is {2 * n}.", "rejected": "Good day."} | over


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return write(tmp_path / "päare mit Leerzeichen.jsonl", [pair(n) for n in range(40)])


def run_words(source: Path, out: Path, *more: str) -> list[str]:
    return [
        *("run", "--model", "windtunnel", "--data", str(source), "--out", str(out), "--quiet"),
        *("--train.max-steps", "1", "--train.batch-pairs", "8", *more),
    ]


def test_paths_may_hold_spaces_and_any_letters(pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "läufe 目录" / "a b"
    code, _, said = call(run_words(pairs, out), capsys)
    assert code == 0, said
    assert (out / "report.html").is_file()


@pytest.mark.parametrize(
    ("n", "more"),
    [
        (1, ["--data.holdout", "0"]),
        (3, ["--train.batch-pairs=64"]),
        (30, ["--data.holdout", "0.7"]),
        (30, ["--data.limit", "1", "--data.holdout", "0"]),
        (30, ["--engine.pack-tokens", "16"]),
        (30, ["--data.max-response-tokens", "1", "--data.max-rejected", "1"]),
    ],
)
def test_extremes_that_can_be_run_are_run(
    n: int, more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "few.jsonl", [pair(k) for k in range(n)])
    words = run_words(source, tmp_path / "run")
    if more[0].startswith("--train.batch"):
        words = words[: words.index("--train.batch-pairs")]
    code, _, said = call([*words, *more], capsys)
    assert code == 0, said
    assert (tmp_path / "run/metrics.jsonl").read_text().count("\n") == 1


REFUSED = {
    "no such benchmark": (
        ["--benchmark", "alpaca"],
        "benchmark 'alpaca'",
        "windtunnel, alpaca_eval, alpaca_eval_1, mt_bench, or a JSON",
    ),
    "the oracle elsewhere": (["--judge", "oracle"], "embedded world: add --benchmark windtunnel", "trimtab keys"),
    "all held out": (["--data.holdout", "0.999"], "all 40 are held out", "lower data.holdout"),
    "a split of a file": (["--data.split", "validation"], "has no split 'validation'", "leave data.split out"),
    "no batch": (["--data.limit", "0"], "data.limit", "trimtab keys"),
    "no accelerator": (["--engine.device", "cuda"], "'cuda' is not available", "auto"),
}


@pytest.mark.parametrize("mistake", REFUSED)
def test_what_cannot_be_run_is_refused_and_leaves_nothing(
    mistake: str, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    more, said, remedy = REFUSED[mistake]
    if "cuda" in more and torch.cuda.is_available():
        pytest.skip("there is an accelerator here")
    code, _, complaint = call(run_words(pairs, tmp_path / "run", *more), capsys)
    assert code == 2
    message, _, then = complaint.partition("→")
    assert said in message
    assert remedy in then
    assert not (tmp_path / "run").exists()


def test_empty_and_much_too_long_data_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.jsonl").touch()
    code, _, said = call(run_words(tmp_path / "empty.jsonl", tmp_path / "run"), capsys)
    assert (code, "the file is empty" in said) == (2, True)
    long = write(tmp_path / "long.jsonl", [pair(n, prompt="why? " * 3000 + str(n)) for n in range(10)])
    code, _, said = call(run_words(long, tmp_path / "run"), capsys)
    assert code == 2
    assert "10 prompt_too_long" in said
    assert not (tmp_path / "run").exists()


def test_a_cache_that_cannot_be_written_is_found_before_the_folder_is_made(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("TRIMTAB_HOME", str(tmp_path / "file" / "home"))
    for words in (run_words(pairs, tmp_path / "run"), ["run", *TINY, "--out", str(tmp_path / "run")]):
        code, _, said = call(words, capsys)
        assert code == 1
        assert "cannot write" in said
        assert "$TRIMTAB_HOME" in said or "--out" in said
        assert not (tmp_path / "run").exists()


def test_audit_names_every_bad_row_and_takes_no_foreign_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [pair(n, **({"rejected": ""} if n % 5 == 2 else {})) for n in range(20)]
    source = write(tmp_path / "rows.jsonl", rows)
    told = json.loads(call(["audit", source, "--json"], capsys)[1])
    assert [row["id"].rpartition(":")[2] for row in told["rejected"]] == ["3", "8", "13", "18"]
    assert {row["reason"] for row in told["rejected"]} == {"empty_response"}
    refused = call(["run", *run_words(source, tmp_path / "run")[1:]], capsys)[2]
    assert "`trimtab audit DATA --model M --json` names them" in refused
    assert "--data.max-rejected 0.2" in refused
    code, _, said = call(["audit", source, "--beta", "0.3"], capsys)
    assert code == 2
    assert "no use for objective" in said


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (["--data.seed", "3"], "data.seed has no effect here: no rows are drawn"),
        (["--data.eval", "held.jsonl", "--data.holdout", "0.2"], "data.holdout has no effect here: data.eval is held"),
    ],
)
def test_an_audit_takes_the_keys_that_a_run_takes(
    more: list[str], reason: str, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a model such a key was accepted; with one its refusal was called a defect of trimtab."""
    write(tmp_path / "held.jsonl", [pair(n) for n in range(50, 60)])
    more = [str(tmp_path / word) if word == "held.jsonl" else word for word in more]
    for words in (["audit", pairs, *more], ["audit", pairs, "--model", "windtunnel", *more]):
        code, _, said = call(words, capsys)
        assert (code, reason in said, "defect" in said) == (2, True, False), said
    code, _, said = call(run_words(pairs, tmp_path / "run", *more), capsys)
    assert (code, reason in said) == (2, True)


def test_winrate_says_what_it_cannot_estimate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"instruction": "Hi", "output_1": "a", "output_2": "bc", "generator_1": "old", "generator_2": "new"}
    for preference, said in ((2.0, "100.00 %"), (None, "raw win rate       not estimated")):
        path = tmp_path / "annotations.json"
        path.write_text(json.dumps([row | {"preference": preference}]))
        code, printed, complaint = call(["winrate", path, "--allow-missing"], capsys)
        assert code == 0, complaint
        assert said in printed
        assert "length-controlled  not estimated" in printed
        assert "note: " in printed
        assert json.loads(call(["winrate", path, "--json", "--allow-missing"], capsys)[1])["lc_c"] is None


@pytest.mark.needs_shared
def test_winrate_of_published_judgments(shared_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = next(iter(sorted((shared_data / "eval/alpaca_eval/annotations").glob("*.json"))))
    code, printed, said = call(["winrate", path], capsys)
    assert code == 0, said
    assert "805 judged, 0 missing" in printed
    assert "% (95 % CI" in printed.splitlines()[2]


def test_an_audit_of_the_wind_tunnel_says_where_its_pairs_come_from(capsys: pytest.CaptureFixture[str]) -> None:
    """Its name is a data source like any other in a configuration; it was looked for on the Hub."""
    code, _, said = call(["audit", "windtunnel"], capsys)
    assert code != 0
    assert "sampled when a run begins" in said
    assert "Hub" not in said
