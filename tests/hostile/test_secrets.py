"""A planted token and key reach the server that they are meant for, and no file, page, message or argument."""

from __future__ import annotations

import json
import sqlite3
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hostile_calls import Said, put, say

from scripted_server import Action, Script, ScriptedServer, Seen, ok, status
from trimtab import cli

KEY = "sk-planted-0123456789abcdef"
TOKEN = "hf_plantedABCDEFGHIJKLMNOP"
SECRETS = (KEY, TOKEN)
Servers = Callable[[Script | Sequence[Action] | Action], ScriptedServer]
TINY = ("--windtunnel.pairs", "24", "--train.max-steps", "2", "--train.batch-pairs", "8", "--data.holdout", "0.3")
PROMPTS = [{"instruction": f"Say {n}.", "output": f"{n}", "generator": "published"} for n in range(6)]
COMPARING = "<|im_start|>user\n{instruction}\n[m]{output_1}[/m]\n[M]{output_2}[/M]\nWhich?\n<|im_end|>"

ARGUMENTS: list[str] = []
_EVENTS = {"subprocess.Popen", "os.exec", "os.posix_spawn", "os.system", "webbrowser.open"}


def _listen(event: str, told: tuple[Any, ...]) -> None:
    if event in _EVENTS:
        ARGUMENTS.append(f"{event} {told[0]!r} {told[1]!r}" if len(told) > 1 else f"{event} {told!r}")


sys.addaudithook(_listen)


