"""Answers to turns: conversations, resume after a stop, budgets that do not fit, and a server in the model's place."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from scripted_server import Action, Seen, ok, status
from stage_runs import Recorder
from trimtab import config as configuration
from trimtab import store, windtunnel
from trimtab.config import Config
from trimtab.endpoint import Backoff, Endpoint
from trimtab.errors import NumericsError, StopError
from trimtab.records import Message
from trimtab.runtime import answering, set_up
from trimtab.runtime.answering import TurnAnswer, answer_turns

CONVERSATIONS = [
    ("Write a sentence about a cat.", "What is 2 plus 3?"),
    ("What is 7 plus 8?", "Greet Kim."),
    ("Greet Sam.",),
    ("Sort the words: pear, apple, fig.", "Say it again.", "And once more."),
]
N_TURNS = 8


def a_config(tmp_path: Path, **generate: Any) -> Config:
    return configuration.resolve(
        {
            "model": "windtunnel",
            "data": "windtunnel",
            "out": str(tmp_path / "run"),
            "generate": {"max_new_tokens": 24, **generate},
            "engine": {"device": "cpu", "threads": 1},
        }
    )


def asked(config: Config, *, reporter: Recorder | None = None, **changes: Any) -> list[list[TurnAnswer]]:
    settings: dict[str, Any] = {"temperatures": [0.9, 0.0, 1.0, 0.7], "conversations": CONVERSATIONS, **changes}
    conversations = settings.pop("conversations")
    return answer_turns(
        windtunnel.model_folder(),
        conversations,
        decoding=config.generate,
        setup=set_up(config),
        reporter=reporter or Recorder(),
        description="answers",
        **settings,
    )


def forget() -> None:
    for path in (store.home() / "answers").glob("*"):
        path.unlink()


def test_later_turns_are_asked_with_the_models_own_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts: list[tuple[Message, ...]] = []
    real = answering.ChatTemplate.prompt_ids

    def seen(template: Any, messages: Any, **limits: Any) -> Any:
        prompts.append(tuple(messages))
        return real(template, messages, **limits)

    monkeypatch.setattr(answering.ChatTemplate, "prompt_ids", seen)
    said = asked(a_config(tmp_path))
    assert [len(turns) for turns in said] == [2, 2, 1, 3]
    assert all(0 < one.n_tokens <= 24 for turns in said for one in turns)
    [last] = [prompt for prompt in prompts if len(prompt) == 5]
    assert [message.role for message in last] == ["user", "assistant", "user", "assistant", "user"]
    assert [message.content for message in last[::2]] == list(CONVERSATIONS[3])
    assert [message.content for message in last[1::2]] == [one.text for one in said[3][:2]]


def test_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, reporter = a_config(tmp_path), Recorder()
    said = asked(config)
    monkeypatch.setattr(answering.models, "load", lambda *_, **__: pytest.fail("the cache has them"))
    assert asked(config, reporter=reporter) == said
    assert reporter.lines == ["answers: 4 answers from the cache"]
    assert [path.suffix for path in (store.home() / "answers").iterdir()] == [".json"], "the log has served"


@pytest.mark.parametrize("what", ["temperatures", "seed", "max_new_tokens", "conversations"])
def test_what_decides_an_answer_is_in_its_key(tmp_path: Path, what: str) -> None:
    asked(a_config(tmp_path))
    match what:
        case "temperatures":
            asked(a_config(tmp_path), temperatures=[0.9, 0.1, 1.0, 0.7])
        case "conversations":
            asked(a_config(tmp_path), conversations=[*CONVERSATIONS[:3], ("Greet Kim.",)])
        case _:
            asked(a_config(tmp_path, **{what: 20}))
    assert len(list((store.home() / "answers").glob("*.json"))) == 2
    asked(a_config(tmp_path, batch_tokens=300))
    assert len(list((store.home() / "answers").glob("*.json"))) == 2, "what changes only the cost is not"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_keeps_what_is_complete_and_goes_on_with_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    config = a_config(tmp_path)
    whole = asked(config)
    forget()
    real, calls = answering.Transcript.add, []

    def stopped_at_the_third(said: Any, number_of: int, spoken: TurnAnswer) -> None:
        real(said, number_of, spoken)
        calls.append(spoken)
        if len(calls) == 3:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(answering.Transcript, "add", stopped_at_the_third)
    with pytest.raises(StopError) as stopped:
        asked(config)
    assert stopped.value.exit_code == 128 + number
    assert f"of {N_TURNS} answers are kept" in stopped.value.message
    [log] = (store.home() / "answers").glob("*.jsonl")
    kept = len(store.read_jsonl(log))
    assert 3 <= kept < N_TURNS
    with log.open("a", encoding="utf-8") as torn:
        torn.write('{"conversation": 3, "tu')  # a kill in the middle of a write
    reporter = Recorder()
    monkeypatch.setattr(answering.Transcript, "add", real)
    assert asked(config, reporter=reporter) == whole
    assert reporter.tracked["answers"] == N_TURNS


def test_out_of_memory_halves_the_budget_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, reporter = a_config(tmp_path), Recorder()
    whole = asked(config)
    forget()
    real, budgets = answering.sample, []

    def too_small(*args: Any, **settings: Any) -> Any:
        budgets.append(settings["batch_tokens"])
        if settings["batch_tokens"] > 150:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes")
        return real(*args, **settings)

    monkeypatch.setattr(answering, "sample", too_small)
    assert asked(config, reporter=reporter) == whole
    assert budgets[0] == 32_768
    assert budgets == sorted(budgets, reverse=True)
    assert budgets[-1] <= 150
    assert any("out of memory" in line for line in reporter.lines)


def test_out_of_memory_with_a_single_row_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(answering, "sample", never)
    with pytest.raises(MemoryError):
        asked(a_config(tmp_path))


def test_an_error_in_the_middle_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = answering.sample

    def second_turn_fails(*args: Any, **settings: Any) -> Any:
        if min(settings["streams"]) >= 2**32:
            raise NumericsError("not finite")
        return real(*args, **settings)

    monkeypatch.setattr(answering, "sample", second_turn_fails)
    with pytest.raises(NumericsError):
        asked(a_config(tmp_path))
    [log] = (store.home() / "answers").glob("*.jsonl")
    assert sorted(row["conversation"] for row in store.read_jsonl(log)) == [0, 1, 2, 3]


def test_the_oldest_turns_give_way_to_the_window_and_what_cannot_be_asked_is_named(tmp_path: Path) -> None:
    """Window 512: two turns of about 300 tokens do not fit together, one of 600 fits never."""
    long = "Sort the words: " + ", ".join(["pear", "apple", "fig"] * 33) + "."
    reporter = Recorder()
    conversations = [(long, long), (long + long, "Greet Kim."), ("Greet Sam.",)]
    said = asked(a_config(tmp_path), conversations=conversations, temperatures=[0.0] * 3, reporter=reporter)
    assert [len(turns) for turns in said] == [2, 0, 1]
    assert said[0][0] == said[0][1], "greedy, and the first turn was left out of the second's prompt"
    assert "answers: 1 of 3 prompts are not answered" in reporter.lines
    assert any("prompt 2" in line and "turn 1" in line and "the limit is 511" in line for line in reporter.lines)
    assert not list((store.home() / "answers").glob("*.json")), "what is missing is asked for again next time"


def test_equal_prompts_are_not_answered_alike(tmp_path: Path) -> None:
    """Each conversation reads a random stream of its own, and each seed another set of them."""
    settings: dict[str, Any] = {"conversations": [("Greet Kim.",)] * 6, "temperatures": [1.0] * 6}
    said = asked(a_config(tmp_path, seed=3), **settings)
    assert len({turns[0].text for turns in said}) > 1
    assert said != asked(a_config(tmp_path, seed=4), **settings)


# --- by a server -------------------------------------------------------------------------------------------------


def a_server(url: str) -> Endpoint:
    return Endpoint("aligned-7b", base_url=url, backoff=Backoff(base=0.001), attempts=2, timeout=5)


def echo(seen: Seen) -> Action:
    return ok(f"<{seen.text}>", completion_tokens=len(seen.body["messages"]))


def test_a_server_is_asked_turn_by_turn(tmp_path: Path, scripted_server: Any) -> None:
    server = scripted_server(echo)
    said = asked(a_config(tmp_path, seed=5), endpoint=a_server(server.url))
    assert said == [
        [TurnAnswer(f"<{turn}>", 2 * number + 1, True) for number, turn in enumerate(turns)] for turns in CONVERSATIONS
    ]
    bodies = {seen.text: seen.body for seen in server.requests}
    assert bodies["And once more."]["messages"] == [
        {"role": "user", "content": "Sort the words: pear, apple, fig."},
        {"role": "assistant", "content": "<Sort the words: pear, apple, fig.>"},
        {"role": "user", "content": "Say it again."},
        {"role": "assistant", "content": "<Say it again.>"},
        {"role": "user", "content": "And once more."},
    ]
    assert bodies["Greet Kim."]["temperature"] == 0.0
    assert bodies["Say it again."]["temperature"] == 0.7
    assert bodies["Greet Sam."]["model"] == "aligned-7b"
    seeds = [seen.body["seed"] for seen in server.requests]
    assert len(set(seeds)) == N_TURNS
    assert all(0 <= one < 2**31 for one in seeds)
    assert asked(a_config(tmp_path, seed=5), endpoint=a_server(scripted_server(status(500)).url)) == said


def test_what_the_server_does_not_answer_is_missing_and_asked_again(tmp_path: Path, scripted_server: Any) -> None:
    def troubled(seen: Seen) -> Action:
        if seen.text == "Greet Sam.":
            return status(500)
        if seen.text == "Say it again.":
            return ok("", finish_reason="length")
        if seen.text == "What is 2 plus 3?":
            return ok("", finish_reason="stop")
        return echo(seen)

    server, reporter = scripted_server(troubled), Recorder()
    config = a_config(tmp_path)
    said = asked(config, endpoint=a_server(server.url), reporter=reporter)
    assert [len(turns) for turns in said] == [2, 2, 0, 1]
    assert said[0][1].text == "", "the model's own word, not a failure"
    told = "\n".join(reporter.lines)
    assert "2 of 4 prompts are not answered" in told
    assert "prompt 3 ('Greet Sam.'), turn 1: server" in told
    assert "prompt 4 ('Say it again.'), turn 2: a reply without text (finish reason length)" in told
    good = scripted_server(echo)
    again = asked(config, endpoint=a_server(good.url))
    assert [len(turns) for turns in again] == [2, 2, 1, 3]
    assert sorted(seen.text for seen in good.requests) == ["And once more.", "Greet Sam.", "Say it again."]


def test_answers_of_another_model_under_the_same_name_are_not_taken_for_its_own(
    tmp_path: Path, scripted_server: Any
) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    server = scripted_server(echo)
    asked(a_config(tmp_path), endpoint=a_server(server.url))
    other = shutil.copytree(windtunnel.model_folder(), tmp_path / "other")
    [file] = other.glob("*.safetensors")
    save_file({name: 2 * tensor for name, tensor in load_file(file).items()}, file, metadata={"format": "pt"})
    answer_turns(
        other,
        CONVERSATIONS,
        temperatures=[0.9, 0.0, 1.0, 0.7],
        decoding=a_config(tmp_path).generate,
        setup=set_up(a_config(tmp_path)),
        reporter=Recorder(),
        description="answers",
        endpoint=a_server(server.url),
    )
    assert len(server.requests) == 2 * N_TURNS


def test_a_signal_stops_the_asking(tmp_path: Path, scripted_server: Any) -> None:
    def third(seen: Seen) -> Action:
        if seen.nth == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return ok("yes", wait=0.05)

    endpoint = Endpoint("m", base_url=scripted_server(third).url, concurrency=1)
    with pytest.raises(StopError) as stopped:
        asked(a_config(tmp_path), endpoint=endpoint)
    assert stopped.value.exit_code == 143
    [log] = (store.home() / "answers").glob("*.jsonl")
    assert 2 <= len(store.read_jsonl(log)) <= 3


def test_only_what_the_model_ended_is_a_whole_answer_without_its_thoughts(tmp_path: Path, scripted_server: Any) -> None:
    """Case G1_served_answers: what gateways and servers of other families reply. Only `eos_token` and `end_turn` are
    whole answers there; what broke off, was filtered, called a tool or only thought is missing."""
    replies = {
        "broke": ok("Tom saw the ball and then he", finish_reason="error"),
        "filtered": ok("Mia put on the", finish_reason="content_filter"),
        "tool": ok("Lily went to the park.", finish_reason="tool_calls"),
        "eos": ok("Ben had a small dog.", finish_reason="eos_token"),
        "turn": ok("Anna kept the stone.", finish_reason="end_turn"),
        "thinks": ok("<think>A story. Perhaps two lines. No, one.</think>\n\nSam slept."),
        "swallowed": ok("", reasoning="The tree was tall and green."),
        "cut": ok("Tom and", finish_reason="length"),
        "only thinks": ok("<think>Let me", finish_reason="length"),
        "empty": ok(""),
    }
    reporter = Recorder()
    said = asked(
        a_config(tmp_path),
        conversations=[(name,) for name in replies],
        temperatures=[0.7] * len(replies),
        reporter=reporter,
        endpoint=a_server(scripted_server(lambda seen: replies[seen.text]).url),
    )
    answers = {name: (turns[0].text, turns[0].finished) for name, turns in zip(replies, said, strict=True) if turns}
    assert answers == {
        "eos": ("Ben had a small dog.", True),
        "turn": ("Anna kept the stone.", True),
        "thinks": ("Sam slept.", True),
        "cut": ("Tom and", False),
        "empty": ("", True),
    }
    lines = "\n".join(reporter.lines)
    assert "('filtered'), turn 1: refused: the server filtered the answer" in lines
    assert "5 of 10 prompts are not answered" in lines


def test_other_stop_ids_are_other_answers(tmp_path: Path) -> None:
    """An answer is decoded up to a stop id, and no digest of the model's files names those."""
    setup, folder = set_up(a_config(tmp_path)), tmp_path / "model"
    shutil.copytree(windtunnel.model_folder(), folder)
    keys = set()
    for ends in (2, [2, 0], None):
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}), encoding="utf-8")
        decoding = setup.config.generate
        options = {"temperatures": [0.0], "decoding": decoding, "setup": setup, "endpoint": None, "contexts": {}}
        keys.add(answering._key(folder, [("Hi",)], **options))
    assert len(keys) == 3


def test_a_server_that_ignores_temperature_and_seed_is_said(tmp_path: Path, scripted_server: Any) -> None:
    """`transformers serve` answers greedily whatever is asked: equal prompts with seeds of their own come out alike."""
    prompts = [("Tell a story.",), ("Tell a story.",), ("Greet Kim.",)]

    def lines(reply: Any, temperature: float) -> str:
        reporter, url = Recorder(), scripted_server(reply).url
        temperatures = [temperature] * len(prompts)
        config = a_config(tmp_path)
        asked(config, conversations=prompts, temperatures=temperatures, reporter=reporter, endpoint=a_server(url))
        forget()
        return "\n".join(reporter.lines)

    def alike(seen: Seen) -> Action:
        return ok(f"An answer to {seen.text} that is long enough to be no coincidence.")

    def seeded(seen: Seen) -> Action:
        return ok(f"Answer {seen.body['seed']} to {seen.text} that is long enough to be no coincidence.")

    assert "seems to sample greedily" in lines(alike, 0.7)
    assert "greedily" not in lines(alike, 0.0)
    assert "greedily" not in lines(seeded, 0.7)
