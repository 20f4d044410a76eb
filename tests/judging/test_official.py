"""Benchmarks by name, from the development data as from the official source; a small stand-in where it is absent."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from trimtab.errors import DataError
from trimtab.judging import official
from trimtab.judging.mt_bench_grading import temperature
from trimtab.judging.official_texts import Source, Text, TextMissingError
from trimtab.judging.rubrics import RubricName


def no_network(url: str) -> bytes:
    raise AssertionError(f"{url} was fetched")


def source_at(folder: Path, cache: Path) -> Source:
    return Source(folder=folder, cache=cache, offline=True, fetch=no_network)


ALL_TEXTS = [value for value in vars(official).values() if isinstance(value, Text)]


def test_every_text_is_pinned() -> None:
    """At an address that does not move, over https, with a whole digest; no two texts are the same."""
    assert official.names() == ("alpaca_eval", "alpaca_eval_1", "mt_bench")
    assert len(ALL_TEXTS) == 9
    for text in ALL_TEXTS:
        assert text.url.startswith("https://")
        assert "/main/" not in text.url
        assert len(bytes.fromhex(text.sha256)) == 32
        assert text.rows is None or len(bytes.fromhex(text.rows)) == 32
    assert len({text.sha256 for text in ALL_TEXTS}) == len({text.name for text in ALL_TEXTS}) == 9


@pytest.mark.parametrize("name", official.names())
def test_offline_and_nothing_there(name: official.Name, tmp_path: Path) -> None:
    nothing = Source(cache=tmp_path, offline=True, fetch=no_network)
    with pytest.raises(TextMissingError) as error:
        official.benchmark(name, source=nothing)
    assert "--benchmark-dir" in error.value.remedy
    for wanted in get_args(RubricName):
        with pytest.raises(TextMissingError, match="judge prompt"):
            official.rubric(wanted, source=nothing)
    tables = official.length_tables(name, source=nothing)
    assert tables.difficulty is tables.gamed is None
    assert len(tables.notes) == (0 if name == "mt_bench" else 2)


def test_a_reduced_set_is_used_and_said_to_be_one(tmp_path: Path) -> None:
    rows = [{"instruction": "Say hi.", "output": "Hi", "generator": "old", "dataset": "d"}]
    (tmp_path / "alpaca_eval_gpt4_baseline.json").write_text(json.dumps(rows), encoding="utf-8")
    source = source_at(tmp_path, tmp_path / "cache")
    told = official.benchmark("alpaca_eval", source=source)
    assert [(prompt.id, prompt.baseline_output) for prompt in told.prompts] == [("Say hi.", "Hi")]
    (found,) = official.texts("alpaca_eval", source=source, part="prompts").values()
    assert not found.official
    assert "not comparable" in (found.note or "")


def test_a_baseline_without_answers(tmp_path: Path) -> None:
    (tmp_path / "alpaca_eval.json").write_text('[{"instruction": "Say hi."}]', encoding="utf-8")
    with pytest.raises(DataError, match="has no baseline answers"):
        official.benchmark("alpaca_eval_1", source=source_at(tmp_path, tmp_path / "cache"))


def question_file(folder: Path, *rows: dict[str, object]) -> None:
    (folder / "question.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def reference_file(folder: Path, **turns: list[str]) -> None:
    (folder / "reference_answer").mkdir()
    rows = [
        {"question_id": int(name[1:]), "model_id": "gpt-4", "choices": [{"index": 0, "turns": said}]}
        for name, said in turns.items()
    ]
    path = folder / "reference_answer" / "gpt-4.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_references_are_gpt_4s_and_for_three_categories(tmp_path: Path) -> None:
    question_file(
        tmp_path,
        {"question_id": 1, "category": "math", "turns": ["a", "b"], "reference": ["the authors' note", ""]},
        {"question_id": 2, "category": "stem", "turns": ["c", "d"], "reference": ["the authors' note", ""]},
    )
    reference_file(tmp_path, q1=["A", "B"], q2=["C", "D"])
    told = official.benchmark("mt_bench", source=source_at(tmp_path, tmp_path / "cache"))
    assert [prompt.reference for prompt in told.prompts] == [("A", "B"), ()]


def test_a_question_that_needs_a_reference_and_has_none(tmp_path: Path) -> None:
    question_file(tmp_path, {"question_id": 1, "category": "coding", "turns": ["a", "b"]})
    reference_file(tmp_path, q2=["A", "B"])
    with pytest.raises(DataError, match=r"0 reference answers to question 1 \(coding\), which has 2 turns"):
        official.benchmark("mt_bench", source=source_at(tmp_path, tmp_path / "cache"))


@pytest.mark.needs_shared
@pytest.mark.parametrize("narrow", [lambda name: "", lambda name: name.removesuffix("_1")], ids=["all", "own folder"])
@pytest.mark.parametrize("name", official.names())
def test_the_development_data_as_benchmark_dir(
    name: official.Name, narrow: Callable[[str], str], shared_data: Path, tmp_path: Path
) -> None:
    source = source_at(shared_data / "eval" / narrow(name), tmp_path)
    found = official.texts(name, source=source)
    unofficial = {one.text for one in found.values() if not one.official}
    assert unofficial == ({official.DIFFICULTY, official.GAMED} if name != "mt_bench" else set())
    told = official.benchmark(name, source=source)
    assert told.name == name
    assert len(told.prompts) == (80 if name == "mt_bench" else 805)
    assert told.multi_turn == (name == "mt_bench")
    assert told.has_baseline != told.multi_turn
    assert list(tmp_path.iterdir()) == [], "what the user gave is read where it is"


@pytest.mark.needs_shared
def test_alpaca_eval(shared_data: Path, tmp_path: Path) -> None:
    source = source_at(shared_data / "eval", tmp_path)
    rows = json.loads((shared_data / "eval" / "alpaca_eval" / "instructions_805.json").read_text(encoding="utf-8"))
    for name, generator in (("alpaca_eval", "gpt4_1106_preview"), ("alpaca_eval_1", "text_davinci_003")):
        told = official.benchmark(name, source=source)  # type: ignore[arg-type]  # both are names
        assert [prompt.instruction for prompt in told.prompts] == [row["instruction"] for row in rows]
        assert [prompt.id for prompt in told.prompts] == [row["instruction"] for row in rows]
        assert [prompt.dataset for prompt in told.prompts] == [row["dataset"] for row in rows]
        assert {prompt.baseline_generator for prompt in told.prompts} == {generator}
    tables = official.length_tables("alpaca_eval_1", source=source)
    assert tables.difficulty is not None
    assert tables.gamed is not None
    assert len(tables.difficulty) == 805
    assert len(tables.gamed["preference"]) == 1_610
    assert len(tables.notes) == len(tables.texts) == 2, "neither is the official file"


@pytest.mark.needs_shared
def test_the_hubs_bytes_of_alpaca_eval_1_are_the_same_rows(shared_data: Path) -> None:
    """The Hub's file cannot be fetched here; its pinned digest is that of the known rows, written as it writes them."""
    import hashlib

    path = shared_data / "eval" / "alpaca_eval" / "reference_outputs_ae1_text_davinci_003.json"
    rows = json.loads(path.read_text(encoding="utf-8"))
    names = ("dataset", "instruction", "output", "generator")
    written = json.dumps([{name: row[name] for name in names} for row in rows], indent=2).encode()
    assert hashlib.sha256(written).hexdigest() == official.BASELINE_1.sha256
    assert len(written) == official.BASELINE_1.n_bytes


