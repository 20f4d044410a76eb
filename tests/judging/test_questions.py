"""Many questions: none lost, none paid for twice, no score invented, within a budget. Against a real server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from scripted_server import (
    Action,
    ScriptedServer,
    Seen,
    always,
    mishaps,
    ok,
    preferring,
    prose,
    slow,
    status,
)
from trimtab import store
from trimtab.endpoint import OPENAI_URL, Backoff, Endpoint, Reply, Request
from trimtab.errors import ConfigError, EndpointError, RunError
from trimtab.judging.prices import LIST_PRICES, Prices, prices_for
from trimtab.judging.questions import Outcome, Question, ask_all, estimate
from trimtab.judging.verdict_cache import VerdictCache, question_key
from trimtab.progress import PlainReporter
from trimtab.records import Message

Server = Callable[..., ScriptedServer]
JUDGE = "gpt-x (chosen)"


def endpoint(server: ScriptedServer, **more: Any) -> Endpoint:
    backoff = Backoff(base=0.001, cap=0.01)
    return Endpoint("gpt-x", base_url=server.url, **{"timeout": 5.0, "backoff": backoff} | more)


def letter(reply: Reply) -> float | None:
    return {"m": 1.0, "M": 2.0}.get(reply.text)


def questions(n: int, *, parse: Callable[[Reply], float | None] = letter, **more: Any) -> list[Question]:
    settings = {"max_tokens": 1, "temperature": 1.0} | more
    return [Question(f"p{i}", Request("", (Message("user", f"question {i}"),), **settings), parse) for i in range(n)]


@contextmanager
def cache(folder: Path) -> Iterator[VerdictCache]:
    with store.database(folder / "verdicts.sqlite") as connection:
        yield VerdictCache(connection)


def ask(folder: Path, server: ScriptedServer, asked: Sequence[Question], **more: Any) -> Outcome:
    with cache(folder) as kept:
        given = {"endpoint": endpoint(server), "judge": JUDGE} | more
        return ask_all(asked, cache=kept, **given)


def kept_rows(folder: Path, table: str) -> int:
    with store.database(folder / "verdicts.sqlite") as connection:
        return int(connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0])  # noqa: S608  # our own name


def by_content(seen: Seen) -> Action:
    """The truth: even questions are m, odd ones M."""
    number = int(seen.text.split()[1])
    return preferring(0.9 if number % 2 == 0 else 0.1)


def weigh(reply: Reply) -> float | None:
    assert reply.logprobs is not None
    return 1.0 if reply.logprobs[0]["m"] > reply.logprobs[0]["M"] else 2.0


def test_805_of_805_through_every_mishap_none_lost_none_twice(scripted_server: Server, tmp_path: Path) -> None:
    def truth(seen: Seen) -> Action:
        number = int(seen.text.split()[1])
        return prose() if number % 100 == 7 and seen.attempt == 0 else by_content(seen)

    def read(reply: Reply) -> float | None:
        return None if reply.logprobs is None else weigh(reply)

    server = scripted_server(mishaps(truth, every=14, retry_after=0.02))
    asked = questions(805, parse=read, top_logprobs=2)
    told = endpoint(server, timeout=3.0)  # long enough for a busy machine: a reply that came too late is paid twice
    outcome = ask(tmp_path, server, asked, endpoint=told)
    assert outcome.values == {f"p{i}": 1.0 + i % 2 for i in range(805)}
    assert not outcome.failures
    assert set(told.retried) == {"rate limit", "server", "timeout", "connection", "reply"}, "every kind was met"
    assert (outcome.n_asked, outcome.n_cached) == (805, 0)
    assert outcome.n_calls == 805 + 8 == server.answered, "8 were prose at first; nothing else was answered twice"
    assert (kept_rows(tmp_path, "verdicts"), kept_rows(tmp_path, "failures")) == (805, 0)
    assert server.max_concurrency <= 8 + told.retried["timeout"], "those given up on are still with the server"

    before = len(server.requests)
    again = ask(tmp_path, server, asked)
    assert len(server.requests) == before, "a second run asks nothing"
    assert (again.values, again.replies) == (outcome.values, outcome.replies)
    assert (again.n_cached, again.n_asked, again.n_calls, again.prompt_tokens) == (805, 0, 0, 0)


CHILD = """
import sys
from pathlib import Path
from trimtab import store
from trimtab.endpoint import Endpoint, Request
from trimtab.judging.questions import Question, ask_all
from trimtab.judging.verdict_cache import VerdictCache
from trimtab.records import Message

