"""How many requests may be under way at once: up to a bound, fewer while the server is overloaded."""

from __future__ import annotations

import asyncio
from contextlib import suppress


class ClosedError(Exception):
    """Nothing new is to be started."""


class AdaptiveLimit:
    """A semaphore whose size follows the server; it belongs to one event loop.

    Additive increase, multiplicative decrease (as TCP does it): every round of good replies adds one, an overload
    halves. `size` is between 1 and `most_requests`; each `enter` is followed by one `leave`.
    """

    def __init__(self, most_requests: int, *, size: float) -> None:
        self.most_requests, self.size = most_requests, max(1.0, min(float(most_requests), size))
        self._n_inside = 0
        self._held_until = self._halved_at = 0.0  # of the loop's clock
        self._room, self._closed = asyncio.Event(), asyncio.Event()

    async def enter(self) -> float:
        """Wait for room, and for as long as the server asked. Returns the time of entry. Raises ClosedError."""
        clock = asyncio.get_running_loop().time
        while True:
            await self.pause(self._held_until - clock())
            if self._n_inside < int(self.size):
                self._n_inside += 1
                return clock()
            self._room.clear()
            await self._room.wait()

    def leave(self) -> None:
        self._n_inside -= 1
        self._room.set()

    def grow(self, entry_time: float) -> None:
        """After a good reply; those that were sent before the last cut say nothing new."""
        if entry_time > self._halved_at:
            self.size = min(float(self.most_requests), self.size + 1 / self.size)
            self._room.set()

    def halve(self, entry_time: float) -> None:
        """After an overload, once for all requests that were under way together."""
        if entry_time > self._halved_at:
            self.size = max(1.0, self.size / 2)
            self._halved_at = asyncio.get_running_loop().time()

    def hold(self, seconds: float) -> None:
        """Let nobody in for so long: a server that asks for patience asks all."""
        self._held_until = max(self._held_until, asyncio.get_running_loop().time() + seconds)

    async def pause(self, seconds: float) -> None:
        """Sleep outside. Raises ClosedError as soon as the limit is closed."""
        if seconds > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closed.wait(), seconds)
        if self._closed.is_set():
            raise ClosedError

    def close(self) -> None:
        """From now on nobody enters; those inside finish."""
        self._closed.set()
        self._room.set()
