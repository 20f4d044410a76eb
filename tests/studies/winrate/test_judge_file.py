"""`trimtab judge FILE`: answers in the official forms that somebody else's tool wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import trimtab
from scripted_server import Action, ScriptedServer, Seen, ok, preferring
from trial_runs import call, rows_of

COMPARE = "<|im_start|>user\n{instruction} <m>{output_1}</m> <M>{output_2}</M>\n<|im_end|>"
MARK = {
    "single-v1": "{question} {answer}",
    "single-math-v1": "{question} {ref_answer_1} {answer}",
    "single-v1-multi-turn": "{question_1} {answer_1} {question_2} {answer_2}",
    "single-math-v1-multi-turn": "{question_1} {ref_answer_1} {answer_1} {question_2} {ref_answer_2} {answer_2}",
}
N = 12


@pytest.fixture(autouse=True)
def texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRIMTAB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "texts"
    folder.mkdir()
    baseline = [{"dataset": "d", "instruction": f"do {i}", "output": "b" * 9, "generator": "base"} for i in range(N)]
    (folder / "alpaca_eval_gpt4_baseline.json").write_text(json.dumps(baseline))
    (folder / "alpaca_eval_clf.txt").write_text(COMPARE)
    rows = [{"name": k, "system_prompt": "", "prompt_template": v} for k, v in MARK.items()]
    (folder / "judge_prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def outputs(path: Path, *, n: int = N) -> Path:
    rows = [{"dataset": "d", "instruction": f"do {i}", "output": "x" * i, "generator": "mine"} for i in range(n)]
    path.write_text(json.dumps(rows))
    return path


def longer(seen: Seen) -> Action:
    first, second = (seen.text.split(f"<{tag}>")[1].split(f"</{tag}>")[0] for tag in "mM")
    return preferring(0.9 if len(first) > len(second) else 0.1)


def words(file: Path, url: str, *more: str) -> list[str]:
    told = ["judge", str(file), "--benchmark", "alpaca_eval", "--benchmark-dir", "texts", "--base-url", url]
    return [*told, "--judge", "openai:j", "--judge.canaries", "0", "--quiet", *more]


def test_an_alpaca_eval_file_is_judged_once_and_summarised(
    tmp_path: Path, scripted_server: Callable[[Any], ScriptedServer], capsys: pytest.CaptureFixture[str]
) -> None:
    server = scripted_server(longer)
    told = words(outputs(tmp_path / "model_outputs.json"), server.url, "--json")
    code, out, err = call(told, capsys)
    assert code == 0, err
    numbers = json.loads(out)
    assert (numbers["model"], numbers["baseline"], numbers["n_total"]) == ("mine", "base", N)
    assert numbers["win_rate"] == pytest.approx(100 * (2 * 0.9 + 10 * 0.1) / 12)  # longer than nine: 10 and 11
    assert Path(numbers["file"]) == Path("runs/model_outputs-judged/verdicts/alpaca_eval.json")
    assert call(told, capsys)[0] == 0
    assert len(server.requests) == N


def test_rows_in_memory_are_judged_as_their_file_is(
    tmp_path: Path, scripted_server: Callable[[Any], ScriptedServer]
) -> None:
    server = scripted_server(longer)
    answers = json.loads(outputs(tmp_path / "model_outputs.json").read_text())
    keys: dict[str, Any] = {
        "benchmark": {"name": "alpaca_eval", "dir": "texts"},
        "judge": {"name": "openai:j", "canaries": 0},
        "base_url": server.url,
    }
    numbers = trimtab.judge(iter(answers), **keys)
    assert (numbers["model"], numbers["n_total"]) == ("mine", N)
    assert numbers["win_rate"] == pytest.approx(100 * (2 * 0.9 + 10 * 0.1) / 12)
    file = trimtab.judge(tmp_path / "model_outputs.json", **keys)
    assert file | {name: numbers[name] for name in ("file", "out")} == numbers  # where the verdicts are
    assert len(server.requests) == N  # the verdicts on the rows hold for the file


def test_a_canarys_alarm_stands_above_the_numbers(
    tmp_path: Path, scripted_server: Callable[[Any], ScriptedServer], capsys: pytest.CaptureFixture[str]
) -> None:
    """A judge that prefers the longer answer lets the constant and the instructing one win; it was hidden before."""
    server = scripted_server(longer)
    told = words(outputs(tmp_path / "model_outputs.json"), server.url)
    told[told.index("--judge.canaries") + 1] = "12"
    code, out, err = call(told, capsys)
    assert code == 0, err
    assert out.startswith("WARNING: ")
    assert "can be gamed" in out.splitlines()[0]
    numbers = json.loads(call([*told, "--json"], capsys)[1])
    assert numbers["warnings"] == [line.removeprefix("WARNING: ") for line in out.splitlines() if "WARNING" in line]


def test_what_cannot_be_judged_is_told(
    tmp_path: Path, scripted_server: Callable[[Any], ScriptedServer], capsys: pytest.CaptureFixture[str]
) -> None:
    server = scripted_server(longer)
    few = outputs(tmp_path / "few.json", n=9)
    code, _, err = call(words(few, server.url), capsys)
    assert (code, len(server.requests)) == (2, 0)
    assert "no answer to 3 of 12 prompts" in err
    code, _, err = call(["judge", str(few), "--benchmark", "alpaca_eval"], capsys)
    assert code == 2
    assert "judged by nobody" in err
    code, out, _ = call(words(few, server.url, "--allow-missing"), capsys)
    assert code == 0
    assert "9 judged, 3 missing" in out.replace(" (3 have no row)", "")


def test_a_fastchat_file_is_marked(
    tmp_path: Path, scripted_server: Callable[[Any], ScriptedServer], capsys: pytest.CaptureFixture[str]
) -> None:
    server = scripted_server(ok("[[6]]"))
    questions = tmp_path / "asked.jsonl"
    asked = [{"question_id": 81 + i, "category": "math", "turns": ["one", f"two {i}"]} for i in range(3)]
    questions.write_text("".join(json.dumps(row) + "\n" for row in asked))
    answers = tmp_path / "answers.jsonl"
    said = [
        {"question_id": 81 + i, "model_id": "mine", "choices": [{"index": 0, "turns": ["a", "b"]}]} for i in range(3)
    ]
    answers.write_text("".join(json.dumps(row) + "\n" for row in said))
    told = words(answers, server.url, "--json")
    told[told.index("alpaca_eval")] = str(questions)
    code, out, err = call(told, capsys)
    assert code == 0, err
    verdicts = rows_of(Path(json.loads(out)["file"]))
    assert sorted((row["question_id"], row["turn"], row["score"]) for row in verdicts) == [
        (81 + i, turn, 6) for i in range(3) for turn in (1, 2)
    ]
