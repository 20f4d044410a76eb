"""What goes out and what comes back: frozen values with a JSON form where they are kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trimtab.records import Message


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


@dataclass(frozen=True, slots=True)
class Reply:
    """What the server answered.

    `finish_reason` is the server's word ("stop", "length", "content_filter"); `text` may be empty, as it is for a
    reasoning model that used up `max_tokens` before its answer. `logprobs`: for each token position, token → log-prob
    in nats of the likeliest tokens; None = the server sends none. Tokens are 0 where the server does not count them.
    `seconds` is how long the request that succeeded took.
    """

    text: str
    finish_reason: str
    logprobs: tuple[Mapping[str, float], ...] | None
    prompt_tokens: int
    completion_tokens: int
    model: str
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return {
            "text": self.text,
            "finish_reason": self.finish_reason,
            "logprobs": None if self.logprobs is None else [dict(position) for position in self.logprobs],
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "model": self.model,
            "seconds": self.seconds,
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Reply:
        logprobs = row["logprobs"]
        return cls(
            text=row["text"],
            finish_reason=row["finish_reason"],
            logprobs=None if logprobs is None else tuple(dict(position) for position in logprobs),
            prompt_tokens=row["prompt_tokens"],
            completion_tokens=row["completion_tokens"],
            model=row["model"],
            seconds=row.get("seconds", 0.0),
        )


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that got no reply.

    `kind`: "timeout", "rate limit", "server" (its own error), "connection", "reply" (one that cannot be read),
    "too long" (for the model's context), "refused" (by the server's content policy); judging adds "no verdict".
    """

    kind: str
    message: str
    attempts: int
