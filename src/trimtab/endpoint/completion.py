"""What goes out and what comes back, as frozen values and as the JSON of a chat completion. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from trimtab.endpoint.retry import RequestError
from trimtab.endpoint.thoughts import without_thoughts
from trimtab.records import Message

Ending = Literal["whole", "cut", "refused", "tool call", "unknown"]

NEWER_NAMES = {"max_tokens": "max_completion_tokens"}
_THOUGHT_FIELDS = ("reasoning_content", "reasoning", "reasoning_details", "thinking")  # of a message
_MOST_TOKENS = 2**40  # a count above is a mistake, and more than SQLite's integers hold
_ENDINGS: Mapping[Ending, frozenset[str]] = {  # OpenAI's words, and those of other servers for the same
    "whole": frozenset({"stop", "eos", "eos_token", "end_turn", "stop_sequence", "end", "complete", "completed"}),
    "cut": frozenset({"length", "max_tokens", "max_output_tokens", "max_length", "model_length", "incomplete"}),
    "refused": frozenset({"content_filter", "refusal", "safety", "recitation", "prohibited_content", "sensitive"}),
    "tool call": frozenset({"tool_calls", "tool_call", "tool_use", "function_call"}),
}
BREAK_REASONS = frozenset({"error", "network_error", "abort", "aborted", "cancelled", "insufficient_system_resource"})


@dataclass(frozen=True, slots=True)
class Request:
    """One conversation to be continued. `id` is the caller's name for it and is not sent.

    `temperature` 0 is greedy; `top_p` 1 and `seed` None are left to the server. `top_logprobs` asks for the log-probs
    of so many alternatives at every position.
    """

    id: str
    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_logprobs: int | None = None
    seed: int | None = None

    @property
    def n_characters(self) -> int:
        return sum(len(message.content) for message in self.messages)

    def to_json(self, *, model: str, without: Collection[str] = ()) -> dict[str, Any]:
        """The body. Parameters in `without` are left out; `max_tokens` goes by its newer name instead."""
        body: dict[str, Any] = {
            "model": model,
            "messages": [{"role": message.role, "content": _sendable(message.content)} for message in self.messages],
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
        }
        if self.top_p != 1:
            body["top_p"] = self.top_p
        if self.seed is not None:
            body["seed"] = self.seed
        if self.top_logprobs is not None and "logprobs" not in without:
            body |= {"logprobs": True, "top_logprobs": self.top_logprobs}
        for name in set(without) & body.keys():
            value = body.pop(name)
            if name in NEWER_NAMES:
                body[NEWER_NAMES[name]] = value
        return body


@dataclass(frozen=True, slots=True)
class Reply:
    """What the server answered.

    `text` is the message's content, thoughts included where the server leaves them there; `finish_reason` the server's
    word. `logprobs`: for each token position, token → log-prob in nats of the likeliest tokens; `tokens` what was
    sampled there; None = the server sends none. Tokens are counted 0 where the server does not count. `refusal` is
    what it says instead of an answer; `has_thoughts`: it also sent reasoning apart from the text. `seconds` is how long
    the request that succeeded took.
    """

    text: str
    finish_reason: str
    logprobs: tuple[Mapping[str, float], ...] | None
    prompt_tokens: int
    completion_tokens: int
    model: str
    seconds: float = 0.0
    tokens: tuple[str, ...] | None = None
    refusal: str = ""
    has_thoughts: bool = False

    @property
    def answer(self) -> str:
        """The text without thoughts."""
        return without_thoughts(self.text)

    @property
    def ending(self) -> Ending:
        """Why the reply ends where it does."""
        if self.refusal:
            return "refused"
        word = self.finish_reason.strip().lower()
        return next((ending for ending, words in _ENDINGS.items() if word in words), "unknown")

    @property
    def counts_tokens(self) -> bool:
        """Whether the server said how many tokens it used."""
        return bool(self.prompt_tokens or self.completion_tokens)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Reply:
        logprobs, tokens = row["logprobs"], row.get("tokens")
        positions = None if logprobs is None else tuple(dict(position) for position in logprobs)
        return cls(**{**row, "logprobs": positions, "tokens": None if tokens is None else tuple(tokens)})


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that got no reply.

    `kind`: "timeout", "rate limit", "server" (its own error), "connection", "reply" (one that cannot be read),
    "too long" (for the model's context), "refused" (by the model, or by the server's content policy); judging adds
    "no verdict" and "cut prompt".
    """

    kind: str
    message: str
    attempts: int


