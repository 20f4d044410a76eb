"""One page for one browser on this machine.

What keeps others out: the socket is bound to 127.0.0.1; every address holds a random token; a request must name this
host (a foreign name that resolves to 127.0.0.1 does not) and, where it names an origin, this one; the page may load
nothing from anywhere else and runs no script but its own file. Answers travel as JSON and are set as text, never as
markup.
"""

from __future__ import annotations

import json
import secrets
import socketserver
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from threading import Event, Semaphore, Thread
from typing import Any, cast

from trimtab.errors import ConfigError, TrimtabError
from trimtab.studies.arena.matches import PICKS
from trimtab.studies.arena.session import Session, StaleError

HOST = "127.0.0.1"
MAX_BODY_BYTES = 1024  # a choice is one short object
_JSON = "application/json; charset=utf-8"
_FILES = {
    "": ("page.html", "text/html; charset=utf-8"),
    "page.css": ("page.css", "text/css; charset=utf-8"),
    "page.js": ("page.js", "text/javascript; charset=utf-8"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class ArenaServer(ThreadingHTTPServer):
    """`url` for people; `once` for a browser that is started with an address in its arguments, which other users of
    the machine can read: it leads to `url` the first time and nowhere after. `done` is set when the page was finished,
    or when a request met a defect of ours, which is then in `failed`.
    """

    daemon_threads = True

    def __init__(self, session: Session, *, port: int = 0, summary: Callable[[], Mapping[str, Any]]) -> None:
        """`summary` is asked for once the session is finished. Raises ConfigError when the port cannot be had."""
        self.session, self.summary, self.done = session, summary, Event()
        self.failed: Exception | None = None
        self.token, self._once = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
        self._unused = Semaphore(1)
        try:
            super().__init__((HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"port {port} of {HOST} cannot be used: {getattr(error, 'strerror', None) or error}",
                remedy="give another with --port, or leave it out for any free one",
            ) from error

    def server_bind(self) -> None:
        """As the base does it, without asking a name server for this machine's name."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, self.server_address[1]

    @property
    def authority(self) -> str:
        return f"{HOST}:{self.server_port}"

    @property
    def url(self) -> str:
        return f"http://{self.authority}/{self.token}/"

    @property
    def once(self) -> str:
        return f"http://{self.authority}/{self._once}/"

    def is_token(self, word: str) -> bool:
        return _equal(word, self.token)

    def takes_once(self, word: str) -> bool:
        """Whether this is the address that works one time, which it then no longer is."""
        return _equal(word, self._once) and self._unused.acquire(blocking=False)

    def handle_error(self, request: object, client_address: object) -> None:
        """What comes here is a connection that the browser closed, which is no event."""

    @contextmanager
    def serve(self) -> Iterator[ArenaServer]:
        """Serve from a thread of its own until the block ends."""
        thread = Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.shutdown()
            thread.join()
            self.server_close()


@dataclass(frozen=True, slots=True)
class _Reply:
    status: HTTPStatus
    body: bytes
    kind: str = "text/plain; charset=utf-8"
    location: str | None = None


class _RefusalError(Exception):  # no fault of ours: it carries the answer to a request that may not be
    def __init__(self, status: HTTPStatus, reason: str = "") -> None:
        super().__init__(status)
        self.status, self.reason = status, reason


class _Handler(BaseHTTPRequestHandler):
    """GET the page, its files and `state`; POST `choose`, `skip`, `undo`, `again`, `finish`. Nothing else."""

    server_version, sys_version = "trimtab", ""
    timeout = 20  # seconds for a client to send its request

    @property
    def arena(self) -> ArenaServer:
        return cast(ArenaServer, self.server)

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the addresses hold the token."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """What the base class refuses (a bad request line, an unknown method), in our words and with our headers."""
        status = HTTPStatus(code)
        self.close_connection = True
        self._send(_refusal(HTTPStatus.METHOD_NOT_ALLOWED if status is HTTPStatus.NOT_IMPLEMENTED else status))

    def _answer(self, work: Callable[[], _Reply]) -> None:
        try:
            self._require_own_address()
            reply = work()
        except _RefusalError as refusal:
            reply = _refusal(refusal.status, refusal.reason)
        except TrimtabError as error:  # a choice that could not be kept; the session stands where it stood
            reply = _json({"error": str(error)}, HTTPStatus.INTERNAL_SERVER_ERROR)
        except Exception as error:
            self.arena.failed = error
            reply = _refusal(HTTPStatus.INTERNAL_SERVER_ERROR)
        self._send(reply)
        if self.arena.session.is_finished or self.arena.failed:
            self.arena.done.set()

    def _require_own_address(self) -> None:
        origin = f"http://{self.arena.authority}"
        if self.headers.get_all("Host", []) != [self.arena.authority]:
            raise _RefusalError(HTTPStatus.FORBIDDEN, f"open the address as it was printed, at {self.arena.authority}")
        if any(header != origin for header in self.headers.get_all("Origin", [])):
            raise _RefusalError(HTTPStatus.FORBIDDEN, "this page answers to itself only")

    def _asked_for(self) -> str:
        """What stands after the token."""
        _, *parts = self.path.split("/", 2)
        if len(parts) == 2 and self.arena.is_token(parts[0]):
            return parts[1]
        raise _RefusalError(HTTPStatus.NOT_FOUND)

    def _get(self) -> _Reply:
        if self.path.count("/") == 2 and self.arena.takes_once(self.path[1:-1]):
            return _Reply(HTTPStatus.SEE_OTHER, b"", location=f"/{self.arena.token}/")
        name = self._asked_for()
        if name == "state":
            return _json(self._view())
        if name not in _FILES:
            raise _RefusalError(HTTPStatus.NOT_FOUND)
        file, kind = _FILES[name]
        return _Reply(HTTPStatus.OK, (resources.files("trimtab.studies.arena") / "page" / file).read_bytes(), kind)

    def _post(self) -> _Reply:
        action, session = self._asked_for(), self.arena.session
        if action not in {"choose", "skip", "undo", "again", "finish"}:
            raise _RefusalError(HTTPStatus.NOT_FOUND)
        body = self._body({"ticket", "said"} if action == "choose" else {"ticket"})
        ticket = body["ticket"]
        if isinstance(ticket, bool) or not isinstance(ticket, int):
            raise _RefusalError(HTTPStatus.BAD_REQUEST)
        try:
            match action:
                case "choose":
                    if body["said"] not in PICKS:
                        raise _RefusalError(HTTPStatus.BAD_REQUEST)
                    session.choose(body["said"], ticket=ticket)
                case "skip":
                    session.skip(ticket=ticket)
                case "undo":
                    session.undo(ticket=ticket)
                case "again":
                    session.ask_skipped(ticket=ticket)
                case _:
                    session.finish(ticket=ticket)
        except StaleError:
            return _json(self._view(), HTTPStatus.CONFLICT)
        return _json(self._view())

    def _view(self) -> dict[str, Any]:
        view = self.arena.session.view()
        return view.to_json() | ({"summary": dict(self.arena.summary())} if view.state == "finished" else {})

    def _body(self, names: set[str]) -> dict[str, Any]:
        """A small JSON object with exactly these names."""
        length = self.headers.get("Content-Length", "")
        if "Transfer-Encoding" in self.headers or not (length.isascii() and length.isdigit()):
            raise _RefusalError(HTTPStatus.LENGTH_REQUIRED)
        if len(length) > 9 or int(length) > MAX_BODY_BYTES:
            raise _RefusalError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        if self.headers.get_content_type() != "application/json":  # a form of another site cannot send this
            raise _RefusalError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
        try:
            body = json.loads(self.rfile.read(int(length)))
        except OSError as error:
            raise _RefusalError(HTTPStatus.REQUEST_TIMEOUT) from error
        except (ValueError, RecursionError) as error:
            raise _RefusalError(HTTPStatus.BAD_REQUEST) from error
        if not isinstance(body, dict) or body.keys() != names:
            raise _RefusalError(HTTPStatus.BAD_REQUEST)
        return body

    def _send(self, reply: _Reply) -> None:
        self.send_response(reply.status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", reply.kind)
        self.send_header("Content-Length", str(len(reply.body)))
        if reply.location is not None:
            self.send_header("Location", reply.location)
        if reply.status is HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, POST")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)


def _json(value: Mapping[str, Any], status: HTTPStatus = HTTPStatus.OK) -> _Reply:
    return _Reply(status, json.dumps(value, ensure_ascii=True, allow_nan=False).encode("ascii"), _JSON)


def _refusal(status: HTTPStatus, reason: str = "") -> _Reply:
    return _Reply(status, f"{status.value} {status.phrase}{reason and ': ' + reason}\n".encode())


def _equal(word: str, secret: str) -> bool:
    """In a time that does not tell how much of it is right."""
    return secrets.compare_digest(word.encode("utf-8", "surrogatepass"), secret.encode("ascii"))
