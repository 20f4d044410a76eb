"""How many requests may be under way at once: up to a bound, fewer while the server is overloaded.

Additive increase, multiplicative decrease (as TCP does it): every round of good replies adds one, an overload halves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


class Closed(Exception):  # noqa: N818  # no error: it unwinds what will not be asked
    """Nothing new is to be started."""


class Gate:
    """Lets requests in. Belongs to one event loop and one thread.

    `limit` is how many may be inside, at least 1 and at most `bound`; each `enter` is followed by one `leave`.
    """

    def __init__(
        self,
        bound: int,
        *,
        limit: float,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self.bound, self.limit = bound, max(1.0, min(float(bound), limit))
        self.active = 0
        self._clock, self._sleep = clock, sleep
        self._held_until = float("-inf")
        self._tickets = 0
        self._cut_at = 0  # requests with an earlier ticket were sent before the last cut and say nothing new
        self._moved = asyncio.Event()
        self._closed = asyncio.Event()

    async def enter(self) -> int:
        """Wait for room, and for the end of what the server asked to wait. Returns a ticket. Raises Closed."""
        while not self._closed.is_set():
            if (left := self._held_until - self._clock()) > 0:
                await self.pause(left)
            elif self.active < int(self.limit):
                self.active += 1
                self._tickets += 1
                return self._tickets
            else:
                self._moved.clear()
                await self._moved.wait()
        raise Closed

    def leave(self) -> None:
        self.active -= 1
        self._moved.set()

    def went_well(self, ticket: int) -> None:
        if ticket > self._cut_at:
            self.limit = min(float(self.bound), self.limit + 1 / self.limit)
            self._moved.set()

    def overloaded(self, ticket: int) -> None:
        """Halve the limit, once for all requests that were under way together."""
        if ticket > self._cut_at:
            self.limit = max(1.0, self.limit / 2)
            self._cut_at = self._tickets

    def hold(self, seconds: float) -> None:
        """Let nobody in for so long."""
        self._held_until = max(self._held_until, self._clock() + seconds)

    async def pause(self, seconds: float) -> None:
        """Sleep outside. Raises Closed as soon as the gate is closed."""
        sleeping, closing = asyncio.ensure_future(self._sleep(seconds)), asyncio.ensure_future(self._closed.wait())
        try:
            await asyncio.wait((sleeping, closing), return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeping.cancel()
            closing.cancel()
        if self._closed.is_set():
            raise Closed

    def close(self) -> None:
        """From now on nobody enters; those inside finish."""
        self._closed.set()
        self._moved.set()

    @property
    def closed(self) -> bool:
        return self._closed.is_set()
