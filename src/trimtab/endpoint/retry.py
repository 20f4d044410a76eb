"""When a request is sent again: tenacity's full jitter, and never sooner than the server asks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tenacity import AsyncRetrying, RetryCallState


class RequestError(Exception):
    """A request without a reply. Where it is `transient`, the same request may be answered later.

    `kind` is `Failure.kind`. `overload`: a sign that too much is asked at once. `retry_after`: seconds that the server
    asks to wait. `attempts`: how often it was sent.
    """

    def __init__(
        self,
        kind: str,
        message: str,
        *,
        transient: bool = True,
        overload: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.kind, self.message, self.transient, self.overload = kind, message, transient, overload
        self.retry_after, self.attempts = retry_after, 1


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff with full jitter: after n attempts, uniform in [0, min(cap, base · 2^(n−1))] seconds.

    (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.) A server's Retry-After is the least;
    one above `longest` seconds is not waited for.
    """

    base: float = 0.5
    cap: float = 30.0
    longest: float = 300.0

    def retrier(self, attempts: int, *, sleep: Callable[[float], Awaitable[None]]) -> AsyncRetrying:
        """Calls a coroutine function until it raises no transient RequestError, at most `attempts` times."""
        from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

        jitter = wait_random_exponential(multiplier=self.base, max=self.cap)

        def seconds(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            minimum = error.retry_after if isinstance(error, RequestError) else None
            return max(jitter(state), minimum or 0.0)

        transient = retry_if_exception(lambda error: isinstance(error, RequestError) and error.transient)
        stop = stop_after_attempt(attempts)
        return AsyncRetrying(stop=stop, wait=seconds, retry=transient, sleep=sleep, reraise=True)


def retry_after(headers: Mapping[str, str], *, now: float) -> float | None:
    """Seconds that a server asks to wait: `retry-after-ms`, else Retry-After as seconds or as an HTTP date (RFC 9110).

    `now` is the wall clock. None where it says nothing, or nothing that can be read; never negative. `headers` must
    find names in any case.
    """
    milliseconds, value = _number(headers.get("retry-after-ms")), headers.get("retry-after")
    if milliseconds is not None:
        return max(0.0, milliseconds / 1000)
    seconds = _number(value)
    if seconds is None and value is not None:
        try:
            date = parsedate_to_datetime(value)
        except ValueError:
            return None
        seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now
    return None if seconds is None else max(0.0, seconds)


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if isfinite(number) else None
