"""Official answer forms: what is written is read back, by us and by the official tools' rules; mistakes are named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trimtab.errors import DataError
from trimtab.judging.answer_files import (
    TurnAnswers,
    fastchat_rows,
    read_model_answers,
    read_model_outputs,
    read_references,
)
from trimtab.judging.benchmarks import Benchmark, Prompt
from trimtab.records import Answer

TWO = Benchmark("two", (Prompt("81", "a", "writing", later_turns=("b",)), Prompt("82", "c", later_turns=("d",))))
SINGLE = Benchmark("single", (Prompt("7", "Say hi.", "koala"), Prompt("8", "Count to 3.", "oasst")))


def jsonl(folder: Path, *rows: object) -> Path:
    path = folder / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def answered(question: object, *turns: object, model: str = "m", **more: Any) -> dict[str, Any]:
    return {"question_id": question, "model_id": model, "choices": [{"index": 0, "turns": list(turns)}]} | more


def said(instruction: str, output: object, generator: str = "m", **more: Any) -> dict[str, Any]:
    return {"instruction": instruction, "output": output, "generator": generator, "dataset": "d"} | more


def test_fastchat_round_trip(tmp_path: Path) -> None:
    answers = [TurnAnswers("81", ("A", ""), "m", n_tokens=5, finished=False), TurnAnswers("82", ("C", "D"), "m")]
    rows = fastchat_rows(answers, tstamp=3.5)
    assert read_model_answers(jsonl(tmp_path, *rows), benchmark=TWO) == answers
    assert rows[0]["question_id"] == 81
    assert rows[0]["choices"] == [{"index": 0, "turns": ["A", ""]}]
    assert {"answer_id", "model_id", "tstamp"} < set(rows[0])
    assert len({row["answer_id"] for row in rows}) == 2
    assert rows == fastchat_rows(answers, tstamp=3.5)


def test_prompts_without_a_number_keep_their_name(tmp_path: Path) -> None:
    benchmark = Benchmark("mine", (Prompt("²", "²", later_turns=("b",)),))
    (row,) = fastchat_rows([TurnAnswers("²", ("A", "B"), "m")], tstamp=0)
    assert row["question_id"] == "²"
    assert read_model_answers(jsonl(tmp_path, row), benchmark=benchmark)[0].prompt_id == "²"


def test_the_first_choice_counts_and_the_benchmarks_order_holds(tmp_path: Path) -> None:
    first = answered(81, "A", "B")
    first["choices"].append({"index": 1, "turns": ["other", "other"]})
    told = read_model_answers(jsonl(tmp_path, answered(99, "x"), answered(82, "C", "D"), first), benchmark=TWO)
    assert [(one.prompt_id, one.turns) for one in told] == [("81", ("A", "B")), ("82", ("C", "D"))]


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([answered(81, "A", "B")], "has no answer to 1 of 2 prompts: '82'"),
        ([answered(99, "A", "B")], "has no answer to 2 of 2 prompts: '81', '82'"),
        ([answered(81, "A", "B"), answered(82, "C", "D", model="n")], "several models: 'm' in row 1, 'n' in row 2"),
        ([answered(81, "A", "B"), answered("81", "C", "D")], "rows 1 and 2 both answer '81'"),
        ([answered(81, "A")], "row 1 answers 1 turns of question 81, which has 2"),
        ([answered(81, "A", "B", "C")], "row 1 answers 3 turns of question 81"),
        ([answered(81, "A", None)], "row 1: 'turns', item 2 is null, not text"),
        ([answered(81, "A", "$ERROR$")], "row 1: an answer is '\\$ERROR\\$'"),
        ([answered(81) | {"choices": []}], "row 1: 'choices' is not"),
        ([answered(81) | {"choices": [{"index": 0}]}], "row 1: 'turns' is null, not a list of texts"),
        ([answered(None, "A", "B")], "row 1: 'question_id' is null"),
        ([answered(81, "A", "B") | {"model_id": 4}], "row 1: 'model_id' is a number, not text"),
    ],
)
def test_bad_model_answers(tmp_path: Path, rows: list[object], complaint: str) -> None:
    with pytest.raises(DataError, match=complaint) as error:
        read_model_answers(jsonl(tmp_path, *rows), benchmark=TWO)
    assert error.value.remedy
    assert "answers.jsonl" in error.value.message


def test_missing_answers_may_be_allowed_but_not_all_of_them(tmp_path: Path) -> None:
    (told,) = read_model_answers(jsonl(tmp_path, answered(82, "C", "D")), benchmark=TWO, allow_missing=True)
    assert told.prompt_id == "82"
    with pytest.raises(DataError, match="no answer to 2 of 2"):
        read_model_answers(jsonl(tmp_path, answered(1, "C", "D")), benchmark=TWO, allow_missing=True)


def test_many_missing_prompts_are_not_all_listed(tmp_path: Path) -> None:
    benchmark = Benchmark("long", tuple(Prompt(str(number), f"{'x' * 70}{number}") for number in range(9)))
    with pytest.raises(DataError, match=r"no answer to 9 of 9 prompts: ('x{59}…', ){5}…") as error:
        read_model_outputs(jsonl(tmp_path, said("b", "B")), benchmark=benchmark)
    assert len(error.value.message) < 600


def test_model_outputs(tmp_path: Path) -> None:
    """Joined by the instruction, exactly as written, whatever the prompts' ids; the benchmark's order and families."""
    rows = [said("Count to 3.", "1 2 3"), said("other", "?"), said("Say hi.", "", n_tokens=0, finished=False)]
    path = tmp_path / "model_outputs.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    told = read_model_outputs(path, benchmark=SINGLE)
    assert told == [
        Answer("7", "Say hi.", "", "m", "koala", finished=False),
        Answer("8", "Count to 3.", "1 2 3", "m", "oasst"),
    ]
    path.write_text(json.dumps([one.to_json() for one in told]), encoding="utf-8")
    assert read_model_outputs(path, benchmark=SINGLE) == told


def test_answers_without_a_generator_are_called_by_their_file(tmp_path: Path) -> None:
    path = tmp_path / "my-model.v2.json"
    path.write_text(json.dumps([{"instruction": one, "output": "."} for one in ("Say hi.", "Count to 3.")]))
    assert [answer.generator for answer in read_model_outputs(path, benchmark=SINGLE)] == ["my-model"] * 2
    path.write_text(json.dumps([{"instruction": "Say hi.", "output": "."}]))
    with pytest.raises(DataError) as error:
        read_model_outputs(path, benchmark=SINGLE)
    assert "--allow-missing" in error.value.remedy
    assert len(read_model_outputs(path, benchmark=SINGLE, allow_missing=True)) == 1


def test_our_own_files_may_ask_the_same_twice(tmp_path: Path) -> None:
    benchmark = Benchmark("twice", (Prompt("1", "a"), Prompt("2", "a")))
    answers = [Answer("1", "a", "A", "m"), Answer("2", "a", "B", "m")]
    path = jsonl(tmp_path, *(one.to_json() for one in answers))
    assert read_model_outputs(path, benchmark=benchmark) == answers


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([said("Say hi.", "Hi")], r"no answer to 1 of 2 prompts: 'Count to 3\.'"),
        ([said("Say hi. ", "Hi"), said("Count to 3.", "")], r"no answer to 1 of 2 prompts: 'Say hi\.'"),
        ([said("Say hi.", "Hi"), said("Count to 3.", "3", "n")], "several models: 'm' in row 1, 'n' in row 2"),
        ([said("Say hi.", "Hi"), said("Say hi.", "Ho")], r"rows 1 and 2 both answer 'Say hi\.'"),
        ([said("Say hi.", None)], "row 1: 'output' is null, not text"),
        ([{"instruction": "Say hi.", "output": "Hi", "generator": 3}], "'generator'"),
    ],
)
def test_bad_model_outputs(tmp_path: Path, rows: list[object], complaint: str) -> None:
    with pytest.raises(DataError, match=complaint) as error:
        read_model_outputs(jsonl(tmp_path, *rows), benchmark=SINGLE)
    assert error.value.remedy


def test_references(tmp_path: Path) -> None:
    assert read_references(jsonl(tmp_path, answered(101, "A", "B"))) == {"101": ("A", "B")}
    with pytest.raises(DataError, match="both answer '101'"):
        read_references(jsonl(tmp_path, answered(101, "A"), answered(101, "B")))


@pytest.mark.needs_shared
def test_official_files(shared_data: Path) -> None:
    from trimtab.judging.benchmarks import read_benchmark

    folder = shared_data / "eval"
    questions = read_benchmark(folder / "mt_bench" / "question.jsonl")
    for path in sorted((folder / "mt_bench" / "sample_judgments" / "model_answer").glob("*.jsonl")):
        told = read_model_answers(path, benchmark=questions)
        assert len(told) == 80
        assert {one.generator for one in told} == {path.stem}
    benchmark = read_benchmark(folder / "alpaca_eval" / "instructions_805.json")
    outputs = read_model_outputs(
        folder / "alpaca_eval" / "reference_outputs_ae1_text_davinci_003.json", benchmark=benchmark
    )
    assert [one.instruction for one in outputs] == [prompt.instruction for prompt in benchmark.prompts]
    assert {one.generator for one in outputs} == {"text_davinci_003"}