@pytest.fixture(autouse=True)
def _planted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.setenv(name, TOKEN)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("TRIMTAB_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    ARGUMENTS.clear()
    yield
    assert not [line for line in ARGUMENTS if any(secret in line for secret in SECRETS)], "in a child's arguments"


def nowhere_in(folder: Path, *said: Said) -> int:
    """Assert that no secret is in any file below `folder` (databases row by row too) or in what was said."""
    n = 0
    for path in (path for path in folder.rglob("*") if path.is_file()):
        n += 1
        content = path.read_bytes()
        if content.startswith(b"SQLite format 3"):
            with sqlite3.connect(path) as connection:
                content += "\n".join(connection.iterdump()).encode("utf-8", "replace")
        for secret in SECRETS:
            assert secret.encode() not in content, f"{path} holds {secret[:3]}…"
            assert secret.encode("utf-16-le") not in content, path
        assert not any(secret in str(path) for secret in SECRETS)
    for one in said:
        assert not any(secret in one.text for secret in SECRETS), one.text
    return n


def echoing(seen: Seen) -> Action:
    """What a debugging proxy does: it says the headers back, as text, as the model's name and as an error."""
    told = str(seen.headers["Authorization"])
    assert KEY in told, "the key goes to the server that it is meant for"
    return status(500, f"bad upstream {told}") if seen.attempt == 0 and seen.nth % 2 else ok(f"m {told}", model=told)


def a_benchmark(tmp_path: Path) -> tuple[str, ...]:
    put(tmp_path / "prompts.json", PROMPTS)
    put(tmp_path / "texts" / "alpaca_eval_clf.txt", COMPARING)
    return ("--benchmark", str(tmp_path / "prompts.json"), "--benchmark-dir", str(tmp_path / "texts"))


def test_the_whole_tree_of_a_judged_run(scripted_server: Servers, tmp_path: Path) -> None:
    server = scripted_server(echoing)
    words = (*TINY, *a_benchmark(tmp_path), "--judge", "openai:m", "--base-url", server.url, "--judge.rubric", "chosen",
             "--judge.canaries", "2", "--generate.sampler", "openai", "--generate.served-as", "a",
             "--generate.unaligned-served-as", "b", "--data", "windtunnel", "--model", "windtunnel")  # fmt: skip
    run = say("run", *words, "--out", "run", "--quiet", seconds=240)
    assert server.requests, run.err
    others = [say("report", "run"), say("calibrate", "run"), say("doctor", "--json"), say("plan", "run"), say("keys")]
    assert run.code in (0, 1), run.err
    assert nowhere_in(tmp_path, run, *others) > 20
    assert "the key" not in run.out


@pytest.mark.slow  # two processes that import torch
def test_a_sweep_s_ledger_pages_and_workers(tmp_path: Path) -> None:
    told = say("sweep", *TINY, "--windtunnel.prompts", "8", "--generate.max-new-tokens", "8", "--grid",
               "objective.beta=0.1,0.2", "--workers", "2", "--out", "sweep", "--quiet", seconds=280)  # fmt: skip
    assert told.code == 0, told.err
    assert any("studies.sweep.worker" in line for line in ARGUMENTS), "there were child processes to look at"
    assert nowhere_in(tmp_path, told) > 20


URLS = (
    f"http://user:{KEY}@127.0.0.1:9/v1", f"http://{KEY}@127.0.0.1:9/v1", f"http://127.0.0.1:9/v1?api_key={KEY}",
    f"http://127.0.0.1:9/v1#{KEY}", f"http://[{KEY}/v1", f"https://user:{KEY}@[::1/v1",
)  # fmt: skip


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize(
    ("command", "key"), [("run", "generate.base_url"), ("sweep", "base_url"), ("judge", "base_url")]
)
def test_a_key_in_an_address_is_refused_before_anything_is_written(
    url: str, key: str, command: str, tmp_path: Path
) -> None:
    words = (*a_benchmark(tmp_path), "--judge", "openai:m", "--generate.sampler", "openai", "--generate.served-as", "a",
             "--model", "windtunnel", "--data", "windtunnel", f"--{key}", url, "--out", "run")  # fmt: skip
    grid = ("--grid", "objective.beta=0.1,0.2") if command == "sweep" else ()
    told = say(command, *words, *grid)
    assert told.code == 2, told.text
    assert nowhere_in(tmp_path, told) == 2, "only what the test itself wrote"
    file = put(
        tmp_path / "config.json", {"model": "windtunnel", "data": "windtunnel", key.partition(".")[0]: nested(key, url)}
    )
    assert say("plan", file).code == 2
    assert not any(secret in say("plan", file).text for secret in SECRETS)


def nested(key: str, url: str) -> Any:
    return {"base_url": url, "sampler": "openai", "served_as": "a"} if "." in key else url


@pytest.mark.parametrize("url", URLS)
def test_a_traceback_does_not_show_it_either(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "plan",
        "--debug",
        *a_benchmark(tmp_path),
        "--judge",
        "openai:m",
        "--model",
        "windtunnel",
        "--data",
        "windtunnel",
    ]
    with pytest.raises(Exception, match="base_url") as raised:
        cli.main([*words, "--base-url", url])
    shown = "".join(traceback.format_exception(raised.value)) + repr(raised.value) + "".join(capsys.readouterr())
    assert KEY not in shown


@pytest.mark.parametrize("code", [401, 403, 404, 400])
def test_an_error_that_says_the_key_back(code: int, scripted_server: Servers, tmp_path: Path) -> None:
    server = scripted_server(status(code, f"Incorrect API key provided: {KEY}"))
    answers = [{"instruction": row["instruction"], "output": "x", "generator": "mine"} for row in PROMPTS]
    file = put(tmp_path / "answers.json", answers)
    words = (*a_benchmark(tmp_path), "--judge", "openai:m", "--judge.rubric", "chosen", "--base-url", server.url)
    told = say("judge", file, *words, "--out", "judged", "--quiet", seconds=60)
    assert told.code == 1
    assert nowhere_in(tmp_path, told) >= 3
    assert server.requests


def test_a_token_in_what_the_hub_says(tmp_path: Path) -> None:
    told = [say("plan", "--model", "owner/private", "--data", put(tmp_path / "rows.jsonl", json.dumps({}))),
            say("audit", "owner/private")]  # fmt: skip
    assert [one.code for one in told] == [2, 2]
    nowhere_in(tmp_path, *told)
