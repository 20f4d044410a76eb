"""`trimtab winrate`: both kinds of judgments, the tables of length control, missing verdicts, constant answers."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest

import trimtab
from trial_runs import call
from trimtab.analysis.intervals import wilson_interval
from trimtab.errors import ConfigError, DataError, RunError

ALPACA_EVAL = ("helpful_base", "koala", "oasst", "selfinstruct", "vicuna")


def annotations(n: int, *, missing: int = 0, dataset: bool = True, constant: bool = False) -> list[dict[str, Any]]:
    rng = random.Random(0)  # noqa: S311  made-up verdicts
    return [
        {
            "instruction": f"do {i}",
            "output_1": "x" * rng.randint(20, 90),
            "output_2": "always this" if constant else "y" * rng.randint(20, 120),
            "generator_1": "gpt4_1106_preview",
            "generator_2": "new",
            "annotator": "judge",
            "preference": None if i < missing else 1.0 + (rng.random() < 0.4),
        }
        | ({"dataset": ALPACA_EVAL[i % 5]} if dataset else {})
        for i in range(n)
    ]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps(rows))
    return path


def marks(models: dict[str, float], *, n: int = 80, unread: int = 0) -> list[dict[str, Any]]:
    return [
        {
            "question_id": 81 + i,
            "model": model,
            "judge": ["gpt-4", "single-v1"],
            "score": -1 if turn == 2 and i < unread else min(10, mark + i % 3),
            "turn": turn,
        }
        for model, mark in models.items()
        for i in range(n)
        for turn in (1, 2)
    ]


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


# --- missing verdicts ------------------------------------------------------------------------------------------------


def test_thirty_missing_of_805_give_no_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "a.json", annotations(805, missing=30))
    code, printed, said = call(["winrate", path], capsys)
    assert (code, printed) == (1, "")
    assert "30 of 805 verdicts are missing (3.7 %, more than 1 %)" in said
    assert "--allow-missing" in said.partition("→")[2]


def test_missing_ones_are_left_out_when_that_is_allowed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = annotations(805, missing=30)
    told = json.loads(call(["winrate", write(tmp_path / "a.json", rows), "--allow-missing", "--json"], capsys)[1])
    left = [row["preference"] - 1 for row in rows if row["preference"] is not None]
    assert (told["n_total"], told["n_missing"], told["n_absent"]) == (775, 30, 0)
    assert told["win_rate"] == pytest.approx(100 * sum(left) / 775)  # not as if they were losses


def test_rows_that_are_not_there_are_missing_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All five data sets of AlpacaEval but 775 of its 805 instructions; a benchmark of one's own has no such number."""
    path = write(tmp_path / "a.json", annotations(775))
    assert "30 of 805" in call(["winrate", path], capsys)[2]
    told = json.loads(call(["winrate", path, "--allow-missing", "--json"], capsys)[1])
    assert (told["n_total"], told["n_missing"], told["n_absent"]) == (775, 30, 30)
    own = write(tmp_path / "own.json", annotations(775, dataset=False))
    assert json.loads(call(["winrate", own, "--json"], capsys)[1])["n_missing"] == 0


def test_three_missing_are_few(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, printed, said = call(["winrate", write(tmp_path / "a.json", annotations(805, missing=3))], capsys)
    assert code == 0, said
    assert "802 judged, 3 missing" in printed


# --- what the file is ------------------------------------------------------------------------------------------------


def test_a_file_of_the_other_kind_names_the_flag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fastchat = lines(tmp_path / "m.jsonl", marks({"new": 5}))
    alpaca = write(tmp_path / "a.json", annotations(20))
    for words, remedy in (
        ((fastchat,), "--kind mt_bench"),
        ((alpaca, "--kind", "mt_bench"), "--kind alpaca_eval"),
        ((alpaca, "--kind", "arena"), "--kind alpaca_eval or mt_bench"),
        ((alpaca, "--questions", "q.jsonl"), "leave --questions out"),
        ((fastchat, "--kind", "mt_bench", "--gamed", "g.csv"), "leave --gamed out"),
    ):
        code, _, said = call(["winrate", *words], capsys)
        assert code == 2
        assert remedy in said.partition("→")[2]


def test_gzip_and_lines_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = annotations(40)
    whole = json.loads(call(["winrate", write(tmp_path / "a.json", rows), "--json", "--allow-missing"], capsys)[1])
    packed = tmp_path / "a.jsonl.gz"
    packed.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    told = json.loads(call(["winrate", packed, "--json", "--allow-missing"], capsys)[1])
    assert told | {"file": ""} == whole | {"file": ""}


def test_without_tables_the_minimal_variant_is_named_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, printed, said = call(["winrate", write(tmp_path / "a.json", annotations(805)), "--offline"], capsys)
    assert code == 0, said
    assert "length_controlled_minimal" in printed
    assert "instruction_difficulty.csv) is not cached" in printed
    assert "LC near that C" in printed
    assert "by length, characters more than the baseline:" in printed
    assert "helpful_base" in printed


def test_one_answer_to_everything_is_shouted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "a.json", annotations(60, dataset=False, constant=True))
    printed = call(["winrate", path], capsys)[1]
    assert printed.startswith("WARNING: the model (new) gave one and the same answer to 60 of 60")
    assert trimtab.winrate(path)["warnings"]


