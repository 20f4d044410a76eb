"""What a status means."""

from __future__ import annotations

from typing import Any

import pytest

from trimtab.endpoint.retry import RequestError
from trimtab.endpoint.server_errors import ServerError, one_line
from trimtab.errors import EndpointError

URL = "https://judge.example/v1/chat/completions"


def meaning_of(error: ServerError, *, retry_after: float | None = None) -> Exception:
    return error.meaning(url=URL, model="gpt-x", secret="sk-secret", retry_after=retry_after)


def meaning(status: int, message: str = "no", **error: Any) -> Exception:
    return meaning_of(ServerError.of(status, {"error": {"message": message, **error}}), retry_after=4.0)


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
    told = meaning(status)
    assert isinstance(told, RequestError)
    assert (told.transient, told.kind, told.overload, told.retry_after) == (True, kind, overload, 4.0)
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
    assert isinstance(told, RequestError)
    assert (told.transient, told.kind) == (False, kind)


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (400, "message above"),
        (401, "OPENAI_API_KEY"),
        (403, "gpt-x"),
        (404, "/v1"),
        (405, "message above"),
        (402, "credit"),
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
    told = meaning_of(ServerError.of(307, None, location="https://other.example/v1"))
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
        ([{"error": {"message": "Gemini's list of one"}}], "Gemini's list of one"),
    ],
)
def test_where_servers_put_their_words(body: object, words: str) -> None:
    assert words in str(meaning_of(ServerError.of(404, body)))


def test_a_foreign_message_is_one_short_printable_line_without_the_key() -> None:
    told = one_line("Incorrect key sk-secret\x1b[31m\n\n given " + "x" * 1000, secret="sk-secret")
    assert told.startswith("Incorrect key …\\x1b[31m given xxx")
    assert len(told) < 320
    assert "\n" not in told


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"error": {"code": 429, "message": "rate limited upstream"}, "user_id": "u"}, 429),
        ({"error": {"code": "429", "message": "slow down"}}, 429),
        ({"error": {"code": 402, "message": "no credit"}, "choices": []}, 402),
        ({"error": {"type": "insufficient_quota", "message": "quota"}}, 402),
        ([{"error": {"status": "RESOURCE_EXHAUSTED", "message": "later"}}], 429),
        ({"error": {"type": "rate_limit_error", "message": "later"}}, 429),
        ({"error": "overloaded"}, 500),
        ({"error": {"code": "context_length_exceeded", "message": "no"}}, 400),
        ({"error": {"type": "authentication_error", "message": "no"}}, 401),
        ({"object": "error", "message": "the model is not loaded", "code": 503}, 503),
        ({"choices": [{"finish_reason": "error", "error": {"code": 502, "message": "Upstream lost"}}]}, 502),
        ({"choices": [{"finish_reason": "error", "message": {"content": "half a"}}]}, 500),
        ({"choices": [{"finish_reason": "stop", "message": {"content": "m"}}], "error": None}, None),
        ({"choices": []}, None),
        ("a page", None),
        (None, None),
    ],
)
def test_an_error_that_comes_with_status_200(body: object, status: int | None) -> None:
    """OpenRouter and Gemini's compatible endpoint send such bodies; see cases J4_error200 and J4d_partial_mark."""
    error = ServerError.inside(body)
    assert (None if error is None else error.status) == status


SENT = {"max_tokens": 1, "temperature": 1.0, "logprobs": True, "top_logprobs": 5, "seed": 1}


@pytest.mark.parametrize(
    ("error", "message", "name"),
    [
        (
            {"code": "unsupported_parameter", "param": "max_tokens"},
            "'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
            "max_tokens",
        ),
        (
            {"code": "unsupported_value", "param": "temperature"},
            "Unsupported value: 'temperature' does not support 0 with this model.",
            "temperature",
        ),
        ({}, "You are not allowed to request logprobs from this model.", "logprobs"),
        ({"param": "top_logprobs"}, "top_logprobs is not supported", "logprobs"),
        ({}, "Unknown field: top_logprobs", "logprobs"),
        ({}, "[{'loc': ['body', 'seed'], 'msg': 'Extra inputs are not permitted'}]", "seed"),
        ({}, "top_p is not supported", None),  # was not sent
        ({"param": "messages"}, "Unsupported value: 'messages' ... temperature", None),
        ({}, "temperature must be between 0 and 2", None),  # our own mistake, not the model's way
        ({}, "'max_completion_tokens' is not supported", None),
        ({}, "unknown model 'seedling'", None),
    ],
)
def test_which_parameter_a_model_refuses(error: dict[str, str], message: str, name: str | None) -> None:
    assert ServerError.of(400, {"error": {"message": message, **error}}).refused_parameter(SENT) == name