asked = [
    Question(f"p{i}", Request("", (Message("user", f"question {i}"),), 1, 1.0), lambda reply: 1.0)
    for i in range(400)
]
with store.database(Path(sys.argv[2])) as connection:
    told = Endpoint("gpt-x", base_url=sys.argv[1], concurrency=6)
    ask_all(asked, endpoint=told, cache=VerdictCache(connection), judge="j")
"""


def test_a_kill_pays_again_for_no_more_than_what_was_under_way(tmp_path: Path) -> None:
    """Both sides are processes of their own; the client is killed in the middle, three times."""
    server_file = Path(__file__).parents[1] / "scripted_server.py"
    log = tmp_path / "seen.jsonl"
    words = [sys.executable, str(server_file), "--delay", "0.01", "--log", str(log)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        try:
            client = [sys.executable, "-c", CHILD, url, str(tmp_path / "verdicts.sqlite")]
            for killed in range(3):
                with subprocess.Popen(client) as child:
                    _wait_for_lines(log, 80 * (killed + 1))
                    os.kill(child.pid, signal.SIGKILL)
                assert _n_lines(log) < 400, "killed in the middle"
            subprocess.run(client, check=True)
        finally:
            server.terminate()
    came = Counter(json.dumps(json.loads(line)["body"]) for line in log.read_text().splitlines())
    assert len(came) == 400
    assert kept_rows(tmp_path, "verdicts") == 400
    assert came.total() - 400 <= 3 * 6


def _n_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _wait_for_lines(path: Path, n: int) -> None:
    end = time.monotonic() + 60
    while _n_lines(path) < n:
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.005)


def test_a_refusal_keeps_what_was_answered(scripted_server: Server, tmp_path: Path) -> None:
    server = scripted_server(lambda seen: status(401, "no such key") if seen.nth >= 20 else ok())
    with pytest.raises(EndpointError, match="no such key"):
        ask(tmp_path, server, questions(100), endpoint=endpoint(server, concurrency=4))
    assert kept_rows(tmp_path, "verdicts") == 20
    assert kept_rows(tmp_path, "failures") == 0
    assert len(server.requests) <= 24

    server.script = always(ok())
    assert ask(tmp_path, server, questions(100)).n_cached == 20


def test_prose_is_never_a_score_and_is_asked_again_a_little(scripted_server: Server, tmp_path: Path) -> None:
    server = scripted_server(
        lambda seen: prose("As an AI, I\x1b[31m find " + "both " * 99) if seen.text == "question 1" else ok()
    )
    outcome = ask(tmp_path, server, questions(3))
    assert outcome.values == {"p0": 1.0, "p2": 1.0}
    failure = outcome.failures["p1"]
    assert (failure.kind, failure.attempts) == ("no verdict", 3)
    assert "As an AI, I\\x1b[31m find both both" in failure.message
    assert len(failure.message) < 250
    assert (outcome.n_asked, outcome.n_calls, outcome.n_failed) == (3, 5, 1)
    assert kept_rows(tmp_path, "failures") == 1

    server.script = always(ok())
    later = ask(tmp_path, server, questions(3))
    assert later.values == {"p0": 1.0, "p1": 1.0, "p2": 1.0}
    assert (later.n_cached, later.n_asked) == (2, 1)
    assert kept_rows(tmp_path, "failures") == 0, "a verdict takes the place of the failure"


def test_a_judge_that_gives_no_verdicts_at_all_is_not_paid_805_times(scripted_server: Server, tmp_path: Path) -> None:
    server = scripted_server(prose("I would rather not choose."))
    with pytest.raises(RunError, match=r"gives no verdicts.*rather not choose") as caught:
        ask(tmp_path, server, questions(805))
    assert "judge.rubric" in caught.value.remedy
    assert 20 <= len(server.requests) <= 28
    assert (kept_rows(tmp_path, "verdicts"), kept_rows(tmp_path, "failures")) == (0, len(server.requests))

    server.script = lambda seen: prose() if seen.text != "question 0" else ok()
    mixed = ask(tmp_path, server, questions(30), endpoint=endpoint(server, concurrency=1))
    assert (mixed.values, mixed.n_failed) == ({"p0": 1.0}, 29)


@pytest.mark.parametrize(("temperature", "calls"), [(0.0, 2), (1.0, 3)])
def test_a_greedy_judge_is_asked_once_more_and_another_twice(
    scripted_server: Server, tmp_path: Path, temperature: float, calls: int
) -> None:
    server = scripted_server(prose())
    outcome = ask(tmp_path, server, questions(1, temperature=temperature))
    assert (outcome.n_calls, len(server.requests)) == (calls, calls)
    assert list(outcome.failures) == ["p0"]


def test_a_second_try_that_can_be_read_is_a_verdict(scripted_server: Server, tmp_path: Path) -> None:
    server = scripted_server(lambda seen: ok("M") if seen.attempt else prose())
    outcome = ask(tmp_path, server, questions(5))
    assert outcome.values == {f"p{i}": 2.0 for i in range(5)}
    assert (outcome.n_asked, outcome.n_calls, outcome.n_failed) == (5, 10, 0)
    assert (outcome.prompt_tokens, outcome.completion_tokens) == (1000, 5 * 12 + 5)


@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
def test_a_value_that_is_no_number_is_no_verdict(scripted_server: Server, tmp_path: Path, odd: float) -> None:
    outcome = ask(tmp_path, scripted_server(ok()), questions(1, parse=lambda _reply: odd))
    assert not outcome.values
    assert outcome.failures["p0"].kind == "no verdict"


def test_an_empty_reply_says_why(scripted_server: Server, tmp_path: Path) -> None:
    outcome = ask(tmp_path, scripted_server(ok(None, finish_reason="length")), questions(1))
    assert outcome.failures["p0"].message == "the reply is empty (finish reason length)"


def test_failures_stay_apart_and_are_asked_again_by_the_next_run(scripted_server: Server, tmp_path: Path) -> None:
    server = scripted_server(lambda seen: status(500, "out") if seen.text == "question 3" else ok())
    first = ask(tmp_path, server, questions(6), endpoint=endpoint(server, attempts=2))
    assert (len(first.values), first.failures["p3"].kind, first.n_failed) == (5, "server", 1)
    with cache(tmp_path) as kept:
        key = question_key(judge="gpt-x", base_url=server.url, request=questions(6)[3].request)
        assert kept.failures([key])[key].attempts == 2

    server.script = always(ok())
    second = ask(tmp_path, server, questions(6))
    assert (second.n_cached, second.n_asked, second.n_failed) == (5, 1, 0)
    assert kept_rows(tmp_path, "failures") == 0


def test_the_same_question_is_asked_once(scripted_server: Server, tmp_path: Path) -> None:
    server = scripted_server(ok())
    request = questions(1)[0].request
    outcome = ask(tmp_path, server, [Question(name, request, letter) for name in ("a", "b", "c")])
    assert outcome.values == {"a": 1.0, "b": 1.0, "c": 1.0}
    assert (len(server.requests), outcome.n_asked, outcome.n_calls) == (1, 3, 1)
    assert ask(tmp_path, server, [Question("d", request, letter)]).n_cached == 1


def test_a_reply_that_is_kept_is_read_anew(scripted_server: Server, tmp_path: Path) -> None:
    server = scripted_server(ok())
    ask(tmp_path, server, questions(2))
    better = ask(tmp_path, server, questions(2, parse=lambda _reply: 1.75))
    assert (better.values, better.n_cached) == ({"p0": 1.75, "p1": 1.75}, 2)
    stricter = ask(tmp_path, server, questions(2, parse=lambda reply: None if reply.seconds < 1e9 else 1.0))
    assert (stricter.values, stricter.n_cached, stricter.n_failed) == ({}, 0, 2)


def test_what_a_reader_raises_stops_everything(scripted_server: Server, tmp_path: Path) -> None:
    def read(reply: Reply) -> float:
        raise LookupError(f"{reply.model} sends no log-probs")

    server = scripted_server(slow(0.05))
    with pytest.raises(LookupError, match="gpt-x sends no log-probs"):
        ask(tmp_path, server, questions(100, parse=read), endpoint=endpoint(server, concurrency=4))
    assert len(server.requests) <= 8
    assert kept_rows(tmp_path, "verdicts") == 0


def test_stop_keeps_what_is_there(scripted_server: Server, tmp_path: Path) -> None:
    server = scripted_server(slow(0.02))
    outcome = ask(tmp_path, server, questions(200), stop=lambda: len(server.requests) >= 30)
    assert outcome.stop_reason == "asked to"
    assert 30 <= len(outcome.values) == len(server.requests) == kept_rows(tmp_path, "verdicts") <= 45
    rest = ask(tmp_path, server, questions(200))
    assert (rest.stop_reason, rest.n_cached, len(rest.values)) == ("", len(outcome.values), 200)


PRICES = Prices(input=10.0, output=30.0)
EACH = (100 * 10 + 1 * 30) / 1e6  # what the scripted server counts for a reply, in US dollars


def test_the_cost_is_by_the_servers_figures(scripted_server: Server, tmp_path: Path) -> None:
    outcome = ask(tmp_path, scripted_server(ok()), questions(10), prices=PRICES)
    assert outcome.cost == pytest.approx(10 * EACH)
    assert ask(tmp_path, scripted_server(ok()), questions(1)).cost is None


@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_budget_is_never_passed_and_nearly_used(scripted_server: Server, tmp_path: Path, concurrency: int) -> None:
    server = scripted_server(slow(0.005))
    told = endpoint(server, concurrency=concurrency)
    outcome = ask(tmp_path, server, questions(100), endpoint=told, prices=PRICES, max_cost=20.5 * EACH)
    assert outcome.stop_reason == "max cost"
    assert len(outcome.values) == len(server.requests) == 20
    assert outcome.cost == pytest.approx(20 * EACH)
    more = ask(tmp_path, server, questions(100), prices=PRICES, max_cost=1.0)
    assert (more.stop_reason, more.n_cached, len(more.values)) == ("", 20, 100)


def test_long_replies_do_not_end_it_before_the_money_is_spent(scripted_server: Server, tmp_path: Path) -> None:
    """A reply may cost 2,048 tokens and costs 10: what was set aside for it is free again when it has come."""
    server = scripted_server(slow(0.005, ok("m", completion_tokens=10)))
    at_most = PRICES.cost(100, 2048)
    each = PRICES.cost(100, 10)
    outcome = ask(tmp_path, server, questions(100, max_tokens=2048), prices=PRICES, max_cost=at_most + 30.5 * each)
    assert outcome.stop_reason == "max cost"
    assert 29 <= len(outcome.values) <= 32
    assert outcome.cost is not None
    assert outcome.cost <= at_most + 30.5 * each


def test_a_server_that_does_not_count_is_billed_by_the_estimate(scripted_server: Server, tmp_path: Path) -> None:
    server = scripted_server(ok(usage=False))
    asked = questions(50)
    with cache(tmp_path) as kept:
        whole = estimate(asked, endpoint=endpoint(server), cache=kept, judge=JUDGE, prices=PRICES)
    assert whole.cost_usd is not None
    outcome = ask(tmp_path, server, asked, prices=PRICES, max_cost=whole.cost_usd / 2)
    assert outcome.stop_reason == "max cost"
    assert 20 <= len(outcome.values) <= 25


def test_no_money_asks_nothing(scripted_server: Server, tmp_path: Path) -> None:
    server = scripted_server(ok())
    outcome = ask(tmp_path, server, questions(3), prices=PRICES, max_cost=0.0)
    assert (outcome.stop_reason, server.requests) == ("max cost", [])
    assert ask(tmp_path, server, questions(3), prices=Prices(0, 0), max_cost=0.0).stop_reason == ""


def test_a_budget_without_prices_cannot_be_held(scripted_server: Server, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="max_cost") as caught:
        ask(tmp_path, scripted_server(ok()), questions(1), max_cost=5.0)
    assert "input_price" in caught.value.remedy


def test_an_estimate_by_hand(scripted_server: Server, tmp_path: Path) -> None:
    server = scripted_server(ok())
    asked = questions(10, max_tokens=8)
    ask(tmp_path, server, asked[:4])
    with cache(tmp_path) as kept:
        kept.put("x", judge=JUDGE, subject="p", value=1.0, seconds=2.0)
        mean = kept.mean_seconds(JUDGE)
        told = estimate(
            asked,
            endpoint=endpoint(server, concurrency=4),
            cache=kept,
            judge=JUDGE,
            prices=PRICES,
            tokens_of=lambda text: len(text.split()),
        )
        bare = estimate(asked, endpoint=endpoint(server), cache=kept, judge="never asked")
    assert (told.n_calls, told.n_cached) == (6, 4)
    assert (told.prompt_tokens, told.completion_tokens_at_most) == (6 * (2 + 4), 6 * 8)
    assert told.cost_usd == pytest.approx((36 * 10 + 48 * 30) / 1e6)
    assert mean is not None
    assert told.seconds == pytest.approx(2 * mean)  # 6 calls, 4 at a time
    assert bare.prompt_tokens == 6 * (10 / 4 + 4) == 39  # "question 4" has ten characters
    assert (bare.cost_usd, bare.seconds) == (None, None)
    assert len(server.requests) == 4, "an estimate asks nothing"


def test_progress_is_shown_with_what_failed_and_what_it_cost(scripted_server: Server, tmp_path: Path) -> None:
    import io

    server = scripted_server(lambda seen: prose() if seen.text == "question 3" else ok())
    ask(tmp_path, server, questions(2))
    lines = io.StringIO()
    ask(tmp_path, server, questions(6), prices=PRICES, reporter=PlainReporter(lines))
    first, last = lines.getvalue().splitlines()
    assert first == "asking gpt-x (chosen): 2 of 6 verdicts"
    assert "6 of 6 verdicts" in last
    assert "failed 1" in last
    assert "USD 0.00" in last


def test_nothing_to_ask_needs_no_server(tmp_path: Path) -> None:
    with cache(tmp_path) as kept:
        told = Endpoint("gpt-x", base_url="http://127.0.0.1:9/v1")
        assert ask_all([], endpoint=told, cache=kept, judge=JUDGE) == Outcome()


def test_prices_are_told_or_known_for_openai_alone() -> None:
    assert prices_for("gpt-4.1", base_url=OPENAI_URL + "/") == LIST_PRICES["gpt-4.1"]
    assert prices_for("gpt-4.1", base_url="http://127.0.0.1:8000/v1") is None
    assert prices_for("no-such-model", base_url=OPENAI_URL) is None
    assert prices_for("gpt-4.1", base_url=OPENAI_URL, input_price=0, output_price=1) == Prices(0, 1)
    assert Prices(10, 30).cost(1_000_000, 500_000) == 25.0
    with pytest.raises(ConfigError, match=r"judge\.output_price is missing"):
        prices_for("gpt-4.1", base_url=OPENAI_URL, input_price=1)
    with pytest.raises(ConfigError, match="below 0"):
        prices_for("gpt-4.1", base_url=OPENAI_URL, input_price=-1, output_price=1)