# --- marks -----------------------------------------------------------------------------------------------------------


def test_marks_of_two_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = lines(tmp_path / "m.jsonl", marks({"old": 4, "new": 6}))
    code, printed, said = call(["winrate", path, "--kind", "mt_bench"], capsys)
    assert code == 0, said
    assert "old: 4.99 (95 % CI" in printed  # 27 · 4 + 27 · 5 + 26 · 6 over 80
    told = json.loads(call(["winrate", path, "--kind", "mt_bench", "--json"], capsys)[1])
    old, new = told["models"]
    assert (old["model"], new["model"]) == ("old", "new")
    assert new["mean"] == pytest.approx(old["mean"] + 2)
    assert new["ci95"][0] < new["mean"] < new["ci95"][1]
    assert list(new["by_category"]) == list(new["categories"])
    assert new["categories"]["math"]["all"]["n_questions"] == 10
    assert new["categories"]["math"]["2"]["n_marks"] == 10
    assert trimtab.winrate(path, kind="mt_bench") == told


def test_marks_that_cannot_be_read_are_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = lines(tmp_path / "m.jsonl", marks({"new": 6}, unread=8))
    code, _, said = call(["winrate", path, "--kind", "mt_bench"], capsys)
    assert code == 1
    assert "new: 8 of 160 verdicts are missing" in said
    told = trimtab.winrate(path, kind="mt_bench", allow_missing=True)["models"][0]
    assert (told["n_total"], told["n_missing"]) == (152, 8)
    assert told["mean"] > 6


def test_a_turn_that_only_one_model_was_marked_on_is_missing(tmp_path: Path) -> None:
    rows = marks({"old": 4}) + marks({"new": 6})[:-10]
    path = lines(tmp_path / "m.jsonl", rows)
    with pytest.raises(RunError, match="new: 10 of 160 verdicts are missing"):
        trimtab.winrate(path, kind="mt_bench")


def test_questions_of_ones_own_need_their_categories(tmp_path: Path) -> None:
    rows = [row | {"question_id": row["question_id"] + 1000} for row in marks({"new": 6}, n=4)]
    path = lines(tmp_path / "m.jsonl", rows)
    told = trimtab.winrate(path, kind="mt_bench")
    assert told["models"][0]["categories"] == {}
    assert "--questions" in told["notes"][0]
    questions = lines(tmp_path / "q.jsonl", [{"question_id": 1081 + i, "category": "ab"[i % 2]} for i in range(4)])
    told = trimtab.winrate(path, kind="mt_bench", questions=questions)
    assert list(told["models"][0]["categories"]) == ["a", "b"]


def test_python_raises_what_the_command_says(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="30 of 805"):
        trimtab.winrate(write(tmp_path / "a.json", annotations(805, missing=30)))
    with pytest.raises(ConfigError, match="no judgments of kind 'x'"):
        trimtab.winrate(tmp_path / "a.json", kind="x")


# --- the shared cases ------------------------------------------------------------------------------------------------

T1 = Path(__file__).resolve().parents[4] / "shared" / "cases" / "eval" / "T1_unanimous"


