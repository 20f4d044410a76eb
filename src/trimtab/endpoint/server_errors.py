"""What a server's error means: it may pass, it concerns this request alone, or it stops everything."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from trimtab.endpoint.completion import BREAK_REASONS, NEWER_NAMES
from trimtab.endpoint.retry import RequestError
from trimtab.errors import EndpointError
from trimtab.progress import printable

LONGEST_MESSAGE = 300  # characters of a server's message that are shown
OPTIONAL = ("max_tokens", "temperature", "top_p", "logprobs", "seed")  # what a model may refuse, and we can do without
_NO_CREDIT = re.compile(r"insufficient_quota|insufficient.(credit|balance|fund)|billing", re.IGNORECASE)
_RATE_LIMIT = re.compile(r"rate.?limit|too many requests|resource.?exhausted|throttl", re.IGNORECASE)
_TOO_LONG = re.compile(
    r"context_length_exceeded|exceed_context_size_error|context (length|window|size)|maximum model length|max_model_len"
    r"|(prompt|input|request|message)s? (is|are) too long|too many (input )?tokens|reduce the length",
    re.IGNORECASE,
)
_POLICY = re.compile(r"content_filter|content_policy_violation|invalid_prompt|\bmoderation", re.IGNORECASE)
_NOT_TAKEN = re.compile(
    r"unsupported_(parameter|value)|unknown_parameter|(not|n't) (be )?(support(ed)?|allowed|permitted|available)"
    r"|unsupported|unrecognized|unknown|unexpected|deprecated",
    re.IGNORECASE,
)
_NO_KEY = re.compile(r"invalid_api_key|authentication|unauthorized", re.IGNORECASE)
_STATUS_BY_WORDS = ((_NO_CREDIT, 402), (_RATE_LIMIT, 429), (_TOO_LONG, 400), (_POLICY, 400), (_NO_KEY, 401))


@dataclass(frozen=True, slots=True)
class ServerError:
    """An error as the server tells it: `code` holds its machine words, `param` the parameter it is about."""

    status: int
    message: str
    code: str = ""
    param: str = ""
    location: str = ""

    @classmethod
    def of(cls, status: int, body: Any, *, location: str = "") -> ServerError:
        """Out of the JSON, or text, of an error response."""
        error = _error_object(body)
        if error is None:
            return cls(status, "" if body is None else str(body)[:1000], location=location)
        message = error.get("message") or error.get("detail") or ""
        code = " ".join(str(error.get(name) or "") for name in ("code", "type", "status"))
        return cls(status, str(message), code.strip(), str(error.get("param") or ""), location)

    @classmethod
    def inside(cls, body: Any) -> ServerError | None:
        """The error that a reply of status 200 carries, as gateways send it; None for none."""
        error = _error_object(body, in_reply=True) or _choice_error(body)
        return None if error is None else cls.of(_status_of(error), {"error": error})

    def meaning(self, *, url: str, model: str, secret: str, retry_after: float | None) -> Exception:
        """A RequestError, or the EndpointError that stops everything."""
        message = one_line(self.message, secret=secret)
        reason = f"{self.status} {_phrase(self.status)}".rstrip() + (f": {message}" if message else "")
        status, words = self.status, f"{self.code} {self.message}"
        if status == 402 or (status == 429 and "insufficient_quota" in self.code):
            remedy = "add credit to the account, or use another key (see the message above)"
            return EndpointError(f"{url} answered {reason}", remedy=remedy)
        if status in {408, 409, 429} or status >= 500:
            kind, overload = {408: "timeout", 429: "rate limit"}.get(status, "server"), status in {408, 429, 503, 529}
            return RequestError(kind, reason, overload=overload, retry_after=retry_after)
        if status == 413 or (status in {400, 422} and _TOO_LONG.search(words)):
            return RequestError("too long", reason, transient=False)
        if status in {400, 403} and _POLICY.search(self.code):
            return RequestError("refused", reason, transient=False)
        if 300 <= status < 400:
            return EndpointError(
                f"{url} sends on to {one_line(self.location or 'another place')}",
                remedy="redirects are not followed, for the key would go there too: give that address as --base-url",
            )
        return EndpointError(f"{url} answered {reason}", remedy=_remedy(status, model))

    def refused_parameter(self, parameters: Collection[str]) -> str | None:
        """Which of the parameters in `sent` this model does not take, where it says so and we can do without it."""
        if self.status not in {400, 403, 422} or not _NOT_TAKEN.search(f"{self.code} {self.message}"):
            return None
        words = self.message.lower()
        names = (name for name in OPTIONAL if re.search(rf"\b(top_)?{name}\b", words))
        name = self.param or next(names, "")
        name = "logprobs" if name == "top_logprobs" else name
        return name if name in OPTIONAL and name in parameters else None

    def note(self, name: str, *, model: str, secret: str) -> str:
        """What is done without the parameter, for people."""
        instead = f"sent as {NEWER_NAMES[name]}" if name in NEWER_NAMES else "left out"
        return f"{model} does not take {name}: {instead} ({one_line(self.message, secret=secret)})"


def one_line(text: str, *, secret: str = "") -> str:
    """A foreign message on one line: printable, shortened, and without the key."""
    text = " ".join((text.replace(secret, "…") if secret else text).split())
    return printable(text if len(text) <= LONGEST_MESSAGE else text[: LONGEST_MESSAGE - 1] + "…")


def _error_object(body: Any, *, in_reply: bool = False) -> Mapping[str, Any] | None:
    """The error object, which servers put under "error", at the top, or into a list of one.

    `wrapped`: a bare object counts only where it calls itself an error.
    """
    if isinstance(body, list) and body:
        body = body[0]
    if not isinstance(body, dict):
        return None
    inner = body.get("error")
    if inner:
        return inner if isinstance(inner, dict) else {"message": inner}
    return body if not in_reply or body.get("object") == "error" or body.get("type") == "error" else None


def _choice_error(body: Any) -> Mapping[str, Any] | None:
    """The error of a reply that began and broke off."""
    choices = body.get("choices") if isinstance(body, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    if choice.get("error"):
        return _error_object(choice)
    broke_off = str(choice.get("finish_reason")).lower() in BREAK_REASONS
    return {"message": "the server broke off its reply"} if broke_off else None


def _status_of(error: Mapping[str, Any]) -> int:
    """The HTTP status that it names as a number, else that its words amount to; 500 where nothing is known."""
    values = [str(error.get(name)) for name in ("code", "status", "status_code")]
    words = f"{values} {error.get('type')} {error.get('message')}"
    by_words = next((status for pattern, status in _STATUS_BY_WORDS if pattern.search(words)), 500)
    return next((int(value) for value in values if re.fullmatch(r"[45]\d\d", value)), by_words)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _remedy(status: int, model: str) -> str:
    match status:
        case 401:
            return "set OPENAI_API_KEY to a key for this server"
        case 403:
            return f"use a key that may use {model}, or another model"
        case 404:
            return f"check the model's name ({model}) and the base URL, which usually ends in /v1"
        case _:
            return "the server does not take this request: check the model's name, the base URL and the message above"
