"""Who is answered, what is refused, and that nothing of an answer becomes markup."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from arena_sessions import MemoryKeeper, a_session, a_summary, matches
from trimtab.errors import ConfigError
from trimtab.studies.arena import ArenaServer, Match

HOSTILE = (
    "<script>window.pwned = 1</script>",
    "</script><img src=x onerror=alert(1)>",
    "\u202egnp.exe \u2066x",
    "\x00\x1b]8;;http://evil\x07",
)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Requests to one server, with the token and the right headers unless told otherwise."""

    def __init__(self, server: ArenaServer) -> None:
        self.server = server

    def get(self, name: str = "", *, path: str | None = None, **headers: str | None) -> Answer:
        return self.send("GET", name, path=path, **headers)

    def post(self, name: str, told: object, **headers: str | None) -> Answer:
        return self.send("POST", name, body=json.dumps(told).encode(), **headers)

    def send(
        self, method: str, name: str, *, path: str | None = None, body: bytes | None = None, **headers: str | None
    ) -> Answer:
        sent = {"Host": self.server.authority}
        if method == "POST":
            sent |= {"Origin": f"http://{self.server.authority}", "Content-Type": "application/json"}
            sent |= {"Content-Length": str(len(body or b""))}
        told = {key.replace("_", "-"): value for key, value in headers.items()}
        connection = HTTPConnection("127.0.0.1", self.server.server_port, timeout=20)
        try:
            connection.putrequest(
                method, path or f"/{self.server.token}/{name}", skip_host=True, skip_accept_encoding=True
            )
            for key, value in (sent | told).items():
                if value is not None:
                    connection.putheader(key, value)
            connection.endheaders(body)
            reply = connection.getresponse()
            return Answer(reply.status, dict(reply.getheaders()), reply.read())
        finally:
            connection.close()


@pytest.fixture
def keeper() -> MemoryKeeper:
    return MemoryKeeper()


@pytest.fixture
def server(keeper: MemoryKeeper) -> Iterator[ArenaServer]:
    hostile = Match("p-hostile", (HOSTILE[0],), (HOSTILE[1],), ("".join(HOSTILE),))
    with ArenaServer(a_session([hostile, *matches(2)], keeper), summary=a_summary).serve() as running:
        yield running


@pytest.fixture
def client(server: ArenaServer) -> Client:
    return Client(server)


def test_only_this_machine_can_connect(server: ArenaServer) -> None:
    assert server.socket.getsockname()[0] == "127.0.0.1"
    assert server.url.startswith(f"http://127.0.0.1:{server.server_port}/")
    assert len(server.token) >= 32


def test_two_servers_have_two_tokens() -> None:
    one, other = (ArenaServer(a_session(matches(1)), summary=a_summary) for _ in range(2))
    with one, other:
        assert one.token != other.token