def read_json(content: bytes) -> Any:
    """Any JSON. Raises RequestError for what is none: a proxy's page, half a body, one nested a thousandfold."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _unreadable("is nested too deeply" if isinstance(error, RecursionError) else "is not JSON") from error


def read_reply(body: Any, *, seconds: float) -> Reply:
    """The first choice of a chat completion. Raises RequestError where there is none.

    A message without text is a reply where something else is there (thoughts, a refusal, a tool call) or the server
    says that it was cut; null for no reason is unreadable.
    """
    choice = first_choice(body)
    message = choice.get("message")
    if not isinstance(message, dict):
        raise _unreadable("has no message")
    finish_reason, refusal = _text(choice.get("finish_reason")), _text(message.get("refusal"))
    has_thoughts = any(message.get(name) for name in _THOUGHT_FIELDS)
    tool = bool(message.get("tool_calls") or message.get("function_call"))
    text, part_refusal, part_has_thoughts = _content(message.get("content"))
    reply = Reply(
        text=text or "",
        finish_reason="tool_calls" if tool and text is None else finish_reason,
        logprobs=None,
        prompt_tokens=_count(body, "prompt_tokens"),
        completion_tokens=_count(body, "completion_tokens"),
        model=_text(body.get("model")),
        seconds=seconds,
        refusal=refusal or part_refusal,
        has_thoughts=has_thoughts or part_has_thoughts,
    )
    if text is None and not reply.has_thoughts and reply.ending not in {"cut", "refused", "tool call"}:
        raise _unreadable("has no text")
    return _with_logprobs(reply, choice.get("logprobs"))


def first_choice(body: Any) -> Mapping[str, Any]:
    """The choice of index 0, wherever it stands. Raises RequestError."""
    choices = body.get("choices") if isinstance(body, dict) else None
    rows = [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []
    if not rows:
        raise _unreadable("has no choices")
    return next((choice for choice in rows if choice.get("index") == 0), rows[0])


def _content(content: Any) -> tuple[str | None, str, bool]:
    """Text, refusal, and whether there are thoughts: of a text, or of a list of parts."""
    if content is None or isinstance(content, str):
        return content, "", False
    parts = [content] if isinstance(content, dict) else content
    if not isinstance(parts, list):
        return None, "", False
    texts, refusal, has_thoughts = [], "", False
    for part in parts:
        row = part if isinstance(part, dict) else {"text": part}
        kind = _text(row.get("type", "text"))
        if kind in {"text", "output_text"}:
            texts.append(_text(row.get("text")))
        elif kind == "refusal":
            refusal = _text(row.get("refusal"))
        else:
            has_thoughts = True  # "thinking", "reasoning", "redacted_thinking"; or nothing that can be read
    return ("".join(texts) if texts else None), refusal, has_thoughts


def _with_logprobs(reply: Reply, logprobs: Any) -> Reply:
    """OpenAI's form, or the older one with `top_logprobs` as a list of objects; None for none."""
    row = logprobs if isinstance(logprobs, dict) else {}
    entries, older = _objects(row.get("content")), _objects(row.get("top_logprobs"))
    if entries:
        positions, names = tuple(_position(entry) for entry in entries), [entry.get("token") for entry in entries]
    elif older:
        positions, names = tuple(_by_token(entry.items()) for entry in older), row.get("tokens") or []
    else:
        return reply
    tokens = tuple(name for name in names if isinstance(name, str))
    return replace(reply, logprobs=positions, tokens=tokens if len(tokens) == len(positions) else None)


def _objects(rows: Any) -> list[dict[str, Any]]:
    """One object a row, empty where it is none."""
    return [row if isinstance(row, dict) else {} for row in rows] if isinstance(rows, list) else []


def _position(entry: dict[str, Any]) -> dict[str, float]:
    alternatives = _objects(entry.get("top_logprobs")) or [entry]
    return _by_token((row.get("token"), row.get("logprob")) for row in alternatives)


def _by_token(pairs: Iterable[tuple[Any, Any]]) -> dict[str, float]:
    """Tokens that read the same (other ids, same text) add their probabilities; non-finite ones are left out."""
    log_probs: dict[str, float] = {}
    for token, value in pairs:
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if isinstance(token, str) and number:
            log_probs[token] = _log_of_sum([log_probs[token], float(value)]) if token in log_probs else float(value)
    return log_probs


def _log_of_sum(values: Sequence[float]) -> float:
    top = max(values)
    return top + math.log(math.fsum(math.exp(value - top) for value in values))


def _count(body: Mapping[str, Any], name: str) -> int:
    usage = body.get("usage")
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if type(value) is int and 0 < value < _MOST_TOKENS else 0


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _sendable(text: str) -> str:
    """Lone surrogates cannot be said in UTF-8; they go as U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _unreadable(reason: str) -> RequestError:
    return RequestError("reply", f"the reply {reason}")
