"""The client: one model on one server, asked many things at once."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import replace
from threading import Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from trimtab.endpoint.base_url import checked_base_url
from trimtab.endpoint.completion import Failure, Reply, Request, read_json, read_reply
from trimtab.endpoint.concurrency import AdaptiveLimit, ClosedError
from trimtab.endpoint.response import bounded_http_client
from trimtab.endpoint.retry import Backoff, RequestError, retry_after
from trimtab.endpoint.server_errors import ServerError, one_line
from trimtab.errors import EndpointError, UserError, require_package

if TYPE_CHECKING:
    from openai import AsyncOpenAI

OPENAI_URL = "https://api.openai.com/v1"
MOST_BYTES = 16 * 2**20  # of one reply, unpacked: 2,048 tokens with 20 log-probs each take 4 MB
SHORTEST_SECRET = 12  # characters
CONNECT = 10.0  # seconds to reach a server at all
TICK = 0.1  # seconds between two looks at `stop` while nothing comes
FAILURES_IN_A_ROW = 8  # at least so many requests in a row without a reply say that the server has gone
_THIS_MACHINE = {"127.0.0.1", "localhost", "::1"}


def require_packages(reason: str) -> None:
    """Refuse what asks a server, where the packages that do are not installed."""
    for package in ("openai", "tenacity"):
        require_package(package, extra="judge", reason=reason)


class Endpoint:
    """`model` on the server at `base_url` (default $OPENAI_BASE_URL, then OpenAI's own).

    `api_key` defaults to $OPENAI_API_KEY; it is sent to that server alone and shown nowhere. `timeout` seconds for one
    reply, of at most `most_bytes`; `attempts` at most for one request, at most `concurrency` requests under way.
    Raises ConfigError for an address that cannot be one. `notes` says what was done differently from what was asked,
    `retried` counts transient failures by kind. One `ask` at a time.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: float = 60.0,
        attempts: int = 6,
        concurrency: int = 8,
        backoff: Backoff | None = None,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        assert attempts >= 1, "a request is sent at least once"
        assert concurrency >= 1, "somebody has to ask"
        self.model = model
        self.base_url = checked_base_url(base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL)
        self.timeout, self.attempts, self.concurrency, self.most_bytes = timeout, attempts, concurrency, most_bytes
        self.notes: list[str] = []
        self.retried: Counter[str] = Counter()
        self.limit = float(concurrency)  # what the adaptive limit has come to; the next `ask` goes on from there
        self._key = SecretStr((api_key or os.environ.get("OPENAI_API_KEY") or "").strip())
        self._backoff = backoff or Backoff()
        self._refused_parameters: set[str] = set()
        self._has_answered = False
        self._failures_in_a_row = 0

    def __repr__(self) -> str:
        return f"Endpoint({self.model!r}, base_url={self.base_url!r})"

    def check(self) -> None:
        """Raise UserError when its packages are not installed, there is no key and the server is OpenAI's, or the key
        cannot be one."""
        require_packages(f"{self.model} at {self.base_url}")
        key = self._key.get_secret_value()
        if not key and self.base_url == OPENAI_URL:
            raise UserError(
                f"{self.model} is asked at {OPENAI_URL}, which needs a key, and OPENAI_API_KEY is not set",
                remedy="export OPENAI_API_KEY=…, or name another server with --base-url",
            )
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise UserError(
                "OPENAI_API_KEY holds characters that no key has", remedy="set it again, without spaces or line ends"
            )
        server = urlsplit(self.base_url)
        if key and server.scheme == "http" and server.hostname not in _THIS_MACHINE:
            self._note(f"the key goes to {server.hostname} unencrypted (http)")

    def ask(
        self,
        requests: Sequence[Request],
        *,
        on_reply: Callable[[Request, Reply], None],
        on_failure: Callable[[Request, Failure], None],
        stop: Callable[[], bool] = lambda: False,
        admit: Callable[[Request], bool] = lambda _request: True,
    ) -> None:
        """Send all requests; each ends in one call of `on_reply` or `on_failure`, in this thread, in any order.

        A place becomes free for the next request only when its callback has returned, so what was answered and not yet
        handed over is at most `concurrency` requests. `stop()` true: nothing new is started, not even a further
        attempt; what is under way is finished and handed over. `admit` is asked right before a request is
        started; once it is false none is started any more, and those under way are tried until they are answered.
        Requests that were not reached, or that were refused with all others, get no callback.

        Raises UserError for a missing key; EndpointError, once what is under way has been handed over, when the server
        refuses us (400, 401, 402, 403, 404, a redirect, no credit), is not there, or has stopped answering.
        """
        if not requests:
            return
        self.check()
        refusal: EndpointError | None = None
        self._failures_in_a_row = 0
        queue, under_way = deque(requests), dict[Future[Reply], Request]()
        with _event_loop() as loop, self._client(loop) as client:
            limit = AdaptiveLimit(self.concurrency, size=self.limit)
            while under_way or queue:
                while queue and len(under_way) < self.concurrency and not stop():
                    if not admit(queue[0]):
                        queue.clear()
                        break
                    request = queue.popleft()
                    answer = self._answer(client, limit, request)
                    under_way[asyncio.run_coroutine_threadsafe(answer, loop)] = request
                if refusal is not None or stop():  # also while all wait for a server that asked for patience
                    queue.clear()
                    loop.call_soon_threadsafe(limit.close)
                for future in wait(under_way, timeout=TICK, return_when=FIRST_COMPLETED).done:
                    try:
                        self._hand_over(future, under_way.pop(future), on_reply, on_failure)
                    except EndpointError as error:
                        refusal = refusal or error
                        queue.clear()
            self.limit = limit.size
        if refusal is not None:
            raise refusal

    def _hand_over(
        self,
        future: Future[Reply],
        request: Request,
        on_reply: Callable[[Request, Reply], None],
        on_failure: Callable[[Request, Failure], None],
    ) -> None:
        try:
            reply = future.result()
        except ClosedError:
            return
        except RequestError as error:
            on_failure(request, Failure(error.kind, error.message, error.attempts))
            if error.transient:
                self._count_failure(error)
        else:
            self._failures_in_a_row, self._has_answered = 0, True
            on_reply(request, reply)

    def _count_failure(self, error: RequestError) -> None:
        """Raise EndpointError when the server is not there at all, or has stopped answering."""
        self._failures_in_a_row += 1
        if not self._has_answered and error.kind == "connection":
            raise EndpointError(
                f"no server answers at {self.base_url}: {error.message}",
                remedy="start the server, or check --base-url",
            )
        if self._failures_in_a_row >= max(FAILURES_IN_A_ROW, 2 * self.concurrency):
            raise EndpointError(
                f"{self.base_url} has stopped answering: {self._failures_in_a_row} requests in a row failed after "
                f"{self.attempts} attempts each, the last with: {error.message}",
                remedy="look at the server, then run the same command again: it asks only what is missing",
            )

    # --- in the event loop's thread ---------------------------------------------------------------------------------

    async def _answer(self, client: AsyncOpenAI, limit: AdaptiveLimit, request: Request) -> Reply:
        """Send until it is answered, hopeless, or the attempts are used up."""
        retrier = self._backoff.retrier(self.attempts, sleep=limit.pause)
        try:
            reply: Reply = await retrier(self._attempt, client, limit, request)
        except RequestError as error:
            error.attempts = retrier.statistics["attempt_number"]
            raise
        return reply

    async def _attempt(self, client: AsyncOpenAI, limit: AdaptiveLimit, request: Request) -> Reply:
        entry_time = await limit.enter()
        try:
            reply = await self._send(client, request)
        except RequestError as error:
            if error.transient:
                self.retried[error.kind] += 1
            if error.overload:
                limit.halve(entry_time)
            if error.retry_after is not None:
                self._wait_as_asked(error, limit)
            raise
        else:
            limit.grow(entry_time)
            return reply
        finally:
            limit.leave()

    def _wait_as_asked(self, error: RequestError, limit: AdaptiveLimit) -> None:
        seconds, longest = error.retry_after or 0.0, self._backoff.longest
        if seconds > longest:
            error.transient = False
            error.message += f"; the server asks to wait {seconds:,.0f} s, and at most {longest:,.0f} s are waited"
        else:
            limit.hold(seconds)

    async def _send(self, client: AsyncOpenAI, request: Request) -> Reply:
        """One attempt; repeated at once without a parameter that the model does not take."""
        while True:  # ends: each turn leaves out one parameter more
            fields = request.to_json(model=self.model, without=frozenset(self._refused_parameters))
            start = time.monotonic()
            response = await self._post(client, fields)
            error = _error_in(response)
            if error is None:
                return self._read(response.content, seconds=time.monotonic() - start)
            parameter = error.refused_parameter(fields)
            if parameter is None:
                raise error.meaning(
                    url=f"{self.base_url}/chat/completions",
                    model=self.model,
                    secret=self._key.get_secret_value(),
                    retry_after=retry_after(response.headers, now=time.time()),
                )
            if parameter not in self._refused_parameters:  # several under way may be refused the same
                self._refused_parameters.add(parameter)
                self._note(error.note(parameter, model=self.model, secret=self._key.get_secret_value()))

    async def _post(self, client: AsyncOpenAI, fields: dict[str, Any]) -> Any:
        """The HTTP response, of whatever status."""
        from openai import APIConnectionError, APIStatusError, APITimeoutError

        try:
            async with asyncio.timeout(CONNECT + self.timeout):  # one that sends a byte now and then is late too
                return (await client.chat.completions.with_raw_response.create(**fields)).http_response
        except APIStatusError as error:
            return error.response
        except (APITimeoutError, TimeoutError):
            raise RequestError("timeout", f"no reply within {self.timeout:g} s", overload=True) from None
        except APIConnectionError as error:
            reason = one_line(str(error.__cause__ or error.message), secret=self._key.get_secret_value())
            raise RequestError("connection", reason) from None

    def _read(self, content: bytes, *, seconds: float) -> Reply:
        try:
            reply = read_reply(read_json(content), seconds=seconds)
        except RequestError as error:
            start = repr(content[:80].decode("utf-8", "replace"))
            error.message = one_line(f"{error.message}: {start}", secret=self._key.get_secret_value())
            raise
        if not reply.counts_tokens:
            self._note("the server does not say how many tokens it used: they count as 0 here, and the cost is unknown")
        return self._without_key(reply)

    def _without_key(self, reply: Reply) -> Reply:
        """Replies are kept and shown: a server that says our key back does not get it there. Words that servers without
        keys are given for one ("none", "EMPTY", "ollama") may stand in an answer."""
        key = self._key.get_secret_value()
        if len(key) < SHORTEST_SECRET or not any(key in text for text in (reply.text, reply.model, reply.refusal)):
            return reply
        self._note("the server wrote the key into a reply: it was taken out")
        clean = {name: getattr(reply, name).replace(key, "…") for name in ("text", "model", "refusal")}
        return replace(reply, **clean)

    @contextmanager
    def _client(self, loop: asyncio.AbstractEventLoop) -> Iterator[AsyncOpenAI]:
        from openai import AsyncOpenAI, Timeout

        timeout = Timeout(self.timeout, connect=min(CONNECT, self.timeout), pool=None)
        client = AsyncOpenAI(
            api_key=self._key.get_secret_value() or "none",  # servers without keys take any
            base_url=self.base_url,
            max_retries=0,  # its own give up at a long Retry-After, and hide overload from the limit
            timeout=timeout,
            http_client=bounded_http_client(self.most_bytes, follow_redirects=False, timeout=timeout),
        )
        try:
            yield client
        finally:
            asyncio.run_coroutine_threadsafe(client.close(), loop).result()

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)


def _error_in(response: Any) -> ServerError | None:
    """The error of another status than 2xx, or that a status 200 carries."""
    try:
        body = read_json(response.content)
    except RequestError:
        body = response.text[:1000]
    if response.status_code >= 300:
        return ServerError.of(response.status_code, body, location=response.headers.get("location", ""))
    return ServerError.inside(body)


@contextmanager
def _event_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop in a thread of its own, so that a caller may have one running (a notebook) and needs no lock.

    What is still under way when the block is left, as by an interrupt, is cancelled.
    """
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever, name="trimtab-endpoint", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        asyncio.run_coroutine_threadsafe(_cancel_all(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
