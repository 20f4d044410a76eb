"""The verdict cache: one transaction a verdict, kept by what was asked."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab import store
from trimtab.endpoint import Request
from trimtab.errors import StoreError
from trimtab.judging.verdict_cache import SCHEMA, VerdictCache, question_key, verdict_cache_path
from trimtab.records import Message

ASKED = Request("id", (Message("system", "judge"), Message("user", "which?")), 1, 1.0, 1.0, 5, None)


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[VerdictCache]:
    with store.database(tmp_path / "verdicts.sqlite") as connection:
        yield VerdictCache(connection, now=lambda: 1_800_000_000.0)


def put(kept: VerdictCache, key: str, value: float = 1.5) -> None:
    kept.put(
        key, judge="gpt-x", subject=f"prompt {key}", value=value, reply={"text": "m"}, prompt_tokens=7, seconds=0.5
    )


def fail(kept: VerdictCache, key: str) -> None:
    kept.fail(key, judge="gpt-x", subject=f"prompt {key}", kind="no verdict", message="prose", attempts=2)


def test_what_is_put_is_got(kept: VerdictCache) -> None:
    put(kept, "a", 1.25)
    (verdict,) = kept.get(["a", "b", "a"]).values()
    assert (verdict.key, verdict.judge, verdict.subject, verdict.value) == ("a", "gpt-x", "prompt a", 1.25)
    assert (verdict.reply, verdict.prompt_tokens, verdict.completion_tokens) == ({"text": "m"}, 7, 0)
    assert (verdict.seconds, verdict.created) == (0.5, 1_800_000_000.0)


def test_a_person_gives_no_reply(kept: VerdictCache) -> None:
    kept.put("a", judge="human:ann", subject="p", value=2)
    assert kept.get(["a"])["a"].reply is None
    assert kept.get(["a"])["a"].value == 2.0


def test_a_verdict_takes_the_place_of_a_failure_and_not_the_other_way_round(kept: VerdictCache) -> None:
    fail(kept, "a")
    assert (kept.failures(["a"])["a"].kind, kept.failures(["a"])["a"].attempts) == ("no verdict", 2)
    put(kept, "a")
    assert not kept.failures(["a"])
    fail(kept, "a")
    assert not kept.failures(["a"])
    assert kept.get(["a"])


def test_the_last_verdict_and_the_last_failure_stay(kept: VerdictCache) -> None:
    put(kept, "a", 1.0)
    put(kept, "a", 2.0)
    assert kept.get(["a"])["a"].value == 2.0
    fail(kept, "b")
    kept.fail("b", judge="gpt-x", subject="p", kind="timeout", message="", attempts=6)
    assert kept.failures(["b"])["b"].kind == "timeout"


def test_a_verdict_can_be_taken_back(kept: VerdictCache) -> None:
    put(kept, "a")
    fail(kept, "b")
    for key in "abc":
        kept.forget(key)
    assert not kept.get("abc")
    assert not kept.failures("abc")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_verdict_is_no_value(kept: VerdictCache, value: float) -> None:
    with pytest.raises(AssertionError, match="no verdict is a failure"):
        kept.put("a", judge="gpt-x", subject="p", value=value)
    assert not kept.get("a")


def test_ten_thousand_keys_at_once(kept: VerdictCache) -> None:
    for number in range(0, 10_000, 100):
        put(kept, f"key {number}", number)
    got = kept.get(f"key {number}" for number in range(10_000))
    assert {key: verdict.value for key, verdict in got.items()} == {f"key {n}": n for n in range(0, 10_000, 100)}
    assert kept.get([]) == {}


@given(text=st.text(), other=st.text())
@settings(max_examples=25, deadline=None)
def test_any_text_is_kept(tmp_path_factory: pytest.TempPathFactory, text: str, other: str) -> None:
    text += "\ud800"  # a lone surrogate, which SQLite's text cannot hold
    with store.database(tmp_path_factory.mktemp("any") / "verdicts.sqlite") as connection:
        kept = VerdictCache(connection)
        kept.put("a", judge=other, subject=text, value=1.0, reply={"text": text})
        assert kept.get(["a"])["a"].reply == {"text": text}
        kept.fail("b", judge=other, subject=text, kind="k", message=text, attempts=1)
        assert kept.failures(["b"])["b"].message == text.encode("utf-8", "backslashreplace").decode()


def test_how_long_a_judge_takes(kept: VerdictCache) -> None:
    assert kept.mean_seconds("gpt-x") is None
    for key, seconds in (("a", 1.0), ("b", 2.0), ("c", 0.0)):
        kept.put(key, judge="gpt-x", subject="p", value=1.0, seconds=seconds)
    kept.put("d", judge="another", subject="p", value=1.0, seconds=9.0)
    assert kept.mean_seconds("gpt-x") == 1.5


def test_it_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    for _ in range(2):
        with store.database(tmp_path / "verdicts.sqlite") as connection:
            kept = VerdictCache(connection)
            put(kept, "a")
            assert len(kept.get("a")) == 1


def test_two_may_hold_it_at_once(tmp_path: Path) -> None:
    with store.database(tmp_path / "v.sqlite") as one, store.database(tmp_path / "v.sqlite") as other:
        here, there = VerdictCache(one), VerdictCache(other)
        put(here, "a", 1.0)
        put(there, "b", 2.0)
        assert {key: verdict.value for key, verdict in here.get("ab").items()} == {"a": 1.0, "b": 2.0}


def test_a_newer_schema_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.sqlite"
    with store.database(path) as connection:
        VerdictCache(connection)
        connection.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    with store.database(path) as connection, pytest.raises(StoreError, match="newer trimtab") as caught:
        VerdictCache(connection)
    assert str(path) in str(caught.value)
    assert f"schema {SCHEMA + 1}" in str(caught.value)


def test_another_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    with store.database(path) as connection:
        connection.execute("CREATE TABLE songs (name TEXT)")
    with store.database(path) as connection, pytest.raises(StoreError, match="no verdict cache"):
        VerdictCache(connection)


def test_a_damaged_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.sqlite"
    path.write_bytes(b"this is no database" * 100)
    with pytest.raises(StoreError, match=r"verdicts\.sqlite is damaged"), store.database(path) as connection:
        VerdictCache(connection)


def test_half_a_transaction_leaves_nothing(kept: VerdictCache) -> None:
    fail(kept, "a")
    kept._connection.execute("CREATE TRIGGER stops BEFORE DELETE ON failures BEGIN SELECT RAISE(ABORT, 'full'); END")
    with pytest.raises(sqlite3.IntegrityError, match="full"):
        put(kept, "a")
    assert not kept.get("a")
    assert kept.failures("a")


def test_what_put_has_returned_from_survives_a_kill(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from trimtab import store
from trimtab.judging.verdict_cache import VerdictCache
with store.database(Path(sys.argv[1])) as connection:
    kept = VerdictCache(connection)
    for number in range(10_000):
        kept.put(str(number), judge="j", subject="p", value=1.0)
        print(number, flush=True)
"""
    path = tmp_path / "verdicts.sqlite"
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        told = [int(child.stdout.readline()) for _ in range(20)]
        os.kill(child.pid, signal.SIGKILL)
        told += [int(line) for line in child.stdout if line.endswith("\n")]
    with store.database(path) as connection:
        there = VerdictCache(connection).get(str(number) for number in range(10_000))
    assert len(told) <= len(there) <= len(told) + 1
    assert {str(number) for number in told} <= there.keys()


def test_the_key_holds_what_decides_the_reply_and_nothing_else() -> None:
    key = question_key(judge="gpt-x", base_url="http://h/v1", request=ASKED)
    assert len(key) == 64
    assert question_key(judge="gpt-x", base_url="http://h/v1/", request=replace(ASKED, id="another")) == key
    changed = [
        replace(ASKED, messages=(Message("user", "judge"), Message("user", "which?"))),
        replace(ASKED, messages=(Message("system", "judge"), Message("user", "which one?"))),
        replace(ASKED, messages=ASKED.messages[:1]),
        replace(ASKED, max_tokens=2),
        replace(ASKED, temperature=0.0),
        replace(ASKED, top_p=0.9),
        replace(ASKED, top_logprobs=None),
        replace(ASKED, seed=0),
    ]
    keys = {question_key(judge="gpt-x", base_url="http://h/v1", request=request) for request in changed}
    keys |= {question_key(judge="gpt-y", base_url="http://h/v1", request=ASKED)}
    keys |= {question_key(judge="gpt-x", base_url="http://h/v2", request=ASKED), key}
    assert len(keys) == len(changed) + 3


def test_it_lies_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_HOME", str(tmp_path))
    assert verdict_cache_path() == tmp_path / "verdicts.sqlite"