@pytest.mark.skipif(not T1.is_dir(), reason="needs ../shared/cases")
@pytest.mark.parametrize(
    ("file", "n", "mean"),
    [
        ("all_win_12", 12, 1.0),
        ("all_win_40", 40, 1.0),
        ("all_1_9", 40, 0.9),
        ("all_tie", 40, 0.5),
        ("all_lose_20", 20, 0.0),
    ],
)
def test_unanimous_verdicts_have_wilsons_interval(file: str, n: int, mean: float) -> None:
    """cases/README.md: Wilson's interval at the mean, raw and length-controlled."""
    told = trimtab.winrate(T1 / f"{file}.json")
    expected = pytest.approx([100 * end for end in wilson_interval(mean * n, n=n)], abs=0.01)
    assert told["n_total"] == n
    assert told["ci95"] == expected
    assert told["lc_ci95"] == expected


# --- published files -------------------------------------------------------------------------------------------------


@pytest.mark.needs_shared
def test_official_tables_are_found_by_themselves(shared_data: Path) -> None:
    """AlpacaEval's rows are known by their data sets; what is in the folder is not official here, and said to be so."""
    path = shared_data / "eval/alpaca_eval/annotations/alpaca-7b.json"
    told = trimtab.winrate(path, benchmark_dir=shared_data / "eval")
    assert told["lc_variant"] == "length_controlled_v1"
    assert told["length_controlled_winrate"] == pytest.approx(5.8755, abs=0.2)
    assert sum("is not the official file" in note for note in told["lc_notes"]) == 2


@pytest.mark.needs_shared
def test_rows_of_which_some_are_missing_find_their_difficulty_by_text(shared_data: Path, tmp_path: Path) -> None:
    rows = json.loads((shared_data / "eval/alpaca_eval/annotations/alpaca-7b.json").read_text())
    path = write(tmp_path / "a.json", rows[5:])
    told = trimtab.winrate(path, benchmark_dir=shared_data / "eval")
    assert (told["n_total"], told["n_missing"], told["n_absent"]) == (800, 5, 5)
    assert not any("by row position" in note for note in told["lc_notes"])
    assert told["length_controlled_winrate"] == pytest.approx(5.8755, abs=0.4)


@pytest.mark.needs_shared
def test_rows_in_another_order_find_their_difficulty_by_text(shared_data: Path, tmp_path: Path) -> None:
    """All 805, turned round: joined by position they gave 9.48 for the leaderboard's 5.88."""
    rows = json.loads((shared_data / "eval/alpaca_eval/annotations/alpaca-7b.json").read_text())
    path = write(tmp_path / "a.json", rows[::-1])
    official = shared_data / "eval/alpaca_eval"
    tables = {
        "difficulty": official / "instruction_difficulty_recovered.csv",
        "gamed": official / "df_gamed_reconstructed.csv",
    }
    for words in ({"benchmark_dir": shared_data / "eval"}, {"benchmark_dir": shared_data / "eval"} | tables):
        told = trimtab.winrate(path, **words)
        assert told["length_controlled_winrate"] == pytest.approx(5.8755, abs=0.2)
    with pytest.raises(DataError, match="are not AlpacaEval's 805 in its order") as raised:
        trimtab.winrate(path, difficulty=tables["difficulty"], offline=True)
    assert "--benchmark-dir" in raised.value.remedy


@pytest.mark.needs_shared
def test_a_table_that_was_given_is_not_said_to_be_missing(shared_data: Path) -> None:
    """In the official order, offline: the rows are known by their digest, and only the other table is missed."""
    official = shared_data / "eval/alpaca_eval"
    told = trimtab.winrate(
        official / "annotations/alpaca-7b.json",
        difficulty=official / "instruction_difficulty_recovered.csv",
        offline=True,
    )
    assert told["lc_variant"] == "length_controlled_noreg"
    assert not any("instruction_difficulty" in note for note in told["lc_notes"])
    assert any("df_gamed" in note for note in told["lc_notes"])


@pytest.mark.needs_shared
def test_the_constant_answer_of_the_leaderboard(shared_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = call(["winrate", shared_data / "eval/alpaca_eval/annotations/NullModel.json"], capsys)[1]
    first, second = printed.splitlines()[:2]
    assert first.startswith("WARNING")
    assert "say nothing about quality" in first
    assert "example against gpt4_1106_preview" in second
    assert "76.92 %" in printed
