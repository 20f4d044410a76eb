"""Answers to benchmarks that bring a baseline, to conversations, and from a server."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from judged_runs import Lines
from scripted_server import ScriptedServer, ok, status
from trimtab import config as configuration
from trimtab import store, windtunnel
from trimtab.config import Config
from trimtab.errors import ConfigError
from trimtab.judging.answer_files import read_model_answers, read_model_outputs
from trimtab.judging.benchmarks import read_benchmark
from trimtab.runtime import set_up
from trimtab.stages import generate

ASKED = [task.prompt for task in windtunnel.tasks(6, seed=3, split="eval")]


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")


def trained(tmp_path: Path, rows: list[dict[str, Any]], *, lines: bool = False, **keys: Any) -> Config:
    """A run whose trained model is the shipped one again."""
    file = tmp_path / ("asked.jsonl" if lines else "asked.json")
    file.write_text("\n".join(map(json.dumps, rows)) if lines else json.dumps(rows))
    config = configuration.resolve(
        {
            "model": "windtunnel",
            "data": "windtunnel",
            "benchmark": {"name": str(file)} | keys.pop("benchmark", {}),
            "generate": {"max_new_tokens": 12} | keys.pop("generate", {}),
            "out": str(tmp_path / "run"),
            **keys,
        }
    )
    shutil.copytree(windtunnel.model_folder(), set_up(config).folder.model, dirs_exist_ok=True)
    return config


def conversations() -> list[dict[str, Any]]:
    pairs = zip(ASKED[:3], ASKED[3:], strict=True)
    return [{"question_id": 81 + n, "category": "writing", "turns": list(pair)} for n, pair in enumerate(pairs)]


def test_a_published_baseline_is_filed_and_the_unaligned_model_answers_too(tmp_path: Path) -> None:
    rows = [{"instruction": text, "output": "no idea .", "generator": "published"} for text in ASKED]
    config = trained(tmp_path, rows)
    generate.main(set_up(config), reporter=Lines())
    folder, asked = set_up(config).folder, set_up(config).benchmark
    aligned = read_model_outputs(folder.answers("asked"), benchmark=asked)
    unaligned = read_model_outputs(folder.unaligned_answers("asked"), benchmark=asked)
    assert [one.output for one in aligned] == [one.output for one in unaligned]  # the same weights, the same noise
    assert (aligned[0].generator, unaligned[0].generator) == ("windtunnel aligned", "windtunnel")
    assert {row["output"] for row in store.read_json(folder.baseline_answers("asked"))} == {"no idea ."}

    alone = trained(tmp_path, rows, benchmark={"unaligned": "off"})
    generate.main(set_up(alone), reporter=Lines())
    assert not folder.unaligned_answers("asked").exists()


def test_conversations_are_answered_turn_by_turn_in_fastchats_form(tmp_path: Path) -> None:
    config = trained(tmp_path, conversations(), lines=True)
    generate.main(set_up(config), reporter=Lines())
    folder, asked = set_up(config).folder, set_up(config).benchmark
    for path in (folder.answers("asked", turns=True), folder.unaligned_answers("asked", turns=True)):
        answers = read_model_answers(path, benchmark=asked)
        assert [len(one.turns) for one in answers] == [2, 2, 2]
        assert all(turn for one in answers for turn in one.turns)
        assert {row["question_id"] for row in store.read_jsonl(path)} == {81, 82, 83}


def test_a_server_samples_in_its_own_name_and_what_it_did_not_answer_is_missing(
    tmp_path: Path, scripted_server: Callable[[Any], ScriptedServer]
) -> None:
    def answers(seen: Any) -> Any:
        if ASKED[2] in seen.text:
            return status(400, message="content policy", code="content_filter")
        return ok(f"{seen.body['model']} says {len(seen.body['messages'])}")

    server = scripted_server(answers)
    served = {"sampler": "openai", "served_as": "tuned", "unaligned_served_as": "plain", "max_new_tokens": 12}
    config = trained(tmp_path, [{"instruction": text} for text in ASKED], generate=served, base_url=server.url)
    lines = Lines()
    generate.main(set_up(config), reporter=lines)
    folder = set_up(config).folder
    aligned = store.read_json(folder.answers("asked"))
    assert [row["output"] for row in aligned] == ["tuned says 1"] * 5
    assert ASKED[2] not in {row["instruction"] for row in aligned}
    assert {row["output"] for row in store.read_json(folder.baseline_answers("asked"))} == {"plain says 1"}
    assert all(seen.body["max_tokens"] == 12 and seen.body["temperature"] == 0.7 for seen in server.requests)
    n_asked = len(server.requests)
    generate.main(set_up(config), reporter=lines)
    asked_again = server.requests[n_asked:]
    assert {seen.body["model"] for seen in asked_again} == {"tuned", "plain"}
    assert all(ASKED[2] in seen.text for seen in asked_again)


def test_a_server_must_be_told_both_names(tmp_path: Path, scripted_server: Callable[[Any], ScriptedServer]) -> None:
    server = scripted_server(ok("x"))
    served = {"sampler": "openai", "served_as": "tuned"}
    config = trained(tmp_path, [{"instruction": text} for text in ASKED], generate=served, base_url=server.url)
    with pytest.raises(ConfigError, match="unaligned_served_as"):
        generate.main(set_up(config), reporter=Lines())


def test_the_benchmark_is_read_as_it_was_asked(tmp_path: Path) -> None:
    config = trained(tmp_path, conversations(), lines=True)
    assert set_up(config).benchmark.prompts == read_benchmark(Path(config.benchmark.name)).prompts