@pytest.mark.parametrize(
    "path",
    ["/", "/state", "//state", "/x/state", "/{t}", "/{t}x/state", "/{cut}/state", "/{T}/state", "/{t}/../{t}/state",
     "/{t}/state?x=1", "/{t}/%73tate", "/{t}/page.html", "/{t}/../server.py", "http://{a}/{t}/state", "*"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_without_the_exact_address_there_is_nothing(client: Client, method: str, path: str) -> None:
    token = client.server.token
    filled = path.format(t=token, T=token.swapcase(), cut=token[:-1], a=client.server.authority)
    answer = client.send(method, "", path=filled, body=b'{"ticket": 0}' if method == "POST" else None)
    assert answer.status == 404
    assert b"question" not in answer.body
    assert token.encode() not in answer.body


@pytest.mark.parametrize("host", ["evil.example", "localhost:{p}", "127.0.0.1", "127.0.0.1:1", "[::1]:{p}", "", None])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_foreign_host_is_refused(client: Client, method: str, host: str | None) -> None:
    """A page elsewhere whose name was made to resolve to 127.0.0.1 names itself as the host."""
    told = host and host.format(p=client.server.server_port)
    answer = client.send(method, "state", body=b"{}" if method == "POST" else None, Host=told)
    assert answer.status == 403
    assert b"question" not in answer.body


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:{p}", "https://127.0.0.1:{p}"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_foreign_origin_is_refused(client: Client, keeper: MemoryKeeper, method: str, origin: str) -> None:
    told = origin.format(p=client.server.server_port)
    body = b'{"ticket": 0, "said": "left"}' if method == "POST" else None
    answer = client.send(method, "choose" if body else "state", body=body, Origin=told)
    assert answer.status == 403
    assert keeper.chosen == {}


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE", "BREW"])
def test_other_methods_are_not_allowed(client: Client, method: str) -> None:
    answer = client.send(method, "state")
    assert answer.status == 405
    assert answer.headers["Allow"] == "GET, POST"


def test_actions_are_posted_and_files_are_got(client: Client) -> None:
    assert client.get("choose").status == 404
    assert client.post("state", {"ticket": 0}).status == 404
    assert client.post("", {"ticket": 0}).status == 404


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"ticket": 0, "said": "left"} ' + b" " * 1024, 413),
        (b"", 400),
        (b"nothing", 400),
        (b"\xff\xfe", 400),
        (b"[" * 900, 400),
        (b"[]", 400),
        (b"{}", 400),
        (b'{"ticket": 0}', 400),
        (b'{"ticket": 0, "said": "left", "more": 1}', 400),
        (b'{"ticket": "0", "said": "left"}', 400),
        (b'{"ticket": true, "said": "left"}', 400),
        (b'{"ticket": 0.0, "said": "left"}', 400),
        (b'{"ticket": 0, "said": "LEFT"}', 400),
        (b'{"ticket": 0, "said": ["left"]}', 400),
        (b'{"ticket": 0, "said": null}', 400),
        (b'{"ticket": NaN, "said": "left"}', 400),
    ],
)
def test_a_body_that_is_no_choice_changes_nothing(
    client: Client, keeper: MemoryKeeper, body: bytes, status: int
) -> None:
    assert client.send("POST", "choose", body=body).status == status
    assert keeper.chosen == {}
    assert client.get("state").json()["ticket"] == 0


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content_Length": None}, 411),
        ({"Content_Length": "-1"}, 411),
        ({"Content_Length": "1e3"}, 411),
        ({"Content_Length": "٣"}, 411),
        ({"Content_Length": "9" * 40}, 413),
        ({"Content_Length": "2000000000"}, 413),
        ({"Transfer_Encoding": "chunked"}, 411),
        ({"Content_Type": "text/plain"}, 415),
        ({"Content_Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content_Type": None}, 415),
    ],
)
def test_a_body_must_be_announced_as_small_json(
    client: Client, keeper: MemoryKeeper, headers: dict[str, str | None], status: int
) -> None:
    if headers.get("Content_Length") == "٣":
        headers = {"Content_Length": "٣".encode().decode("latin-1")}
    body = b'{"ticket": 0, "said": "left"}'
    assert client.send("POST", "choose", body=body, **headers).status == status
    assert keeper.chosen == {}


def test_choosing_through_the_whole_session(server: ArenaServer, client: Client, keeper: MemoryKeeper) -> None:
    assert client.post("choose", {"ticket": 0, "said": "left"}).json()["progress"]["judged"] == 1
    late = client.post("choose", {"ticket": 0, "said": "right"})
    assert (late.status, late.json()["ticket"]) == (409, 1), "the same key twice, or another tab"
    assert client.post("undo", {"ticket": 1}).json()["progress"]["judged"] == 0
    for ticket, said in enumerate(("both bad", "tie"), start=2):
        client.post("choose", {"ticket": ticket, "said": said})
    view = client.post("skip", {"ticket": 4}).json()
    assert view["state"] == "done"
    view = client.post("again", {"ticket": 5}).json()
    assert view["match"]["skipped_before"] is True
    assert not server.done.is_set()
    view = client.post("finish", {"ticket": 6}).json()
    assert view["state"] == "finished"
    assert view["summary"] == a_summary()
    assert server.done.wait(5)
    assert client.post("undo", {"ticket": 7}).status == 409
    assert sorted(choice.pick for choice in keeper.chosen.values()) == ["both bad", "tie"]


