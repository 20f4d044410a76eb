"""How long to wait before asking again. Everything that tests must hold still is a field: clock, sleep and chance."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from random import Random


@dataclass(frozen=True, slots=True)
class Waiting:
    """Exponential backoff with full jitter: after n attempts, uniform in [0, min(cap, base · 2^(n−1))] seconds.

    (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.) A server's Retry-After is the least;
    one above `longest` seconds is not waited for.
    """

    base: float = 0.5
    cap: float = 30.0
    longest: float = 300.0
    chance: Random = field(default_factory=Random)
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    clock: Callable[[], float] = time.monotonic
    now: Callable[[], float] = time.time

    def before_next(self, attempts: int, *, at_least: float | None) -> float:
        """Seconds to wait after `attempts` failed ones."""
        ceiling = min(self.cap, self.base * 2.0 ** min(attempts - 1, 60))
        return max(self.chance.uniform(0.0, ceiling), at_least or 0.0)


def retry_after(headers: Mapping[str, str], *, now: float) -> float | None:
    """Seconds that a server asks to wait: `retry-after-ms`, else Retry-After as seconds or as an HTTP date (RFC 9110).

    `now` is the wall clock. None where it says nothing, or nothing that can be read; never negative. `headers` must
    find names in any case.
    """
    thousandths = _number(headers.get("retry-after-ms"))
    if thousandths is not None:
        return max(0.0, thousandths / 1000)
    told = headers.get("retry-after")
    seconds = _number(told)
    if seconds is None and told is not None:
        seconds = _until(told, now=now)
    return None if seconds is None else max(0.0, seconds)


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _until(date: str, *, now: float) -> float | None:
    try:
        when = parsedate_to_datetime(date)
    except ValueError:
        return None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() - now
