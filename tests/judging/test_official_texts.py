"""Official texts: from a folder, the cache or a server that may misbehave; wrong bytes are never taken for official."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from trimtab.errors import DataError
from trimtab.judging import official_texts
from trimtab.judging.official_fetch import UnreachableError, fetch
from trimtab.judging.official_texts import Source, Text, TextMissingError, rows_digest

CONTENT = b'[{"instruction": "a", "output": "A", "dataset": "d"}]'
SHA = hashlib.sha256(CONTENT).hexdigest()
Handler = http.server.BaseHTTPRequestHandler


def text(url: str = "https://nowhere.invalid/x.json", **changes: object) -> Text:
    known = ("results/best/outputs.json", "good.json")
    return Text("the text", url, SHA, known, **changes)  # type: ignore[arg-type]  # named by the test


def no_network(url: str) -> bytes:
    raise AssertionError(f"{url} was fetched")


@pytest.fixture
def serving() -> Iterator[Callable[[Callable[[Handler], None]], str]]:
    """A server on this machine that answers as the given function says; its address."""
    servers = []

    def serve(answer: Callable[[Handler], None]) -> str:
        class Answering(Handler):
            def do_GET(self) -> None:
                answer(self)

            def log_message(self, *_: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/x.json"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def sends(content: bytes, *, status: int = 200, length: int | None = None, **headers: str) -> Callable[[Handler], None]:
    def answer(handler: Handler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        if length != -1:
            handler.send_header("Content-Length", str(len(content) if length is None else length))
        handler.end_headers()
        handler.wfile.write(content)

    return answer


Serving = Callable[[Callable[[Handler], None]], str]


def test_fetched_once_then_cached(serving: Serving, tmp_path: Path) -> None:
    source = Source(cache=tmp_path / "cache")
    found = source.find(text(serving(sends(CONTENT))))
    assert found.official
    assert found.note is None
    assert found.to_json() == {"sha256": SHA, "official": True}
    assert found.path.read_bytes() == CONTENT
    assert found.path == tmp_path / "cache" / SHA
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [SHA], "nothing half-written is left"
    again = Source(cache=tmp_path / "cache", offline=True, fetch=no_network).find(text())
    assert again.path == found.path


def test_a_damaged_cache_is_fetched_again_and_not_used(serving: Serving, tmp_path: Path) -> None:
    (tmp_path / SHA).write_bytes(CONTENT[:-1])
    with pytest.raises(TextMissingError, match="not cached, and --offline"):
        Source(cache=tmp_path, offline=True).find(text())
    assert Source(cache=tmp_path).find(text(serving(sends(CONTENT)))).path.read_bytes() == CONTENT


def test_other_bytes_are_refused_naming_both_hashes(serving: Serving, tmp_path: Path) -> None:
    other = CONTENT.replace(b"A", b"B")
    with pytest.raises(DataError) as error:
        Source(cache=tmp_path).find(text(serving(sends(other))))
    assert not isinstance(error.value, TextMissingError)
    assert SHA in error.value.message
    assert hashlib.sha256(other).hexdigest() in error.value.message
    assert "--benchmark-dir" in error.value.remedy
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (sends(b"", status=404), "answers 404"),
        (sends(b"", status=500), "answers 500"),
        (sends(CONTENT[:-5], length=len(CONTENT)), f"broke off after {len(CONTENT) - 5} of {len(CONTENT)} bytes"),
        (
            sends(CONTENT, status=302, Location="file:///etc/hostname"),
            "answers 302 .* not allowed",
        ),
        (sends(CONTENT, status=302, Location="ftp://127.0.0.1/x"), "redirects to another scheme: ftp://"),
        (sends(CONTENT, status=302, Location="http://example.invalid/x"), "http://example.invalid/x is not https"),
        (lambda handler: handler.connection.close(), "cannot be reached|broke off"),
        (lambda handler: None, "broke off|cannot be reached"),
    ],
)
def test_a_server_that_misbehaves(
    serving: Serving, tmp_path: Path, answer: Callable[[Handler], None], complaint: str
) -> None:
    with pytest.raises(TextMissingError, match=complaint) as error:
        Source(cache=tmp_path).find(text(serving(answer)))
    assert "--benchmark-dir" in error.value.remedy
    assert list(tmp_path.iterdir()) == []


def test_a_slow_server_is_not_waited_for(serving: Serving, tmp_path: Path) -> None:
    done = threading.Event()
    url = serving(lambda handler: done.wait(5) and None)
    with pytest.raises(TextMissingError, match="timed out"):
        Source(cache=tmp_path, fetch=partial(fetch, timeout=0.1)).find(text(url))
    done.set()


def test_a_redirect_to_the_same_scheme_is_followed(serving: Serving) -> None:
    final = serving(sends(CONTENT))
    assert fetch(serving(sends(b"", status=302, Location=final))) == CONTENT


def test_too_much_is_not_read(serving: Serving) -> None:
    for length in (None, -1):
        with pytest.raises(UnreachableError, match="larger than 10 bytes"):
            fetch(serving(sends(CONTENT, length=length)), max_bytes=10)


def test_only_https_leaves_this_machine() -> None:
    for url in ("http://example.invalid/x", "file:///etc/hostname", "/etc/hostname"):
        with pytest.raises(UnreachableError, match="is not https"):
            fetch(url)


def test_offline_names_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(TextMissingError, match=r"the text \(results/best/outputs.json\) is not cached") as error:
        Source(cache=tmp_path, offline=True, fetch=no_network).find(text())
    assert "https://nowhere.invalid/x.json" in error.value.remedy
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(TextMissingError, match=r"is not in .*empty, is not cached"):
        Source(folder=empty, cache=tmp_path, offline=True, fetch=no_network).find(text())


def write(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path.resolve()


def find_in(folder: Path, wanted: Text) -> official_texts.Found:
    return Source(folder=folder, cache=folder / "cache", offline=True, fetch=no_network).find(wanted)


def test_the_official_bytes_are_found_anywhere_below_by_their_digest(tmp_path: Path) -> None:
    write(tmp_path, "good.json", b"[]")
    hidden = write(tmp_path, ".git/good.json", CONTENT)
    deep = write(tmp_path, "a/b/c/whatever.json", CONTENT)
    write(tmp_path, "a/whatever.txt", CONTENT)
    found = find_in(tmp_path, text(n_bytes=len(CONTENT)))
    assert (found.path, found.official) == (deep, True)
    assert found.path != hidden


def test_another_file_of_a_known_name_is_used_and_marked(tmp_path: Path) -> None:
    second = write(tmp_path, "good.json", b"[1]")
    write(tmp_path, "worst/outputs.json", b"[2]")
    found = find_in(tmp_path, text())
    assert (found.path, found.official) == (second, False)
    assert found.note is not None
    assert "not the official file" in found.note
    best = write(tmp_path, "results/best/outputs.json", b"[3]")
    assert find_in(tmp_path, text()).path == best, "the better name, though deeper"


def test_a_name_may_begin_above_the_folder(tmp_path: Path) -> None:
    path = write(tmp_path, "results/best/outputs.json", b"[1]")
    assert find_in(tmp_path / "results" / "best", text()).path == path


def test_the_same_rows_written_otherwise_are_official(tmp_path: Path) -> None:
    rows = json.loads(CONTENT)
    path = write(tmp_path, "good.json", json.dumps(rows, indent=4).encode())
    wanted = text(rows=rows_digest(path))
    assert find_in(tmp_path, wanted).official
    write(tmp_path, "good.json", json.dumps([rows[0] | {"output": "B"}]).encode())
    assert not find_in(tmp_path, wanted).official
    assert rows_digest(write(tmp_path, "broken.json", b"[{}]")) is None


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    path = write(tmp_path, "good.json", CONTENT)
    for folder in (path, tmp_path / "absent"):
        with pytest.raises(DataError, match="is no folder"):
            find_in(folder, text())


def test_the_walk_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "a.json", b"[]")
    write(tmp_path, "b.json", CONTENT)
    write(tmp_path, "/".join("abcdefghi") + "/c.json", CONTENT)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert [path.name for path in official_texts._files(tmp_path)] == ["a.json", "b.json"]
    monkeypatch.setattr(official_texts, "MAX_LOOKED_AT", 1)
    with pytest.raises(TextMissingError):
        find_in(tmp_path, text())
