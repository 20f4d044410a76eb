"""Prompts from any JSON or JSON lines; mistakes answered with file, row and remedy."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from trimtab.errors import DataError
from trimtab.judging.benchmarks import Benchmark, Prompt, read_benchmark
from trimtab.judging.files import read_values
from trimtab.records import digest


def written(folder: Path, name: str, content: object) -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_a_list_of_texts(tmp_path: Path) -> None:
    told = read_benchmark(written(tmp_path, "mine.json", ["Say hi.", "Count to 3."]))
    assert told == Benchmark("mine", (Prompt("Say hi.", "Say hi."), Prompt("Count to 3.", "Count to 3.")))
    assert not told.has_baseline


def test_objects_one_a_line(tmp_path: Path) -> None:
    lines = '{"prompt": "a", "category": "math", "question_id": 81}\n\n{"question": "b", "id": 0}\n'
    told = read_benchmark(written(tmp_path, "mine.jsonl", lines))
    assert told.prompts == (Prompt("81", "a", "math"), Prompt("0", "b"))


def test_objects_printed_over_several_lines(tmp_path: Path) -> None:
    first, second = {"prompt": "a", "tags": ["x", "y"]}, {"prompt": "b", "id": 7}
    one = written(tmp_path, "one.json", json.dumps(first, indent=2))
    assert read_benchmark(one).prompts == (Prompt("a", "a"),)
    both = written(tmp_path, "both.json", json.dumps(first, indent=2) + "\n" + json.dumps(second, indent=1) + "\n\n")
    assert read_benchmark(both).prompts == (Prompt("a", "a"), Prompt("7", "b"))
    assert [place.number for place, _ in read_values(both)] == [1, 8]
    by_hand = written(tmp_path, "hand.json", '{"prompt": "a",\n "category": "math"}')
    assert read_benchmark(by_hand).prompts == (Prompt("a", "a", "math"),)


def test_alpaca_eval_model_outputs_are_a_benchmark_with_a_baseline(tmp_path: Path) -> None:
    rows = [
        {"instruction": "a", "output": "A!", "generator": "old", "dataset": "koala"},
        {"instruction": "b", "output": "", "generator": "old", "dataset": "oasst"},
    ]
    told = read_benchmark(written(tmp_path, "model_outputs.json", rows))
    assert told.has_baseline
    answer = told.prompts[0].baseline_answer()
    assert (answer.prompt_id, answer.output, answer.generator, answer.dataset) == ("a", "A!", "old", "koala")


def test_gzip_and_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl.gz"
    path.write_bytes(gzip.compress(b'\xef\xbb\xbf"a"\n"b"\n'))
    told = read_benchmark(path)
    assert (told.name, len(told.prompts)) == ("mine", 2)


def test_a_single_turn_is_a_prompt(tmp_path: Path) -> None:
    told = read_benchmark(written(tmp_path, "q.json", [{"turns": ["a"], "question_id": 1}]))
    assert told.prompts == (Prompt("1", "a"),)


def test_conversations(tmp_path: Path) -> None:
    rows = [
        {"question_id": 7, "category": "math", "turns": ["a", "b"], "reference": ["A", ""]},
        {"question_id": 8, "category": "writing", "turns": ["c"], "required_temperature": 0},
    ]
    told = read_benchmark(written(tmp_path, "q.json", rows))
    assert told.prompts == (
        Prompt("7", "a", "math", later_turns=("b",), reference=("A", "")),
        Prompt("8", "c", "writing", temperature=0.0),
    )
    assert told.prompts[0].turns == ("a", "b")
    assert told.multi_turn
    assert not told.has_baseline
    assert not Benchmark("one turn each", told.prompts[1:]).multi_turn


def test_a_field_that_is_called_reference_means_nothing_outside_conversations(tmp_path: Path) -> None:
    told = read_benchmark(written(tmp_path, "q.json", [{"prompt": "6 · 7?", "reference": 42}]))
    assert told.prompts == (Prompt("6 · 7?", "6 · 7?"),)


def test_the_digest_covers_the_whole_conversation() -> None:
    plain = Prompt("1", "a")
    others = (
        Prompt("1", "a", later_turns=("b",)),
        Prompt("1", "a", later_turns=("c",)),
        Prompt("1", "a", later_turns=("b",), reference=("x", "y")),
        Prompt("1", "a", temperature=0.0),
    )
    assert len({Benchmark("n", (prompt,)).digest for prompt in (plain, *others)}) == 5
    assert Benchmark("n", (plain,)).digest == digest([["1", "a", "", None, "baseline"]]), "as before conversations"


def test_first_and_digest(tmp_path: Path) -> None:
    told = read_benchmark(written(tmp_path, "mine.json", ["a", "b", "c"]))
    assert [p.id for p in told.first(2).prompts] == ["a", "b"]
    assert told.digest == Benchmark("another name", told.prompts).digest
    assert told.digest != told.first(2).digest
    assert told.digest != Benchmark("mine", (Prompt("a", "a", "family"), *told.prompts[1:])).digest


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "mine.json is empty"),
        ("[]", "holds no rows"),
        ('["a",\n "b"\n "c"]', "line 3, column 2 is not JSON"),
        ('"a"\n{"prompt": "b"\n', "line 2, column 15 is not JSON"),
        ('{"prompt": "a"\n{"prompt": "b"}\n', "line 1, column 15 is not JSON"),
        ('{\n  "prompt": "a",\n  "id" 3\n}', "line 3, column 8 is not JSON: Expecting ':'"),
        ('{\n  "prompt": "a",\n  "id": 3\n', "line 3, column 10 is not JSON"),
        ('{\n  "prompts": ["a"]\n}', "row 1 has none of instruction, prompt, question; it has prompts"),
        ([3], "row 1: expected a text or an object"),
        (["a", "  "], "row 2: the instruction is empty"),
        ([{"text": "a"}], "row 1 has none of instruction, prompt, question; it has text"),
        ([{"prompt": ["a"]}], "row 1: 'prompt' is a list, not text"),
        ([{"prompt": "a"}, {"prompt": "a"}], "prompts 1 and 2 are both 'a'"),
        ([{"prompt": "a", "id": 1}, {"prompt": "b", "id": 1}], "prompts 1 and 2 are both '1'"),
        ([{"turns": []}], "row 1: 'turns' is empty"),
        ([{"turns": "a"}], "row 1: 'turns' is text, not a list of texts"),
        ([{"turns": ["a", 3]}], "row 1: 'turns', item 2 is a number, not text"),
        ([{"turns": ["a", " "]}], "row 1: turn 2 is empty"),
        ([{"turns": ["a", "b"], "prompt": "a"}], "row 1 has both 'prompt' and 'turns'"),
        ([{"turns": ["a", "b"], "output": "x"}], "row 1 asks 2 turns and brings a baseline answer, 'output'"),
        ([{"turns": ["a", "b"], "reference": ["x"]}], "row 1: 1 reference answers to 2 turns"),
        ([{"turns": ["a", "b"], "reference": "x"}], "row 1: 'reference' is text, not a list of texts"),
        ([{"turns": ["a"], "required_temperature": "hot"}], "row 1: 'required_temperature' is 'hot'"),
        ([{"turns": ["a", "b"]}, {"turns": ["a", "c"]}], "prompts 1 and 2 are both 'a'"),
        (
            [{"turns": ["a", "b"], "question_id": 5}, {"turns": ["c", "d"], "question_id": 5}],
            "prompts 1 and 2 are both '5'",
        ),
        ([{"prompt": "a", "output": 3}], "row 1: 'output' is a number, not text"),
        ([{"prompt": "a", "output": "x"}, {"prompt": "b"}], "1 of 2 prompts bring a baseline answer, the first .* 2"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, content: object, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint) as error:
        read_benchmark(written(tmp_path, "mine.json", content))
    assert error.value.remedy
    assert "mine.json" in error.value.message


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_benchmark(tmp_path / "absent.json")
    with pytest.raises(DataError, match="is a folder"):
        read_benchmark(tmp_path)
    (tmp_path / "latin.json").write_bytes('["é"]'.encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8"):
        read_benchmark(tmp_path / "latin.json")
    (tmp_path / "cut.json.gz").write_bytes(gzip.compress(b'["a"]')[:-6])
    with pytest.raises(DataError, match="damaged gzip"):
        read_benchmark(tmp_path / "cut.json.gz")


@pytest.mark.needs_shared
def test_official_files(shared_data: Path) -> None:
    folder = shared_data / "eval" / "alpaca_eval"
    baseline = read_benchmark(folder / "reference_outputs_ae2_gpt4_1106_preview.json")
    instructions = read_benchmark(folder / "instructions_805.json")
    assert len(baseline.prompts) == len(instructions.prompts) == 805
    assert baseline.has_baseline
    assert not instructions.has_baseline
    assert [p.instruction for p in baseline.prompts] == [p.instruction for p in instructions.prompts]
    questions = read_benchmark(shared_data / "eval" / "mt_bench" / "question.jsonl")
    assert [len(prompt.turns) for prompt in questions.prompts] == [2] * 80
    assert [prompt.id for prompt in questions.prompts] == [str(number) for number in range(81, 161)]


def test_prompts_of_a_csv_file_are_rows_and_of_a_text_file_lines(tmp_path: Path) -> None:
    table = tmp_path / "mine.csv"
    table.write_text('prompt,id,category\n"Say ""hi"",\nthen stop.",7,talk\nCount to 3.,,\n', encoding="utf-8")
    assert read_benchmark(table).prompts == (
        Prompt("7", 'Say "hi",\nthen stop.', "talk"),
        Prompt("Count to 3.", "Count to 3."),
    )
    lines = tmp_path / "mine.txt"
    lines.write_text("Say hi.\n\n  Count to 3.\n", encoding="utf-8")
    assert read_benchmark(lines).prompts == (Prompt("Say hi.", "Say hi."), Prompt("Count to 3.", "Count to 3."))
    assert read_benchmark(table).name == read_benchmark(lines).name == "mine"
    lines.write_text("\n \n", encoding="utf-8")
    with pytest.raises(DataError, match="no lines"):
        read_benchmark(lines)