@pytest.mark.needs_shared
def test_rubrics(shared_data: Path, tmp_path: Path) -> None:
    source = source_at(shared_data / "eval", tmp_path)
    weighted = official.rubric(official.official_rubric("alpaca_eval"), source=source)
    ranking = official.rubric(official.official_rubric("alpaca_eval_1"), source=source)
    assert (weighted.name, weighted.prompt_sha256) == ("weighted", official.CLASSIFIER_PROMPT.sha256)
    assert (ranking.name, ranking.prompt_sha256) == ("ranking", official.RANKING_PROMPT.sha256)
    assert official.rubric("chosen", source=source) == weighted.without_log_probs()
    for rubric in (weighted, ranking):
        system, user = rubric.messages("INSTRUCTION", first="FIRST", second="SECOND")
        assert (system.role, user.role) == ("system", "user")
        shown = [user.content.index(text) for text in ("INSTRUCTION", "FIRST", "SECOND")]
        assert shown == sorted(shown)
        assert "<|im_" not in system.content + user.content
        assert user.content == user.content.strip()


@pytest.mark.needs_shared
def test_mt_bench(shared_data: Path, tmp_path: Path) -> None:
    told = official.benchmark("mt_bench", source=source_at(shared_data / "eval" / "mt_bench", tmp_path))
    assert [prompt.id for prompt in told.prompts] == [str(number) for number in range(81, 161)]
    assert all(len(prompt.turns) == 2 for prompt in told.prompts)
    with_reference = {prompt.id for prompt in told.prompts if prompt.reference}
    assert with_reference == {str(number) for number in range(101, 131)}
    assert all(len(prompt.reference) == 2 for prompt in told.prompts if prompt.reference)
    by_category = {prompt.dataset: temperature(prompt) for prompt in told.prompts}
    assert by_category == {
        "writing": 0.7, "roleplay": 0.7, "reasoning": 0.0, "math": 0.0,
        "coding": 0.0, "extraction": 0.0, "stem": 0.1, "humanities": 0.1,
    }  # fmt: skip
