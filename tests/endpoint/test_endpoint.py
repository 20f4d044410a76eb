"""The client against a real server on loopback."""

from __future__ import annotations

import asyncio
import gzip
import json
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from scripted_server import (
    Action,
    ScriptedServer,
    Seen,
    empty_choices,
    half_json,
    hang,
    no_message,
    ok,
    preferring,
    prose,
    redirect,
    reset,
    short_body,
    slow,
    status,
    too_many,
)
from trimtab.endpoint import OPENAI_URL, Backoff, Endpoint, Failure, Reply, Request
from trimtab.errors import ConfigError, EndpointError, UserError
from trimtab.records import Message

KEY = "sk-a-key-that-nobody-may-see"
Server = Callable[..., ScriptedServer]


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def endpoint(server: ScriptedServer, **more: Any) -> Endpoint:
    return Endpoint("judge", base_url=server.url, **{"timeout": 5.0, "backoff": Backoff(0.001, 0.01)} | more)


def requests(n: int, **more: Any) -> list[Request]:
    return [Request(str(i), (Message("user", f"question {i}"),), **{"max_tokens": 1} | more) for i in range(n)]


class Heard:
    """What came back."""

    def __init__(self) -> None:
        self.replies: dict[str, Reply] = {}
        self.failures: dict[str, Failure] = {}

    def ask(self, told: Endpoint, asked: list[Request], **more: Any) -> Heard:
        told.ask(asked, on_reply=self._reply, on_failure=self._failure, **more)
        return self

    def _reply(self, request: Request, reply: Reply) -> None:
        assert request.id not in self.replies, "heard twice"
        self.replies[request.id] = reply

    def _failure(self, request: Request, failure: Failure) -> None:
        assert request.id not in self.failures, "heard twice"
        self.failures[request.id] = failure


def test_a_reply(scripted_server: Server) -> None:
    server = scripted_server(preferring(0.8))
    heard = Heard().ask(endpoint(server), requests(1, temperature=1.0, top_logprobs=5))
    reply = heard.replies["0"]
    assert (reply.text, reply.prompt_tokens, reply.completion_tokens, reply.model) == ("m", 100, 1, "judge")
    assert reply.logprobs is not None
    assert set(reply.logprobs[0]) == {"m", "M"}
    assert 0 < reply.seconds < 5
    assert server.requests[0].path == "/v1/chat/completions"
    assert server.requests[0].headers["Authorization"] == f"Bearer {KEY}"
    assert server.requests[0].body == {
        "model": "judge",
        "messages": [{"role": "user", "content": "question 0"}],
        "max_tokens": 1,
        "temperature": 1.0,
        "logprobs": True,
        "top_logprobs": 5,
    }


