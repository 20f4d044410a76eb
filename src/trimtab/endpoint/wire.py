"""Between our values and the JSON of a chat completion, with what servers do differently. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from typing import Any

from trimtab.endpoint.exchange import Reply, Request

RENAMED = {"max_tokens": "max_completion_tokens"}
OPTIONAL = ("max_tokens", "temperature", "top_p", "logprobs", "seed")  # what a model may refuse, and we can do without


class UnreadableError(ValueError):
    """A reply of status 200 that holds no answer."""


def fields(request: Request, *, model: str, without: Collection[str] = ()) -> dict[str, Any]:
    """The body of a request. Parameters in `without` are left out; `max_tokens` goes by its newer name instead."""
    told: dict[str, Any] = {
        "model": model,
        "messages": [{"role": message.role, "content": _sendable(message.content)} for message in request.messages],
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
    }
    if request.top_p != 1:
        told["top_p"] = request.top_p
    if request.seed is not None:
        told["seed"] = request.seed
    if request.top_logprobs is not None and "logprobs" not in without:
        told |= {"logprobs": True, "top_logprobs": request.top_logprobs}
    for name in set(without) & told.keys():
        value = told.pop(name)
        if name in RENAMED:
            told[RENAMED[name]] = value
    return told


def read_reply(content: bytes, *, seconds: float) -> Reply:
    """The first choice of a chat completion. Raises UnreadableError where there is none.

    Text that is null is empty where the server says that it was cut (by the length, by a filter), for the tokens were
    spent; a refusal counts as the text. Null for no reason is unreadable.
    """
    try:
        body = json.loads(content)
    except ValueError as error:
        raise UnreadableError(f"is not JSON ({error}): {_start(content)}") from error
    choices = body.get("choices") if isinstance(body, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise UnreadableError(f"has no choices: {_start(content)}")
    choice = choices[0]
    message = choice.get("message")
    if not isinstance(message, dict):
        raise UnreadableError(f"has no message: {_start(content)}")
    finish_reason = str(choice.get("finish_reason") or "")
    text = message.get("content")
    if text is None:
        text = message.get("refusal") or ("" if finish_reason in {"length", "content_filter"} else None)
    if not isinstance(text, str):
        raise UnreadableError(f"has no text: {_start(content)}")
    usage = body.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    return Reply(
        text=text,
        finish_reason=finish_reason,
        logprobs=_logprobs(choice.get("logprobs")),
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
        model=str(body.get("model") or ""),
        seconds=seconds,
    )


def _logprobs(told: Any) -> tuple[dict[str, float], ...] | None:
    """OpenAI's form, or the older one with `top_logprobs` as a list of objects; None for none."""
    if not isinstance(told, dict):
        return None
    content = told.get("content")
    if isinstance(content, list) and content:
        return tuple(_position(one) for one in content)
    older = told.get("top_logprobs")
    if isinstance(older, list) and older and all(isinstance(one, dict) for one in older):
        return tuple(_merged((token, value) for token, value in one.items()) for one in older)
    return None


def _position(one: Any) -> dict[str, float]:
    if not isinstance(one, dict):
        return {}
    top = one.get("top_logprobs")
    told = [other for other in top if isinstance(other, dict)] if isinstance(top, list) else []
    return _merged((other.get("token"), other.get("logprob")) for other in told or [one])


def _merged(pairs: Any) -> dict[str, float]:
    """Tokens that read the same (other ids, same text) add their probabilities; non-finite ones are left out."""
    merged: dict[str, float] = {}
    for token, value in pairs:
        if not isinstance(token, str) or isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if not math.isfinite(value):
            continue
        merged[token] = _log_of_sum(merged[token], float(value)) if token in merged else float(value)
    return merged


def _log_of_sum(one: float, other: float) -> float:
    larger, smaller = max(one, other), min(one, other)
    return larger + math.log1p(math.exp(smaller - larger))


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _sendable(text: str) -> str:
    """Lone surrogates cannot be said in UTF-8; they go as U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _start(content: bytes) -> str:
    return repr(content[:80].decode("utf-8", "replace"))


def refused_parameter(error: Mapping[str, Any], message: str, *, sent: Collection[str]) -> str | None:
    """Which of the parameters in `sent` this model does not take, where it says so and we can do without it."""
    words = message.lower()
    if error.get("code") not in _REFUSAL_CODES and not any(word in words for word in _REFUSALS):
        return None
    named = str(error.get("param") or "") or next((name for name in OPTIONAL if _names(words, name)), "")
    named = named.removeprefix("top_") if named == "top_logprobs" else named
    return named if named in OPTIONAL and named in sent else None


def _names(words: str, parameter: str) -> bool:
    return bool(re.search(rf"\b(top_)?{parameter}\b", words))


_REFUSAL_CODES = {"unsupported_parameter", "unsupported_value", "unknown_parameter"}
_REFUSALS = (
    "not supported",
    "unsupported",
    "does not support",
    "doesn't support",
    "not allowed",
    "not permitted",
    "unrecognized",
    "unknown",
    "unexpected",
    "deprecated",
    "not available",
)
