"""One `ask`: workers that take requests one after another, send them through the gate, and try again."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from trimtab.endpoint.exchange import Failure, Reply, Request
from trimtab.endpoint.gate import Closed, Gate
from trimtab.endpoint.trouble import Hopeless, Passing
from trimtab.endpoint.waiting import Waiting
from trimtab.errors import EndpointError

if TYPE_CHECKING:
    from tenacity import RetryCallState

    from trimtab.endpoint.client import Endpoint

TICK = 0.1  # seconds between two looks at `stop` while nothing comes
IN_A_ROW = 8  # at least so many requests in a row without a reply say that the server has gone


class Session:
    """`run` ends when every request has been heard, or when nothing new may start and the rest has been heard."""

    def __init__(
        self,
        requests: Sequence[Request],
        *,
        send: Callable[[Request], Awaitable[Reply]],
        endpoint: Endpoint,
        waiting: Waiting,
        may_start: Callable[[Request], Awaitable[bool]],
        stop: Callable[[], Awaitable[bool]],
        on_reply: Callable[[Request, Reply], Awaitable[None]],
        on_failure: Callable[[Request, Failure], Awaitable[None]],
    ) -> None:
        self.gate = Gate(endpoint.concurrency, limit=endpoint.limit, clock=waiting.clock, sleep=waiting.sleep)
        self._todo = deque(requests)
        self._send, self._endpoint, self._waiting = send, endpoint, waiting
        self._may_start, self._stop = may_start, stop
        self._on_reply, self._on_failure = on_reply, on_failure
        self._fatal: EndpointError | None = None
        self._in_a_row = 0  # requests that used up their attempts since the last reply

    async def run(self) -> None:
        n_workers = min(self._endpoint.concurrency, len(self._todo))
        workers = [asyncio.create_task(self._work()) for _ in range(n_workers)]
        watch = asyncio.create_task(self._watch())
        try:
            await asyncio.gather(*workers)
        finally:
            for task in (*workers, watch):
                task.cancel()
            await asyncio.gather(*workers, watch, return_exceptions=True)
        if self._fatal is not None:
            raise self._fatal

    async def _watch(self) -> None:
        """Look at `stop` even while everybody waits for a server that asked for patience."""
        while not self.gate.closed:
            await asyncio.sleep(TICK)
            if await self._stop():
                self.gate.close()

    async def _work(self) -> None:
        while self._todo and not self.gate.closed:
            request = self._todo.popleft()
            if not await self._may_start(request):
                self.gate.close()
                return
            try:
                await self._ask(request)
            except Closed:
                return
            except EndpointError as error:
                self._fatal = self._fatal or error
                self.gate.close()

    async def _ask(self, request: Request) -> None:
        """Send until it is answered, hopeless, or the attempts are used up."""
        from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt

        retrying = AsyncRetrying(
            stop=stop_after_attempt(self._endpoint.attempts),
            wait=self._seconds_to_wait,
            retry=retry_if_exception_type(Passing),
            sleep=self.gate.pause,
            reraise=True,
        )
        try:
            reply: Reply = await retrying(self._attempt, request)
        except (Hopeless, Passing) as error:
            attempts = retrying.statistics["attempt_number"]
            await self._on_failure(request, Failure(error.kind, error.message, attempts))
            if isinstance(error, Passing):
                self._count_silence(error)
        else:
            self._in_a_row, self._endpoint.answers = 0, True
            await self._on_reply(request, reply)

    async def _attempt(self, request: Request) -> Reply:
        ticket = await self.gate.enter()
        try:
            reply = await self._send(request)
        except Passing as error:
            self._endpoint.retried[error.kind] += 1
            if error.overload:
                self.gate.overloaded(ticket)
            self._heed(error)
            raise
        else:
            self.gate.went_well(ticket)
            return reply
        finally:
            self.gate.leave()

    def _heed(self, error: Passing) -> None:
        """A server that asks for patience asks all of us."""
        if error.retry_after is None:
            return
        if error.retry_after > self._waiting.longest:
            raise Hopeless(
                error.kind,
                f"{error.message}; the server asks to wait {error.retry_after:,.0f} s, more than the "
                f"{self._waiting.longest:,.0f} s that are waited for at most",
            )
        self.gate.hold(error.retry_after)

    def _seconds_to_wait(self, state: RetryCallState) -> float:
        assert state.outcome is not None
        error = state.outcome.exception()
        assert isinstance(error, Passing)
        return self._waiting.before_next(state.attempt_number, at_least=error.retry_after)

    def _count_silence(self, error: Passing) -> None:
        """Raise EndpointError when the server is not there at all, or has stopped answering."""
        self._in_a_row += 1
        if not self._endpoint.answers and error.kind == "connection":
            raise EndpointError(
                f"no server answers at {self._endpoint.base_url}: {error.message}",
                remedy="start the server, or check --base-url",
            )
        if self._in_a_row >= max(IN_A_ROW, 2 * self._endpoint.concurrency):
            raise EndpointError(
                f"{self._endpoint.base_url} has stopped answering: {self._in_a_row} requests in a row failed after "
                f"{self._endpoint.attempts} attempts each, the last with: {error.message}",
                remedy="look at the server, then run the same command again: it asks only what is missing",
            )
