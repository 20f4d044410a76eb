"""A real HTTP server on loopback that speaks the chat-completions form and misbehaves on script.

In a test, through the fixture of `tests/conftest.py` (every server is stopped when the test ends):

    from scripted_server import Seen, always, mishaps, ok, prose, reset, status, too_many

    def test_it(scripted_server):                      # the fixture is a factory
        server = scripted_server([status(500), ok("m")])   # one action a request, in order; the last one stays
        Endpoint("judge", base_url=server.url, ...)
        assert server.requests[0].body["model"] == "judge" and server.max_concurrency == 1

or as a value: `with ScriptedServer(script) as server`. A script is a list of actions, one action, or a function from
`Seen` (what was asked, `nth` = which arrival this is, `attempt` = how often the same body came before) to an action.
`answered` counts the replies that can be read: what a real server would have billed at least.

Actions: `ok`, `prose`, `status`, `too_many`, `reset`, `hang`, `half_json`, `short_body`, `empty_choices`, `no_message`,
`redirect`, `slow`. `mishaps(then)` gives every sixth body each of them before it answers, and the others at once.

As a process of its own (for tests that kill): `python tests/scripted_server.py --port 0 --text m --delay 0.05
--log FILE` prints its URL on the first line and appends one JSON line a request to FILE; `--mishaps` misbehaves as
above.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import socket
import struct
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import Message as EmailMessage
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

Logprobs = Sequence[Mapping[str, float]]


@dataclass(frozen=True)
class Seen:
    """One request: its arrival number, how often the same body came before, and when (time.monotonic, seconds)."""

    nth: int
    attempt: int
    path: str
    headers: EmailMessage  # finds names in any case
    body: Mapping[str, Any]
    at: float

    @property
    def text(self) -> str:
        """The last message."""
        return str(self.body["messages"][-1]["content"])


@dataclass(frozen=True)
class Action:
    """What to send: a body (JSON or bytes) with a status, after `wait` seconds; or to break off."""

    code: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    wait: float = 0.0
    breaks: bool = False  # close with a reset after half of the body
    missing: int = 0  # bytes promised in Content-Length and never sent
    trickles: float = 0.0  # seconds between one byte and the next

    @property
    def good(self) -> bool:
        """Whether a client can read an answer out of it."""
        whole = self.code == 200 and isinstance(self.body, dict) and not self.breaks and not self.missing
        return whole and any("message" in choice for choice in self.body.get("choices", ()))


Script = Callable[[Seen], Action]


def ok(  # what a server that works replies
    text: str | list[dict[str, Any]] | None = "m",
    *,
    logprobs: Logprobs | None = None,
    finish_reason: str = "stop",
    prompt_tokens: int = 100,
    completion_tokens: int = 1,
    usage: bool = True,
    model: str = "",
    wait: float = 0.0,
    reasoning: str = "",
    refusal: str = "",
) -> Action:
    """A whole reply. `logprobs`: one mapping token → log-prob a position, the sampled token first.

    `model` is the one asked for unless it is given; `text` None is JSON's null, and a list is content in parts.
    """
    more = {"reasoning_content": reasoning} if reasoning else {}
    choice: dict[str, Any] = {
        "index": 0,
        "message": {"role": "assistant", "content": text, **more, **({"refusal": refusal} if refusal else {})},
        "finish_reason": finish_reason,
        "logprobs": None,
    }
    if logprobs is not None:
        choice["logprobs"] = {"content": [_position(one) for one in logprobs]}
    body = {"id": "chatcmpl-1", "object": "chat.completion", "created": 0, "model": model, "choices": [choice]}
    if usage:
        total = prompt_tokens + completion_tokens
        tokens = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens, "total_tokens": total}
        body["usage"] = tokens
    return Action(body=body, wait=wait)


def _position(chances: Mapping[str, float]) -> dict[str, Any]:
    told = [{"token": token, "logprob": value, "bytes": list(token.encode())} for token, value in chances.items()]
    return {**told[0], "top_logprobs": told} if told else {"token": "", "logprob": 0.0, "top_logprobs": []}


def preferring(first: float, *, tokens: tuple[str, str] = ("m", "M")) -> Action:
    """A classifier's reply: log-probs that give `first` (0 < first < 1) to the first of the two tokens."""
    chances = {tokens[0]: math.log(first), tokens[1]: math.log1p(-first)}
    return ok(max(chances, key=lambda token: chances[token]), logprobs=[chances])


def prose(text: str = "Both answers have their merits, so I would rather not choose.") -> Action:
    return ok(text, completion_tokens=12)


def status(
    code: int, message: str = "on script", /, *, headers: Mapping[str, str] | None = None, **error: Any
) -> Action:
    """An error in OpenAI's form; `error` adds to it (`code="context_length_exceeded"`, `param="temperature"`)."""
    return Action(code=code, body={"error": {"message": message, "type": "scripted", **error}}, headers=headers or {})


def too_many(*, seconds: float | None = None, date_in: float | None = None, ms: float | None = None) -> Action:
    """429 with Retry-After in seconds, as the HTTP date `date_in` seconds from now, or `retry-after-ms`."""
    headers = {}
    if seconds is not None:
        headers["Retry-After"] = f"{seconds:g}"
    if date_in is not None:
        headers["Retry-After"] = formatdate(time.time() + date_in, usegmt=True)
    if ms is not None:
        headers["retry-after-ms"] = f"{ms:g}"
    return status(429, "slow down", headers=headers)


def reset() -> Action:
    """The connection is reset in the middle of the reply."""
    return Action(body=ok().body, breaks=True)