@pytest.mark.parametrize(
    ("trouble", "kind"),
    [
        (too_many(), "rate limit"),
        (too_many(seconds=0.01), "rate limit"),
        (too_many(ms=5), "rate limit"),
        (status(408), "timeout"),
        (status(409), "server"),
        (status(500), "server"),
        (status(503), "server"),
        (hang(30), "timeout"),
        (reset(), "connection"),
        (short_body(), "connection"),
        (half_json(), "reply"),
        (empty_choices(), "reply"),
        (no_message(), "reply"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_may_pass_is_tried_again_and_in_the_end_named(scripted_server: Server, trouble: Action, kind: str) -> None:
    twice = scripted_server([ok(), trouble, trouble, ok()])
    told = endpoint(twice, timeout=0.3, concurrency=1)
    assert len(Heard().ask(told, requests(2)).replies) == 2
    assert (len(twice.requests), told.retried) == (4, {kind: 2})

    always = scripted_server([ok(), trouble])
    heard = Heard().ask(endpoint(always, timeout=0.3, concurrency=1, attempts=3), requests(2))
    assert list(heard.replies) == ["0"]
    assert (heard.failures["1"].kind, heard.failures["1"].attempts) == (kind, 3)
    assert len(always.requests) == 4


def test_one_that_sends_a_byte_now_and_then_is_late_too(
    scripted_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trimtab.endpoint.client.CONNECT", 0.1)
    server = scripted_server([ok(), Action(body=ok().body, trickles=0.05)])
    heard = Heard().ask(endpoint(server, timeout=0.3, concurrency=1, attempts=1), requests(2))
    assert heard.failures["1"].kind == "timeout"


@pytest.mark.parametrize(
    ("code", "remedy"), [(400, "message above"), (401, "OPENAI_API_KEY"), (403, "judge"), (404, "/v1")]
)
def test_a_refusal_stops_at_once_and_what_is_under_way_is_heard(
    scripted_server: Server, code: int, remedy: str
) -> None:
    def script(seen: Seen) -> Action:
        return status(code, f"bad key {KEY}") if seen.text == "question 10" else slow(0.1)

    server = scripted_server(script)
    heard = Heard()
    with pytest.raises(EndpointError, match=str(code)) as caught:
        heard.ask(endpoint(server, concurrency=4), requests(100))
    assert remedy in caught.value.remedy
    assert f"{server.url}/chat/completions" in str(caught.value)
    assert KEY not in str(caught.value)
    assert len(heard.replies) == len(server.requests) - 1 <= 16
    assert not heard.failures


def test_a_prompt_that_is_too_long_or_unwanted_concerns_it_alone(scripted_server: Server) -> None:
    def script(seen: Seen) -> Action:
        match seen.text:
            case "question 1":
                return status(400, "too long for us", code="context_length_exceeded")
            case "question 2":
                return status(400, "filtered", code="content_filter")
            case _:
                return ok()

    server = scripted_server(script)
    heard = Heard().ask(endpoint(server), requests(4))
    assert {id: (failure.kind, failure.attempts) for id, failure in heard.failures.items()} == {
        "1": ("too long", 1),
        "2": ("refused", 1),
    }
    assert set(heard.replies) == {"0", "3"}


def test_the_key_does_not_travel_with_a_redirect(scripted_server: Server) -> None:
    other = scripted_server(ok())
    server = scripted_server(redirect(other.url + "/chat/completions"))
    with pytest.raises(EndpointError, match="sends on to"):
        Heard().ask(endpoint(server), requests(3))
    assert not other.requests


def test_no_server_there_is_said_soon(scripted_server: Server) -> None:
    server = scripted_server(ok())
    server.stop()
    heard = Heard()
    with pytest.raises(EndpointError, match="no server answers") as caught:
        heard.ask(endpoint(server, attempts=2), requests(500))
    assert "--base-url" in caught.value.remedy
    assert len(heard.failures) <= 8


def test_a_server_that_stops_answering_is_left_alone(scripted_server: Server) -> None:
    server = scripted_server(lambda seen: ok() if seen.nth < 20 else status(500, "out of order"))
    heard = Heard()
    with pytest.raises(EndpointError, match="has stopped answering") as caught:
        heard.ask(endpoint(server, attempts=2, concurrency=4), requests(500))
    assert "out of order" in str(caught.value)
    assert len(heard.replies) == 20
    assert 8 <= len(heard.failures) <= 12


def test_never_more_than_the_bound_and_all_of_it_when_the_server_is_well(scripted_server: Server) -> None:
    server = scripted_server(slow(0.05))
    Heard().ask(endpoint(server, concurrency=5), requests(40))
    assert server.max_concurrency == 5


def test_concurrency_falls_under_overload_and_rises_again(scripted_server: Server) -> None:
    """A server that takes two at a time and sends the others away."""
    server: ScriptedServer
    inside: list[int] = []

    def script(seen: Seen) -> Action:
        inside.append(server.in_flight)
        crowded = seen.nth < 200 and server.in_flight > 2
        return status(429, "two at a time") if crowded else slow(0.02 if seen.nth < 200 else 0.05)

    server = scripted_server(script)
    told = endpoint(server, concurrency=8, attempts=50)
    heard = Heard().ask(told, requests(400))
    assert len(heard.replies) == 400
    assert sum(inside[100:200]) / 100 < 4
    assert max(inside[-100:]) >= 7
    assert max(inside) <= 8
    assert told.limit == 8


@pytest.mark.parametrize("asked", [{"seconds": 1}, {"date_in": 2}, {"ms": 1000}], ids=lambda asked: next(iter(asked)))
def test_a_server_that_asks_for_patience_is_left_alone_by_all(scripted_server: Server, asked: dict[str, float]) -> None:
    server = scripted_server(lambda seen: too_many(**asked) if seen.nth == 10 else slow(0.02))
    Heard().ask(endpoint(server, concurrency=4), requests(40))
    refused = server.requests[10].at
    later = [seen.at - refused for seen in server.requests if seen.nth > 10]
    under_way = [wait for wait in later if wait < 0.9]
    assert len(under_way) <= 3, "nobody sets out within the time that was asked for"
    assert all(wait >= 0.95 for wait in later if wait not in under_way)


def test_longer_patience_than_is_sane_is_a_failure_that_says_so(scripted_server: Server) -> None:
    server = scripted_server(lambda seen: too_many(seconds=3600) if seen.text == "question 1" else ok())
    heard = Heard().ask(endpoint(server), requests(3))
    assert heard.failures["1"].kind == "rate limit"
    assert "3,600 s" in heard.failures["1"].message
    assert len(heard.replies) == 2


def test_stop_starts_nothing_new_and_hears_what_is_under_way(scripted_server: Server) -> None:
    server = scripted_server(slow(0.1))
    heard = Heard()
    heard.ask(endpoint(server, concurrency=4), requests(100), stop=lambda: len(heard.replies) >= 6)
    assert 6 <= len(heard.replies) <= 12
    assert len(server.requests) == len(heard.replies) == server.answered


def test_stop_does_not_wait_for_the_end_of_a_pause(scripted_server: Server) -> None:
    server = scripted_server(too_many(seconds=200))
    started = time.monotonic()
    heard = Heard().ask(endpoint(server), requests(9), stop=lambda: len(server.requests) >= 1)
    assert time.monotonic() - started < 5
    assert not heard.replies
    assert not heard.failures


def test_admit_is_asked_once_a_request_right_before_it_is_sent(scripted_server: Server) -> None:
    server = scripted_server(lambda seen: ok() if seen.attempt else status(500))
    asked: list[tuple[str, int]] = []

    def admit(request: Request) -> bool:
        asked.append((request.id, len(server.requests)))
        return request.id != "5"

    heard = Heard().ask(endpoint(server, concurrency=1), requests(9), admit=admit)
    assert asked == [(str(i), 2 * i) for i in range(6)]
    assert list(heard.replies) == ["0", "1", "2", "3", "4"]


def test_what_a_callback_raises_ends_it(scripted_server: Server) -> None:
    server = scripted_server(slow(0.01))

    def full(_request: Request, _reply: Reply) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        endpoint(server).ask(requests(50), on_reply=full, on_failure=lambda _request, _failure: None)
    assert len(server.requests) <= 16


def test_a_place_is_free_only_when_its_reply_was_heard(scripted_server: Server) -> None:
    """So that a killed process loses at most `concurrency` replies."""
    server = scripted_server(ok())
    heard: list[str] = []
    ahead: list[int] = []

    def on_reply(request: Request, _reply: Reply) -> None:
        time.sleep(0.002)
        ahead.append(len(server.requests) - len(heard))
        heard.append(request.id)

    endpoint(server, concurrency=3).ask(requests(60), on_reply=on_reply, on_failure=lambda _request, _failure: None)
    assert len(heard) == 60
    assert max(ahead) <= 3


def test_a_reasoning_model_gets_what_it_takes(scripted_server: Server) -> None:
    def script(seen: Seen) -> Action:
        if "max_tokens" in seen.body:
            return status(
                400, "'max_tokens' is not supported with this model.", param="max_tokens", code="unsupported_parameter"
            )
        if "temperature" in seen.body:
            return status(400, "'temperature' does not support 0.0 with this model.", param="temperature")
        if "logprobs" in seen.body:
            return status(403, "You are not allowed to request logprobs from this model.")
        return ok("m")

    server = scripted_server(script)
    told = endpoint(server, concurrency=4)
    heard = Heard().ask(told, requests(20, top_logprobs=5))
    assert len(heard.replies) == 20
    assert server.requests[-1].body.keys() == {"model", "messages", "max_completion_tokens"}
    assert [note.split(":")[0] for note in told.notes] == [
        "judge does not take max_tokens",
        "judge does not take temperature",
        "judge does not take logprobs",
    ]
    assert len(server.requests) <= 20 + 3 * 4
    Heard().ask(told, requests(1))
    assert len(server.requests) <= 21 + 3 * 4, "what was learned stays with the endpoint"


def test_a_server_that_does_not_count_tokens_is_noted_once(scripted_server: Server) -> None:
    told = endpoint(scripted_server(ok(usage=False)))
    assert Heard().ask(told, requests(3)).replies["0"].prompt_tokens == 0
    assert len(told.notes) == 1
    assert "the cost is unknown" in told.notes[0]


def test_prose_and_empty_text_are_replies(scripted_server: Server) -> None:
    server = scripted_server([prose("Well …"), ok(None, finish_reason="length"), ok("")])
    heard = Heard().ask(endpoint(server, concurrency=1), requests(3))
    assert [heard.replies[id].text for id in "012"] == ["Well …", "", ""]
    assert heard.replies["1"].finish_reason == "length"


def test_no_key_for_openai_is_said_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    told = Endpoint("gpt-x")
    assert told.base_url == OPENAI_URL
    with pytest.raises(UserError, match="OPENAI_API_KEY is not set") as caught:
        Heard().ask(told, requests(1))
    assert "--base-url" in caught.value.remedy
    with pytest.raises(UserError):
        told.check()


def test_another_server_needs_no_key(scripted_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    server = scripted_server(ok())
    Heard().ask(endpoint(server), requests(1))
    assert server.requests[0].headers["Authorization"] == "Bearer none"


@pytest.mark.parametrize("key", ["two words", "línea", "a\nb"])
def test_a_key_that_cannot_be_one(key: str) -> None:
    with pytest.raises(UserError, match="characters that no key has") as caught:
        Endpoint("gpt-x", api_key=key).check()
    assert key not in str(caught.value)


def test_the_base_url_comes_from_the_environment_when_it_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1/")
    assert Endpoint("gpt-x").base_url == "http://127.0.0.1:9/v1"
    assert Endpoint("gpt-x", base_url="http://127.0.0.1:8/v1").base_url == "http://127.0.0.1:8/v1"


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8000", "ftp://x/v1", "http://", "http://[::1", "http://x:port/v1", "file:///etc/passwd"]
)
def test_what_is_no_base_url(url: str) -> None:
    with pytest.raises(ConfigError, match="no base URL"):
        Endpoint("gpt-x", base_url=url)


@pytest.mark.parametrize("url", ["https://me:sk-x@host/v1", "https://host/v1?key=sk-x", "https://host/v1#sk-x"])
def test_secrets_do_not_belong_in_a_base_url(url: str) -> None:
    with pytest.raises(ConfigError, match="password") as caught:
        Endpoint("gpt-x", base_url=url)
    assert "sk-x" not in str(caught.value)


def test_the_key_is_shown_nowhere(scripted_server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    told = endpoint(scripted_server([status(500, f"your key {KEY} is fine, we are not"), ok(), ok()]), concurrency=1)
    heard = Heard().ask(told, requests(2))
    assert KEY not in repr(told) + repr(vars(told)) + repr(heard.replies) + caplog.text
    assert repr(told) == f"Endpoint('judge', base_url='{told.base_url}')"


def test_a_key_that_travels_unencrypted_is_noted() -> None:
    told = Endpoint("gpt-x", base_url="http://far.example/v1")
    told.check()
    assert told.notes == ["the key goes to far.example unencrypted (http)"]
    near = Endpoint("gpt-x", base_url="http://127.0.0.1:1/v1")
    near.check()
    assert not near.notes


def test_importing_it_costs_no_client_library() -> None:
    code = (
        "import sys, trimtab.endpoint, trimtab.cli; print({'openai', 'tenacity', 'httpx2', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def big(n_bytes: int, *, code: int = 200) -> Action:
    return Action(code=code, body=json.dumps({"error": {"message": "x" * n_bytes}}).encode())


@pytest.mark.parametrize("code", [200, 500, 401])
def test_a_reply_is_read_up_to_a_bound(scripted_server: Server, code: int) -> None:
    """Whatever its status, an error's body too; the request is tried again."""
    server = scripted_server([ok(), big(20_000, code=code), ok()])
    told = endpoint(server, concurrency=1, most_bytes=10_000)
    assert len(Heard().ask(told, requests(2)).replies) == 2
    assert told.retried == {"reply": 1}


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_packed_reply_is_unpacked_up_to_the_same_bound(scripted_server: Server, encoding: str) -> None:
    pack = gzip.compress if encoding == "gzip" else zlib.compress
    header = {"Content-Encoding": encoding}
    small = Action(body=pack(json.dumps({**ok("M").body, "model": "x"}).encode()), headers=header)
    bomb = Action(body=pack(b" " * 3_000_000), headers=header)
    assert len(bomb.body) < 10_000, "small as it travels"
    server = scripted_server([small, bomb, small])
    told = endpoint(server, concurrency=1, most_bytes=10_000)
    assert [reply.text for reply in Heard().ask(told, requests(2)).replies.values()] == ["M", "M"]
    assert told.retried == {"reply": 1}


@pytest.mark.parametrize(
    "headers", [{"Content-Encoding": "gzip, gzip"}, {"Content-Encoding": "br"}, {"Content-Encoding": "gzip"}]
)
def test_what_cannot_be_unpacked_is_a_failed_request(scripted_server: Server, headers: dict[str, str]) -> None:
    server = scripted_server([ok(), Action(body=b"no archive", headers=headers), ok()])
    told = endpoint(server, concurrency=1)
    assert len(Heard().ask(told, requests(2)).replies) == 2
    assert told.retried == {"reply": 1}


@pytest.mark.parametrize(
    "odd", [b"<html>log in to the guest network</html>", b"[" * 50_000, b'{"a":' * 50_000, b"data: {}\n\n"]
)
def test_a_reply_of_another_type_costs_one_attempt(scripted_server: Server, odd: bytes) -> None:
    server = scripted_server([ok(), Action(body=odd), ok()])
    told = endpoint(server, concurrency=1)
    assert len(Heard().ask(told, requests(3)).replies) == 3
    assert told.retried == {"reply": 1}


def test_an_error_with_status_200_is_the_error_that_it_carries(scripted_server: Server) -> None:
    """Case J4_error200: retried as a rate limit; in the end none is missing. No credit stops everything at once."""
    limited = Action(body={"error": {"code": 429, "message": "Provider returned error"}, "user_id": "u"})
    told = endpoint(scripted_server([ok(), limited, ok()]), concurrency=1)
    assert len(Heard().ask(told, requests(2)).replies) == 2
    assert told.retried == {"rate limit": 1}

    server = scripted_server(Action(body={"error": {"code": 402, "message": "Insufficient credits"}}))
    with pytest.raises(EndpointError, match="402 Payment Required: Insufficient credits") as caught:
        Heard().ask(endpoint(server, concurrency=2), requests(50))
    assert "credit" in caught.value.remedy
    assert len(server.requests) <= 4


def test_a_reply_that_broke_off_is_tried_again(scripted_server: Server) -> None:
    """Case J4d_partial_mark: finish reason "error", with half a text that holds the mark of an example."""
    half = ok("The format is [[rating]], e.g. [[5]]. The answer is", finish_reason="error")
    told = endpoint(scripted_server([half, ok("[[8]]")]), concurrency=1)
    assert Heard().ask(told, requests(1)).replies["0"].text == "[[8]]"
    assert told.retried == {"server": 1}


def test_callbacks_run_in_the_callers_thread_beside_a_running_loop(scripted_server: Server) -> None:
    """As in a notebook, whose cells run within a loop."""
    server, threads = scripted_server(ok()), set()

    async def cell() -> None:
        endpoint(server).ask(
            requests(9),
            on_reply=lambda _request, _reply: threads.add(threading.current_thread()),
            on_failure=lambda _request, _failure: None,
            stop=lambda: threads.add(threading.current_thread()) is not None,
        )

    asyncio.run(cell())
    assert threads == {threading.current_thread()}


def test_an_interrupt_cancels_what_is_under_way(scripted_server: Server) -> None:
    server = scripted_server(lambda seen: ok() if seen.nth == 0 else hang())

    def interrupted(_request: Request, _reply: Reply) -> None:
        raise KeyboardInterrupt

    before = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        endpoint(server, timeout=60).ask(requests(9), on_reply=interrupted, on_failure=lambda _request, _failure: None)
    assert time.monotonic() - before < 10
    assert "trimtab-endpoint" not in {thread.name for thread in threading.enumerate()}
