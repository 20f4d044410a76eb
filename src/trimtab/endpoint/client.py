"""The client: one model on one server, asked many things at once."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from pydantic import SecretStr

from trimtab.endpoint.address import holds_secret
from trimtab.endpoint.beside import Beside
from trimtab.endpoint.exchange import Failure, Reply, Request
from trimtab.endpoint.session import Session
from trimtab.endpoint.trouble import Passing, error_of, message_of, of_status, shown
from trimtab.endpoint.waiting import Waiting
from trimtab.endpoint.wire import RENAMED, UnreadableError, fields, read_reply, refused_parameter
from trimtab.errors import ConfigError, EndpointError, UserError

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

OPENAI_URL = "https://api.openai.com/v1"
SHORTEST_SECRET = 12  # characters
CONNECT = 10.0  # seconds to reach a server at all
_LOCAL = {"127.0.0.1", "localhost", "::1"}


class Endpoint:
    """`model` on the server at `base_url` (default $OPENAI_BASE_URL, then OpenAI's own).

    `api_key` defaults to $OPENAI_API_KEY; it is sent to that server alone and shown nowhere. `timeout` seconds for one
    reply, `attempts` at most for one request, at most `concurrency` requests under way. Raises ConfigError for an
    address that cannot be one. `notes` says what was done differently from what was asked, `retried` counts troubles
    that passed, by kind. One `ask` at a time.
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
        waiting: Waiting | None = None,
    ) -> None:
        assert attempts >= 1, "a request is sent at least once"
        assert concurrency >= 1, "somebody has to ask"
        self.model = model
        self.base_url = _checked(base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL)
        self.timeout, self.attempts, self.concurrency = timeout, attempts, concurrency
        self.notes: list[str] = []
        self.retried: Counter[str] = Counter()
        self.limit = float(concurrency)  # what the gate has come to; the next `ask` goes on from there
        self.answers = False  # whether a reply has ever come
        self._key = SecretStr((api_key or os.environ.get("OPENAI_API_KEY") or "").strip())
        self._waiting = waiting or Waiting()
        self._without: set[str] = set()  # parameters that the model refused

    def __repr__(self) -> str:
        return f"Endpoint({self.model!r}, base_url={self.base_url!r})"

    def check(self) -> None:
        """Raise UserError when there is no key and the server is OpenAI's, or when the key cannot be one."""
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
        there = urlsplit(self.base_url)
        if key and there.scheme == "http" and there.hostname not in _LOCAL:
            self._note(f"the key goes to {there.hostname} unencrypted (http)")

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
        heard is at most `concurrency` requests. `stop()` true: nothing new is started, not even a further attempt; what
        is under way is finished and heard. `admit` is asked right before the first attempt of a request; false stops
        in the same way. Requests that were not reached then, or that were refused with all others, get no callback.

        Raises UserError for a missing key; EndpointError, once what is under way has been heard, when the server
        refuses us (400, 401, 403, 404, a redirect, no credit), is not there, or has stopped answering.
        """
        if not requests:
            return
        self.check()
        beside = Beside()
        beside.run(lambda: self._ask(requests, beside, on_reply, on_failure, stop, admit))

    async def _ask(
        self,
        requests: Sequence[Request],
        beside: Beside,
        on_reply: Callable[[Request, Reply], None],
        on_failure: Callable[[Request, Failure], None],
        stop: Callable[[], bool],
        admit: Callable[[Request], bool],
    ) -> None:
        async with self._client() as client:
            session = Session(
                requests,
                send=lambda request: self._send(client, request),
                endpoint=self,
                waiting=self._waiting,
                may_start=lambda request: beside.errand(lambda: not stop() and admit(request)),
                stop=lambda: beside.errand(stop),
                on_reply=lambda request, reply: beside.errand(on_reply, request, reply),
                on_failure=lambda request, failure: beside.errand(on_failure, request, failure),
            )
            try:
                await session.run()
            finally:
                self.limit = session.gate.limit

    def _client(self) -> AsyncOpenAI:
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient, Timeout

        patience = Timeout(self.timeout, connect=min(CONNECT, self.timeout), pool=None)
        return AsyncOpenAI(
            api_key=self._key.get_secret_value() or "none",  # servers without keys take any
            base_url=self.base_url,
            max_retries=0,
            timeout=patience,
            http_client=DefaultAsyncHttpxClient(follow_redirects=False, timeout=patience),
        )

    async def _send(self, client: AsyncOpenAI, request: Request) -> Reply:
        """One attempt; repeated at once without a parameter that the model does not take."""
        from openai import APIStatusError

        while True:  # ends: each turn leaves out one parameter more
            body = fields(request, model=self.model, without=frozenset(self._without))
            try:
                return await self._once(client, body)
            except APIStatusError as error:
                meaning = self._meaning(error)
                if not (isinstance(meaning, EndpointError) and self._adapted(error, body)):
                    raise meaning from None

    async def _once(self, client: AsyncOpenAI, body: dict[str, Any]) -> Reply:
        from openai import APIConnectionError, APITimeoutError

        started = self._waiting.clock()
        try:
            async with asyncio.timeout(CONNECT + self.timeout):  # one that sends a byte now and then is late too
                raw = await client.chat.completions.with_raw_response.create(**cast(Any, body))
            reply = self._without_key(read_reply(raw.http_response.content, seconds=self._waiting.clock() - started))
        except (APITimeoutError, TimeoutError):
            raise Passing("timeout", f"no reply within {self.timeout:g} s", overload=True) from None
        except APIConnectionError as error:
            raise Passing("connection", self._shown(str(error.__cause__ or error.message))) from None
        except UnreadableError as error:
            raise Passing("reply", self._shown(f"the reply {error}")) from None
        if not reply.prompt_tokens and not reply.completion_tokens:
            self._note("the server does not say how many tokens it used: they are counted as 0")
        return reply

    def _without_key(self, reply: Reply) -> Reply:
        """Replies are kept and shown: a server that says our key back does not get it there. Words that servers without
        keys are given for one ("none", "EMPTY", "ollama") may stand in an answer."""
        key = self._key.get_secret_value()
        if len(key) < SHORTEST_SECRET or (key not in reply.text and key not in reply.model):
            return reply
        self._note("the server wrote the key into a reply: it was taken out")
        return replace(reply, text=reply.text.replace(key, "…"), model=reply.model.replace(key, "…"))

    def _adapted(self, error: APIStatusError, body: dict[str, Any]) -> bool:
        """Whether the request is worth repeating without what the model does not take."""
        if error.status_code not in {400, 403, 422}:
            return False
        message = message_of(error.body)
        name = refused_parameter(error_of(error.body), message, sent=body)
        if name is None:
            return False
        if name not in self._without:  # several under way may be told the same
            self._without.add(name)
            instead = f"sent as {RENAMED[name]}" if name in RENAMED else "left out"
            self._note(f"{self.model} does not take {name}: {instead} ({self._shown(message)})")
        return True

    def _meaning(self, error: APIStatusError) -> Exception:
        return of_status(
            error.status_code,
            headers=error.response.headers,
            body=error.body,
            url=f"{self.base_url}/chat/completions",
            model=self.model,
            secret=self._key.get_secret_value(),
            now=self._waiting.now(),
        )

    def _shown(self, text: str) -> str:
        return shown(text, secret=self._key.get_secret_value())

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)


def _checked(url: str) -> str:
    """The base URL without a slash at its end. Raises ConfigError."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good:
        raise ConfigError(f"{shown(url)!r} is no base URL", remedy="give one such as http://127.0.0.1:8000/v1")
    if holds_secret(url):
        raise ConfigError(
            f"the base URL for {parts.hostname} holds a password, a query or a fragment",
            remedy="give the address alone, and the key in OPENAI_API_KEY",
        )
    return url.rstrip("/")
