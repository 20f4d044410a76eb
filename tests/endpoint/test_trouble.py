"""What a status means."""

from __future__ import annotations

from typing import Any

import pytest

from trimtab.endpoint.trouble import Hopeless, Passing, of_status, shown
from trimtab.errors import EndpointError

URL = "https://judge.example/v1/chat/completions"


def meaning(status: int, message: str = "no", *, headers: dict[str, str] | None = None, **error: Any) -> Exception:
    body = {"error": {"message": message, **error}}
    return of_status(status, headers=headers or {}, body=body, url=URL, model="gpt-x", secret="sk-secret", now=0.0)


@pytest.mark.parametrize(
    ("status", "kind", "overload"),
    [
        (408, "timeout", True),
        (409, "server", False),
        (429, "rate limit", True),
        (500, "server", False),
        (502, "server", False),
        (503, "server", True),
        (529, "server", True),
    ],
)
def test_what_may_pass(status: int, kind: str, overload: bool) -> None:
    told = meaning(status, headers={"retry-after": "4"})
    assert isinstance(told, Passing)
    assert (told.kind, told.overload, told.retry_after) == (kind, overload, 4.0)
    assert str(status) in told.message


@pytest.mark.parametrize(
    ("status", "error", "message", "kind"),
    [
        (400, {"code": "context_length_exceeded"}, "no", "too long"),
        (400, {}, "This model's maximum context length is 4096 tokens. However, you requested 5000", "too long"),
        (400, {"type": "exceed_context_size_error"}, "the request exceeds the available context size", "too long"),
        (400, {}, "'max_tokens' is too large: 100. This model's maximum context length is 64 tokens", "too long"),
        (422, {}, "too many input tokens", "too long"),
        (413, {}, "Payload too large", "too long"),
        (400, {"code": "content_filter"}, "the prompt triggered the policy", "refused"),
    ],
)
def test_what_concerns_one_request_alone(status: int, error: dict[str, str], message: str, kind: str) -> None:
    told = meaning(status, message, **error)
    assert isinstance(told, Hopeless)
    assert told.kind == kind


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (400, "message above"),
        (401, "OPENAI_API_KEY"),
        (403, "gpt-x"),
        (404, "/v1"),
        (405, "message above"),
        (402, "message"),
    ],
)
def test_what_stops_everything(status: int, remedy: str) -> None:
    told = meaning(status, "because of this")
    assert isinstance(told, EndpointError)
    assert URL in told.message
    assert str(status) in told.message
    assert "because of this" in told.message
    assert remedy in told.remedy


def test_no_credit_is_no_rate_limit() -> None:
    told = meaning(429, "You exceeded your current quota", code="insufficient_quota")
    assert isinstance(told, EndpointError)
    assert "credit" in told.remedy


def test_a_redirect_is_named_and_not_followed() -> None:
    told = meaning(307, headers={"location": "https://other.example/v1"})
    assert isinstance(told, EndpointError)
    assert "https://other.example/v1" in told.message
    assert "--base-url" in told.remedy


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("plain words", "plain words"),
        ({"error": "in a string"}, "in a string"),
        ({"message": "at the top"}, "at the top"),
        ({"detail": "FastAPI's way"}, "FastAPI's way"),
        (None, "Not Found"),
        (["a list"], "a list"),
    ],
)
def test_where_servers_put_their_words(body: object, words: str) -> None:
    told = of_status(404, headers={}, body=body, url=URL, model="gpt-x", secret="", now=0.0)
    assert words in str(told)


def test_a_foreign_message_is_one_short_printable_line_without_the_key() -> None:
    told = shown("Incorrect key sk-secret\x1b[31m\n\n given " + "x" * 1000, secret="sk-secret")
    assert told.startswith("Incorrect key …\\x1b[31m given xxx")
    assert len(told) < 320
    assert "\n" not in told