def test_names_are_told_at_the_end_only(client: Client) -> None:
    before = [client.get(name).body for name in ("", "page.css", "page.js", "icon.svg", "state")]
    before += [client.post("choose", {"ticket": 0, "said": "left"}).body, client.post("undo", {"ticket": 1}).body]
    assert not any(b"runs/" in body or b"p-hostile" in body for body in before)
    assert b"runs/b is preferred" in client.post("finish", {"ticket": 2}).body


def test_a_choice_that_cannot_be_kept_is_told_and_not_made(client: Client, keeper: MemoryKeeper) -> None:
    keeper.full = True
    answer = client.post("choose", {"ticket": 0, "said": "left"})
    assert answer.status == 500
    assert "the disk is full" in answer.json()["error"]
    assert client.get("state").json()["progress"]["judged"] == 0
    keeper.full = False
    assert client.post("choose", {"ticket": 0, "said": "left"}).status == 200


def test_a_defect_of_ours_ends_the_serving_and_is_not_hidden(
    server: ArenaServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(server.session, "view", broken)
    answer = client.get("state")
    assert answer.status == 500
    assert b"defect" not in answer.body
    assert server.done.wait(5)
    assert isinstance(server.failed, ZeroDivisionError)


def test_every_answer_forbids_what_it_can(client: Client) -> None:
    answers = [client.get(name) for name in ("", "page.css", "page.js", "icon.svg", "state", "nothing")]
    answers += [client.get(path="/"), client.send("PUT", ""), client.post("choose", {}), client.get(Host="evil")]
    for answer in answers:
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "Set-Cookie" not in answer.headers
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert not re.search(r"[Pp]ython", answer.headers["Server"])


def test_hostile_answers_travel_as_json_text_only(client: Client) -> None:
    answer = client.get("state")
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    assert answer.body.isascii()
    match = answer.json()["match"]
    assert match["asked"] == [HOSTILE[0]]
    texts = {match["left"][0], match["right"][0]}
    shown = "".join(HOSTILE[:2]) + "\\u202egnp.exe \\u2066x\\x00\\x1b]8;;http://evil\\x07"
    assert texts == {HOSTILE[1], shown}


def test_the_page_has_no_script_of_its_own_and_fetches_nothing_elsewhere() -> None:
    page = resources.files("trimtab.studies.arena") / "page"
    html, script, style = ((page / name).read_text() for name in ("page.html", "page.js", "page.css"))
    assert re.findall(r"<script[^>]*>", html) == ['<script src="page.js" defer>']
    assert not re.search(r"\son\w+=|\sstyle=|javascript:", html)
    assert not re.search(r"https?://|//\w+\.", html + script + style)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function", script)
    assert "@import" not in style
    assert "url(" not in style


def test_the_address_for_a_started_browser_works_once(server: ArenaServer, client: Client) -> None:
    path = server.once.removeprefix(f"http://{server.authority}")
    assert server.token not in server.once
    first = client.get(path=path)
    assert (first.status, first.headers["Location"]) == (303, f"/{server.token}/")
    assert client.get(path=path).status == 404


def test_a_port_that_is_taken_or_is_none_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for port in (taken.getsockname()[1], 70_000, -1):
            with pytest.raises(ConfigError, match=f"port {port} of 127.0.0.1 cannot be used"):
                ArenaServer(a_session(matches(1)), port=port, summary=a_summary)


def test_a_client_that_says_nothing_keeps_nobody_waiting(server: ArenaServer, client: Client) -> None:
    """Browsers open connections ahead of need."""
    with socket.create_connection(("127.0.0.1", server.server_port)):
        assert client.get("state").status == 200


def test_garbage_on_the_wire_is_refused(server: ArenaServer, client: Client) -> None:
    for sent in (b"\x16\x03\x01\x02\x00\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"G" * 70_000 + b"\r\n"):
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=20) as connection:
            connection.sendall(sent)
            said = connection.recv(65536)
            assert b" 200 " not in said
            assert b"question" not in said
    assert client.get("state").status == 200


def test_the_page_files_are_in_the_package() -> None:
    folder = Path(str(resources.files("trimtab.studies.arena") / "page"))
    assert sorted(file.name for file in folder.iterdir()) == ["icon.svg", "page.css", "page.html", "page.js"]
