"""What an error of the client library means: it may pass, this request is hopeless, or all of them are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from trimtab.endpoint.waiting import retry_after
from trimtab.errors import EndpointError
from trimtab.progress import printable

SHOWN = 300  # characters of a server's message


class Passing(Exception):  # noqa: N818  # named for what it is
    """May pass. `overload`: a sign that too much is asked at once. `retry_after` in seconds, as the server asks."""

    def __init__(self, kind: str, message: str, *, overload: bool = False, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.kind, self.message, self.overload, self.retry_after = kind, message, overload, retry_after


class Hopeless(Exception):  # noqa: N818  # named for what it is
    """This request will never be answered; others may."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind, self.message = kind, message


def shown(text: str, *, secret: str = "") -> str:
    """A foreign message on one line: printable, shortened, and without the key."""
    if secret:
        text = text.replace(secret, "…")
    text = " ".join(text.split())
    return printable(text if len(text) <= SHOWN else text[: SHOWN - 1] + "…")


def of_status(
    status: int, *, headers: Mapping[str, str], body: object, url: str, model: str, secret: str, now: float
) -> Exception:
    """What a status other than 2xx means: Passing, Hopeless or EndpointError. `body`: the JSON, or text, that came."""
    error = error_of(body)
    message = shown(message_of(body), secret=secret)
    says = f"{status} {_phrase(status)}".rstrip() + (f": {message}" if message else "")
    if status == 429 and error.get("code") == "insufficient_quota":
        return EndpointError(f"{url} answered {says}", remedy="add credit to the account, or use another key")
    if status in {408, 409, 429} or status >= 500:
        kind = {408: "timeout", 429: "rate limit"}.get(status, "server")
        wait = retry_after(headers, now=now)
        return Passing(kind, says, overload=status in {408, 429, 503, 529}, retry_after=wait)
    if status == 413 or (status in {400, 422} and _too_long(error, message)):
        return Hopeless("too long", says)
    if status == 400 and error.get("code") in {"content_filter", "content_policy_violation", "invalid_prompt"}:
        return Hopeless("refused", says)
    if 300 <= status < 400:
        to = shown(headers.get("location", "another place"))
        return EndpointError(
            f"{url} sends on to {to}",
            remedy="redirects are not followed, for the key would go there too: give that address as --base-url",
        )
    return EndpointError(f"{url} answered {says}", remedy=_remedy(status, model))


def error_of(body: object) -> Mapping[str, Any]:
    """The error object, which servers put under "error" or at the top."""
    if not isinstance(body, Mapping):
        return {}
    inner = body.get("error")
    return inner if isinstance(inner, Mapping) else body


def message_of(body: object) -> str:
    """The words for people, wherever this server puts them."""
    if not isinstance(body, Mapping):
        return str(body or "")
    inner = body.get("error")
    if isinstance(inner, str):
        return inner
    error = error_of(body)
    return str(error.get("message") or error.get("detail") or "")


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _too_long(error: Mapping[str, Any], message: str) -> bool:
    named = str(error.get("code") or ""), str(error.get("type") or "")
    return "context_length_exceeded" in named or "exceed_context_size_error" in named or bool(_LONG.search(message))


_LONG = re.compile(
    r"context (length|window|size)|maximum model length|max_model_len"
    r"|(prompt|input|request|message)s? (is|are) too long|too many (input )?tokens|reduce the length",
    re.IGNORECASE,
)


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
