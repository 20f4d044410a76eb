"""Pairs of a model's own answers, end to end: the embedded model samples, judges of every kind rank."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from judged_runs import longer, texts
from scripted_server import Action, ScriptedServer, Seen, prose, status
from stage_runs import Recorder
from trimtab import store, windtunnel
from trimtab.commands import pairs
from trimtab.commands.pairs import PairsResult
from trimtab.engine.reward import RewardModel
from trimtab.errors import ConfigError, DataError, EndpointError, UserError
from trimtab.runtime import answering
from trimtab.runtime.sampled_pairs import PairingOptions

Serve = Callable[[Any], ScriptedServer]
N = 10
EMBEDDED = {
    "model": "windtunnel",
    "windtunnel": {"pairs": N},
    "generate": {"max_new_tokens": 64},
    "engine": {"threads": 1, "device": "cpu"},
    "data": {"max_prompt_tokens": 96, "max_response_tokens": 64, "max_rejected": 1.0},
}


def make(prompts: str = "windtunnel", *, reporter: Recorder | None = None, **keys: Any) -> PairsResult:
    options = PairingOptions(**keys.pop("options", {}))
    world = {} if prompts == "windtunnel" else {"windtunnel": {}}
    config = pairs.resolve_config(prompts, {**EMBEDDED, **world, "out": "made.jsonl", **keys})
    return pairs.main(config, options, reporter=reporter or Recorder())


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def prompts_file(name: str = "prompts.jsonl", n: int = N) -> list[windtunnel.Task]:
    tasks = list(windtunnel.tasks(n, seed=0, split="pairs"))
    rows = [{"prompt": task.prompt, "solution": task.slots[0][1] if task.slots else ""} for task in tasks]
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tasks


def test_the_oracle_ranks_and_every_prompt_and_answer_is_accounted_for() -> None:
    result = make(judge="oracle", options={"rule": "all"})
    tasks = {task.id: task for task in windtunnel.tasks(N, seed=0, split="pairs")}
    rows = store.read_jsonl(Path("made.jsonl"))
    for row in rows:
        task = tasks[row["prompt_id"]]
        assert row["prompt"] == [{"role": "user", "content": task.prompt}]
        chosen, rejected = (windtunnel.score(task, row[side][0]["content"]).total for side in ("chosen", "rejected"))
        assert (row["score_chosen"], row["score_rejected"]) == (chosen, rejected)
        assert chosen > rejected
    told = result.account
    assert len({row["prompt_id"] for row in rows}) + told.prompts_without.total() == N
    n_left = 4 * N - told.answers_dropped.total()  # each prompt's k answers make k(k − 1)/2 candidates
    assert n_left >= 2 * told.n_paired_prompts
    assert result.audit.audit.n_rows == len(rows) == result.audit.audit.n_kept
    assert store.read_json(result.summary)["pairs"] == len(rows)
    by_rule = {
        rule: len(make(judge="oracle", options={"rule": rule}).account.pairs) for rule in ("best_worst", "adjacent")
    }
    assert by_rule["best_worst"] == told.n_paired_prompts <= by_rule["adjacent"] <= len(rows)


def test_length_matched_pairs_are_alike_in_length() -> None:
    result = make(judge="oracle", options={"rule": "all", "length_matched": True, "samples": 6})
    lengths = [sorted((len(pair.chosen), len(pair.rejected))) for pair in result.account.pairs]
    assert lengths
    assert all(longer <= 1.25 * shorter for shorter, longer in lengths)
    assert result.account.n_unmatched > 0


def test_a_verifier_ranks_by_the_rows_own_solution_and_its_failures_have_names(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts_file()
    Path("check.py").write_text(
        "def score(prompt, answer, row):\n"
        "    if answer.startswith(('It', 'The')):\n        raise ValueError('no articles')\n"
        "    return bool(row['solution']) and row['solution'] in answer\n"
    )
    reporter = Recorder()
    result = make("prompts.jsonl", judge="check.py", reporter=reporter, options={"samples": 8})
    solutions = {row["prompt"]: row["solution"] for row in store.read_jsonl(Path("prompts.jsonl"))}
    assert result.account.pairs
    for pair in result.account.pairs:
        solution = solutions[pair.prompt.messages[0].content]
        assert solution in pair.chosen
        assert solution not in pair.rejected
        assert not pair.rejected.startswith(("It", "The"))
    assert result.account.usage is not None
    assert result.account.usage.reasons == f"failed: {result.account.answers_dropped['no score']}"
    assert any("ValueError: no articles" in line for line in reporter.lines)
    # again: nothing is sampled, and of the answers only the failures are tried once more
    monkeypatch.setattr(answering.models, "load", lambda *_, **__: pytest.fail("the answers are in the cache"))
    again = make("prompts.jsonl", judge="check.py", options={"samples": 8}).account
    assert again.pairs == result.account.pairs
    assert again.usage is not None
    assert again.usage.n_asked == result.account.usage.n_failed
    assert again.usage.n_cached == result.account.usage.n_asked - result.account.usage.n_failed


def test_a_judge_of_two_is_asked_for_every_two_and_a_stopped_command_pays_nothing_twice(
    scripted_server: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    limit = 20

    def longer_wins(seen: Seen) -> Action:
        return status(401) if seen.nth >= limit else longer(seen)

    server = scripted_server(longer_wins)
    benchmark = {"dir": str(texts(Path("texts")))}
    keys: dict[str, Any] = {
        "judge": {"name": "openai:grader", "rubric": "chosen", "concurrency": 1},
        "base_url": server.url,
        "benchmark": benchmark,
        "options": {"samples": 3, "rule": "all"},
    }
    own = {"judge": keys["judge"], "base_url": server.url, "benchmark": benchmark}
    config = pairs.resolve_config("windtunnel", {**EMBEDDED, **own})
    forecast = pairs.forecast(config, PairingOptions(3)).to_json()
    assert forecast["answers"] == 3 * N
    assert forecast["calls"]["n_calls"] == 3 * N
    assert not server.requests, "a forecast asks nothing"
    with pytest.raises(EndpointError):
        make(**keys)
    n_before = server.answered
    assert 0 < n_before <= limit
    limit = 10**6
    monkeypatch.setattr(answering.models, "load", lambda *_, **__: pytest.fail("the answers are in the cache"))
    told = make(**keys).account
    assert told.usage is not None
    assert told.usage.n_cached == n_before
    assert server.answered == n_before + told.usage.n_asked
    assert told.usage.n_failed == 0
    # of three lengths the longest wins both of its comparisons, the middle one one, the shortest none
    assert all(len(pair.chosen) >= len(pair.rejected) for pair in told.pairs)
    full = [pair for pair in told.pairs if (pair.score_chosen, pair.score_rejected) == (1.0, 0.0)]
    assert full
    assert {pair.score_chosen for pair in told.pairs} == {0.5, 1.0}


def test_a_reward_model_scores_each_answer_once(monkeypatch: pytest.MonkeyPatch) -> None:
    scored_texts: list[str] = []

    class Lengths:
        def scores(self, conversations: Any) -> list[float | None]:
            scored_texts.extend(conversation[-1].content for conversation in conversations)
            return [float(len(conversation[-1].content)) for conversation in conversations]

    Path("reward").mkdir()
    tree = {"architectures": ["LlamaForSequenceClassification"], "num_labels": 1}
    Path("reward/config.json").write_text(json.dumps(tree))
    monkeypatch.setattr(RewardModel, "load", lambda *_, **__: Lengths())
    result = make(judge="reward:reward")
    assert all(len(pair.chosen) > len(pair.rejected) for pair in result.account.pairs)
    n = len(scored_texts)
    make(judge="reward:reward", options={"rule": "adjacent"})
    assert len(scored_texts) == n, "another rule costs nothing"


def test_answers_that_are_cut_are_no_side_of_a_pair() -> None:
    with pytest.raises(DataError, match=r"cut at generate.max_new_tokens"):
        make(judge="oracle", generate={"max_new_tokens": 2})


def test_a_server_samples_for_a_model_that_is_not_here(scripted_server: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    server = scripted_server(lambda seen: prose(f"Answer {seen.body['seed'] % 7} to that."))
    Path("prompts.txt").write_text("Why is the sky blue?\n\nWho was Ada?\n")
    Path("check.py").write_text("def score(prompt, answer):\n    return int(answer.split()[1])\n")
    config = pairs.resolve_config(
        "prompts.txt",
        {
            "model": "served-model",
            "judge": "check.py",
            "out": "made.jsonl",
            "base_url": server.url,
            "generate": {"sampler": "openai"},
        },
    )
    told = pairs.main(config, PairingOptions(4), reporter=Recorder()).account
    assert {request.body["model"] for request in server.requests} == {"served-model"}
    assert len(server.requests) == 8
    assert told.n_paired_prompts == 2
    assert all(pair.score_chosen > pair.score_rejected for pair in told.pairs)


CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Greet Ann."},
    {"role": "assistant", "content": "Hello, Ann."},
    {"role": "user", "content": "Greet Ben."},
]


@pytest.mark.parametrize(
    ("name", "rows", "n_messages"),
    [
        ("pairs.jsonl", [{"prompt": "Greet Ann.", "chosen": "Hi.", "rejected": "No."}], [1]),
        ("chat.jsonl", [{"messages": [*CONVERSATION, {"role": "assistant", "content": "Hello, Ben."}]}], [4]),
        ("prompt.jsonl", [{"prompt": CONVERSATION}], [4]),
        ("alpaca.json", [{"instruction": "Greet", "input": "Ann"}, {"instruction": "Greet Ben."}], [1, 1]),
        ("orca.jsonl", [{"system": "Be brief.", "question": "Who is it?"}], [2]),
        ("mt.jsonl", [{"question_id": 1, "turns": ["Greet Ann.", "And Ben."]}], [1]),
        ("unpaired.jsonl", [{"prompt": "Greet Ann.", "completion": "Hi", "label": True}], [1]),
        ("list.json", ["Greet Ann.", "Greet Ben."], [1, 1]),
    ],
)
def test_prompts_are_read_from_what_holds_some(name: str, rows: list[Any], n_messages: list[int]) -> None:
    is_list = name.endswith(".json")
    Path(name).write_text(json.dumps(rows) if is_list else "".join(json.dumps(row) + "\n" for row in rows))
    config = pairs.resolve_config(name, {**EMBEDDED, "windtunnel": {}, "judge": "reward:x"})
    assert [len(prompt.messages) for prompt in pairs.prompts_of(config).sound] == n_messages


def test_prompts_that_cannot_be_asked_are_named() -> None:
    rows = [
        {"prompt": "Greet Ann."},
        {"prompt": "Greet Ann."},
        {"prompt": [{"role": "assistant", "content": "Hi."}]},
        {"prompt": [{"role": "user", "content": " "}]},
        {
            "prompt": [
                {"role": "user", "content": "?"},
                {"role": "assistant", "content": "", "tool_calls": [{"name": "f"}]},
                {"role": "tool", "content": "3"},
            ]
        },
    ]
    Path("prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = pairs.resolve_config("prompts.jsonl", {**EMBEDDED, "windtunnel": {}, "judge": "reward:x"})
    told = pairs.prompts_of(config)
    assert [prompt.id for prompt in told.sound] == ["prompts.jsonl:1"]
    assert [(row.id.rpartition(":")[2], row.reason.value) for row in told.dropped_rows] == [
        ("2", "duplicate"),
        ("3", "wrong_roles"),
        ("4", "empty_prompt"),
        ("5", "not_read"),
    ]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "nothing ranks the answers"),
        ({"judge": "oracle", "options": {"samples": 1}}, "no two answers to compare"),
        ({"judge": "oracle", "generate": {"temperature": 0.0}}, "the same answer every time"),
        ({"judge": "oracle", "train": {"epochs": 2}}, "train has no effect here"),
        ({"judge": {"name": "oracle", "canaries": 3}}, "judge.canaries has no effect"),
        ({"judge": "oracle", "benchmark": "mt_bench"}, "benchmark.name has no effect"),
        ({"judge": "check.py:score"}, r"there is no file check\.py"),
        ({"judge": "ok.py", "prompts": "none.jsonl"}, "no such file"),
        ({"judge": "oracle", "prompts": "taken.jsonl"}, "the oracle can judge only the embedded world"),
        ({"judge": "oracle", "out": "taken.jsonl"}, "holds something else already"),
    ],
)
def test_what_cannot_give_pairs_is_one_message(
    keys: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    Path("taken.jsonl").write_text('{"prompt": "Greet Ann."}\n')
    Path("ok.py").write_text("def score(prompt, answer):\n    return 1.0\n")
    with pytest.raises(UserError, match=message):
        make(keys.pop("prompts", "windtunnel"), **keys)
    assert Path("taken.jsonl").read_text() == '{"prompt": "Greet Ann."}\n'


def test_a_run_folders_word_starts_no_program(monkeypatch: pytest.MonkeyPatch) -> None:
    from trimtab.cli.configuration import read

    Path("run").mkdir()
    Path("run/config.json").write_text(json.dumps({"model": "m", "data": "d", "judge": {"name": "command:rm x"}}))
    with pytest.raises(ConfigError, match="wants command:rm x started"):
        read("run", None, sends_requests=True)