def hang(seconds: float = 3600.0) -> Action:
    """Nothing comes for so long; the server's end cuts it short."""
    return Action(body=ok().body, wait=seconds)


def slow(seconds: float, then: Action | None = None) -> Action:
    then = then or ok()
    return Action(code=then.code, body=then.body, headers=then.headers, wait=seconds)


def half_json() -> Action:
    """Status 200, a whole body, and only half of the JSON."""
    whole = json.dumps(ok().body).encode()
    return Action(body=whole[: len(whole) // 2])


def short_body() -> Action:
    """The body ends before the length that was promised."""
    return Action(body=ok().body, missing=10)


def empty_choices() -> Action:
    return Action(body={**ok().body, "choices": []})


def no_message() -> Action:
    return Action(body={**ok().body, "choices": [{"index": 0, "finish_reason": "stop"}]})


def redirect(to: str) -> Action:
    return Action(code=307, body={}, headers={"Location": to})


def always(action: Action) -> Script:
    return lambda _seen: action


def in_order(actions: Sequence[Action]) -> Script:
    """One action a request; the last one for all that come after."""
    return lambda seen: actions[min(seen.nth, len(actions) - 1)]


def mishaps(
    then: Script | None = None, *, every: int = 6, retry_after: float = 0.05, hang_for: float = 3600.0
) -> Script:
    """One in `every` different bodies (its content decides) meets two mishaps before it is answered."""
    then = then or always(preferring(0.9))
    troubles: list[Callable[[], Action]] = [
        lambda: too_many(seconds=retry_after),
        lambda: too_many(ms=1000 * retry_after),
        too_many,
        lambda: status(500),
        lambda: status(503),
        lambda: status(408),
        lambda: status(409),
        reset,
        half_json,
        short_body,
        empty_choices,
        no_message,
        lambda: hang(hang_for),
    ]

    def script(seen: Seen) -> Action:
        number = zlib.crc32(seen.text.encode("utf-8", "surrogatepass"))
        if number % every == 0 and seen.attempt < 2:
            return troubles[(number // every + 5 * seen.attempt) % len(troubles)]()
        return then(seen)

    return script


class ScriptedServer:
    """Listens on 127.0.0.1 from construction to `stop`."""

    def __init__(
        self, script: Script | Sequence[Action] | Action | None = None, *, port: int = 0, log: Path | None = None
    ) -> None:
        if isinstance(script, Action):
            script = always(script)
        if script is not None and not callable(script):
            script = in_order(script)
        self.script: Script = script or always(ok())
        self.requests: list[Seen] = []
        self.answered = 0
        self.in_flight = 0
        self.max_concurrency = 0
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        self.log = log
        self._came: Counter[str] = Counter()
        self._http = _Server(("127.0.0.1", port), _Handler)
        self._http.owner = self
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """The base URL to hand to a client."""
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def bodies(self) -> Counter[str]:
        """How often each body came, as canonical JSON."""
        return Counter(self._came)

    def stop(self) -> None:
        if not self.stopping.is_set():
            self.stopping.set()
            self._http.shutdown()
            self._http.close_connections()
            self._http.server_close()
            self._thread.join()

    def __enter__(self) -> ScriptedServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def arrived(self, path: str, headers: EmailMessage, body: Mapping[str, Any]) -> Seen:
        name = json.dumps(body, sort_keys=True)
        with self.lock:
            seen = Seen(len(self.requests), self._came[name], path, headers, body, time.monotonic())
            self._came[name] += 1
            self.requests.append(seen)
            self.in_flight += 1
            self.max_concurrency = max(self.max_concurrency, self.in_flight)
            if self.log is not None:
                with self.log.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"nth": seen.nth, "attempt": seen.attempt, "body": body}) + "\n")
        return seen

    def left(self, *, billed: bool) -> None:
        with self.lock:
            self.in_flight -= 1
            self.answered += billed


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256
    owner: ScriptedServer

    def __init__(self, *args: Any) -> None:
        self._open: set[socket.socket] = set()
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        for one in list(self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):  # a client that went away is what tests are about
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_POST(self) -> None:
        owner = self.server.owner
        length = int(self.headers["Content-Length"])
        seen = owner.arrived(self.path, self.headers, json.loads(self.rfile.read(length)))
        billed = False
        try:
            action = owner.script(seen)
            owner.stopping.wait(action.wait)
            self._send(action, model=seen.body.get("model"))
            billed = action.good
        finally:
            owner.left(billed=billed)

    def _send(self, action: Action, *, model: Any) -> None:
        told = {**action.body, "model": action.body["model"] or model} if action.good else action.body
        body = told if isinstance(told, bytes) else json.dumps(told).encode()
        self.send_response(action.code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body) + action.missing))
        for name, value in action.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if action.breaks:
            self.wfile.write(body[: len(body) // 2])
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())  # with no time to linger: the other end sees a reset
            self.close_connection = True
            return
        for start in range(0, len(body), 1 if action.trickles else len(body)):
            self.server.owner.stopping.wait(action.trickles)
            self.wfile.write(body[start : start + 1] if action.trickles else body)
        self.close_connection = self.close_connection or action.missing > 0

    def log_message(self, format: str, *args: Any) -> None:
        pass


def main() -> None:
    """Serve until killed."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--port", type=int, default=0)
    words.add_argument("--text", default="m")
    words.add_argument("--delay", type=float, default=0.0)
    words.add_argument("--log", type=Path)
    words.add_argument("--mishaps", action="store_true")
    told = words.parse_args()
    answer = always(ok(told.text, wait=told.delay))
    with ScriptedServer(mishaps(answer) if told.mishaps else answer, port=told.port, log=told.log) as server:
        print(server.url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
