"""Programs that score answers: what they give is a finite number or a named failure, within their time."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from trimtab.errors import ConfigError
from trimtab.judging.judges import Comparison, Submission, by_sign, preferences_of
from trimtab.judging.verifiers import VerifierFailure, verifier
from trimtab.records import Message

SCORES = """
import time
print("what a file prints is no reply")
def score(prompt, answer):
    print("nor what a function prints")
    if answer == "hang":
        time.sleep(60)
    if answer == "read":
        input()
    if answer == "exit":
        raise SystemExit(3)
    return {"nothing": None, "words": "very good", "nan": float("nan"), "yes": True}.get(answer, len(answer) / 2)
def exact(prompt, answer, row):
    return answer.strip() == row["solution"]
def end(prompt, answer):
    import os
    os._exit(7)
"""


def submission(answer: str, **row: str) -> Submission:
    return Submission((Message("user", "Why?"),), answer, json.dumps(row) if row else "")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "check.py"
    path.write_text(SCORES)
    return path


def test_a_function_scores_and_what_is_no_number_is_a_failure_by_name(file: Path) -> None:
    program = verifier(str(file), seconds=1)
    try:
        assert program.score(submission("four")) == 2.0
        assert program.score(submission("yes")) == 1.0
        assert program.score(submission("read")) == VerifierFailure("failed", "EOFError: EOF when reading a line")
        assert program.score(submission("nothing")) == VerifierFailure("no number", "it gave 'None'")
        assert program.score(submission("words")) == VerifierFailure("no number", "it gave \"'very good'\"")
        assert program.score(submission("nan")) == VerifierFailure("no number", "it gave 'nan'")
        assert program.score(submission("exit")) == VerifierFailure("failed", "SystemExit: 3")
        start = time.monotonic()
        assert program.score(submission("hang")) == VerifierFailure("time limit", "no score within 1 s")
        assert time.monotonic() - start < 5
        assert program.score(submission("after")) == 2.5, "another process took its place"
    finally:
        program.close()


def test_a_function_with_three_parameters_gets_the_row(file: Path) -> None:
    program = verifier(f"{file}:exact", seconds=5)
    try:
        assert [program.score(submission(answer, solution="42")) for answer in ("42 ", "41")] == [1.0, 0.0]
        assert program.score(submission("42")) == VerifierFailure("failed", "KeyError: 'solution'")
    finally:
        program.close()


def test_a_process_that_ends_is_a_failure(file: Path) -> None:
    program = verifier(f"{file}:end", seconds=5)
    try:
        assert program.score(submission("x")) == VerifierFailure("failed", "its process ended (7)")
    finally:
        program.close()


def test_a_command_reads_a_line_and_prints_a_score(tmp_path: Path) -> None:
    script = tmp_path / "score.py"
    script.write_text(
        "import json, sys, time\nline = json.loads(sys.stdin.readline())\n"
        "if line['answer'] == 'hang': time.sleep(60)\n"
        "if line['answer'] == 'fail': sys.exit('no such file')\n"
        "while line['answer'] == 'flood': print('9' * 1000)\n"
        "print(line['row'].get('points', len(line['answer'])))\n"
    )
    program = verifier(f"command:{sys.executable} {script}", seconds=2)
    assert program.score(submission("four")) == 4.0
    assert program.score(submission("four", points="2.5")) == 2.5
    assert program.score(submission("four", points="many")) == VerifierFailure("no number", "it gave 'many'")
    assert program.score(submission("fail")) == VerifierFailure("failed", "exit code 1: no such file")
    assert program.score(submission("hang")) == VerifierFailure("time limit", "no score within 2 s")
    assert program.score(submission("flood")) == VerifierFailure("no number", "it printed 100,000 bytes or more")
    assert program.score(submission("x" * 200_000)) == 200_000.0


def test_a_program_that_reads_nothing_is_not_waited_for() -> None:
    program = verifier("command:echo 3", seconds=5)
    assert program.score(submission("x" * 200_000)) == 3.0


def test_what_decides_a_score_is_in_the_digest(file: Path) -> None:
    programs = [verifier(name, seconds=1) for name in (f"{file}:score", f"{file}:exact")]
    digests = [program.digest for program in programs]
    file.write_text(SCORES + "\n")
    digests.append(programs[0].digest)
    for program in programs:
        program.close()
    assert len(set(digests)) == 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.py", "there is no file"),
        ("broken.py", "SyntaxError"),
        ("check.py:mark", "has no function 'mark'; it has score, exact, end"),
        ("command:no-such-program x", "there is no program 'no-such-program'"),
        ("command:'open", "No closing quotation"),
    ],
)
def test_a_program_that_is_not_there_is_one_message(
    name: str, message: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent)
    Path("broken.py").write_text("def score(:\n")
    with pytest.raises(ConfigError, match=message):
        verifier(name, seconds=1)


def test_two_scores_make_a_preference_and_a_missing_one_none() -> None:
    class Lengths:
        name = "lengths"

        def scores(self, submissions: Sequence[Submission], /) -> list[float | None]:
            return [float(len(item.answer)) if item.answer else None for item in submissions]

        def preference(self, baseline: float, model: float, /) -> float:
            return by_sign(baseline, model)

    comparisons = [Comparison("p", "Why?", *answers) for answers in (("a", "bb"), ("bb", "a"), ("a", "b"), ("a", ""))]
    assert preferences_of(Lengths(), comparisons) == [2.0, 1.0, 1.5, None]
