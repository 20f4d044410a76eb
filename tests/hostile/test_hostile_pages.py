"""Hostile text in a terminal and in headless Chromium: no script runs, nothing is fetched, nothing is reordered."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hostile_calls import harmless, put, put_as_left

from devtools import CHROMIUM, Browser, browser
from sweep_figures import hostile_sweep
from trimtab.progress import SilentReporter, printable
from trimtab.reporting import render
from trimtab.studies.arena import ArenaServer, Choice, Match, Session
from trimtab.studies.calibration import command as calibrate
from trimtab.studies.calibration.page import page as calibration_page
from trimtab.studies.length_probe import command as probe
from trimtab.studies.length_probe.page import page as probe_page
from trimtab.studies.length_probe.words import headline
from trimtab.studies.sweep.page import sweep_page

HOSTILE = (
    "<script>window.pwned=1</script><img src=http://evil.invalid/x onerror='window.pwned=1'>"
    "<svg onload='window.pwned=1'></svg></style></title></textarea>"
    "<iframe srcdoc='<script>parent.pwned=1</script>'></iframe>"
    "<a href='javascript:window.pwned=1'>x</a><base href=http://evil.invalid/>"
    "<meta http-equiv=refresh content='0;url=http://evil.invalid/'>"
    "<link rel=stylesheet href=http://evil.invalid/c.css><style>@import 'http://evil.invalid/d.css'</style>"
    "\x1b[2J\x1b]8;;http://evil.invalid\x07link\u202egnp.exe\u2066\u200b {{7*7}} ${7*7} ]]><!-- \x00"
)
LONG = (HOSTILE + " word ") * (1_000_000 // len(HOSTILE))

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as started:
        yield started


def poisoned(value: Any, *names: str) -> Any:
    """The values of these keys, wherever they stand, with hostile text behind them."""
    if isinstance(value, dict):
        return {
            key: f"{inner} {HOSTILE}" if key in names and isinstance(inner, str) else poisoned(inner, *names)
            for key, inner in value.items()
        }
    return [poisoned(one, *names) for one in value] if isinstance(value, list) else value


def inert(chromium: Browser, path: Path) -> str:
    """Open a page of ours from disk and require that it did nothing but show itself; its text."""
    content = path.read_text(encoding="utf-8")
    for steering in ("\x1b", "\x07", "\u202e", "\u2066", "\u200b", "\x00"):
        assert steering not in content, ascii(steering)
    assert "default-src 'none'" in content.replace("&#39;", "'"), "its policy"
    page = chromium.open(path.as_uri())
    try:
        assert page.value("window.pwned") is None
        assert page.value("document.querySelectorAll('script, iframe, img, base, link, object, embed').length") == 0
        assert page.value("[...document.querySelectorAll('a')].every((a) => !a.href.startsWith('javascript'))") is True
        assert page.value("document.querySelectorAll('*').length") > 20
        assert page.requested() == [path.as_uri()]
        assert page.complaints() == []
        return page.text()
    finally:
        page.close()


def test_the_report_of_a_run_whose_every_text_is_hostile(chromium: Browser, finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    for file in [*run.glob("answers/*.json"), *run.glob("verdicts/*.json")]:
        names = ("output", "output_1", "output_2", "generator", "generator_2", "annotator", "dataset")
        put(file, poisoned(json.loads(file.read_text()), *names))
    for name in ("versions.json", "data/audit.json", "plan.json"):
        names = ("processor", "prompt", "chosen", "rejected", "template_sentence", "trimtab", "id", "python", "system")
        put_as_left(run, name, poisoned(json.loads((run / name).read_text()), *names))
    told = harmless("report", run, seconds=120)
    assert told.code == 0, told.err
    text = inert(chromium, run / "report.html")
    assert "<script>window.pwned=1</script>" in text, "it stays readable"
    markdown = (run / "report.md").read_text(encoding="utf-8")
    assert not re.search(r"(?m)^\s*<(script|img|iframe)", markdown.partition("```")[0])


def test_an_answer_of_a_megabyte(chromium: Browser, finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    path = run / "answers" / "windtunnel.json"
    rows = json.loads(path.read_text())
    rows[0]["output"] = LONG
    put(path, rows)
    assert harmless("report", run, seconds=120).code == 0
    assert (run / "report.html").stat().st_size < 4_000_000, "shown in part"
    inert(chromium, run / "report.html")
    assert len(harmless("compare", run, run, seconds=60).text) < 20_000


def test_the_pages_of_calibration_and_probe(chromium: Browser, finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    numbers = calibrate.main(str(run), reporter=SilentReporter()).numbers
    config = numbers.run.setup.config
    names = {"model": config.model.model_copy(update={"name": HOSTILE}), "out": f"{config.out}{HOSTILE}",
             "data": config.data.model_copy(update={"source": HOSTILE})}  # fmt: skip
    setup = dataclasses.replace(numbers.run.setup, config=config.model_copy(update=names))
    hostile = dataclasses.replace(numbers, run=dataclasses.replace(numbers.run, setup=setup))
    text = inert(chromium, put(tmp_path / "calibration.html", render.page_html(calibration_page(hostile))))
    assert "<script>window.pwned=1</script>" in text
    (measured,) = probe.main([str(run)], reporter=SilentReporter()).runs
    trained = dataclasses.replace(measured.run, folder=HOSTILE, setups=(setup,))
    runs = [dataclasses.replace(measured, run=trained, label=HOSTILE)] * 2  # labels are told where there are several
    html = render.page_html(probe_page(runs, [], sentences=headline(runs, []), command=HOSTILE))
    assert "<script>window.pwned=1</script>" in inert(chromium, put(tmp_path / "probe.html", html))


def test_the_page_of_a_sweep_whose_every_word_is_hostile(chromium: Browser, tmp_path: Path) -> None:
    html = render.page_html(sweep_page(hostile_sweep(HOSTILE, LONG)))
    text = inert(chromium, put(tmp_path / "sweep.html", html))
    assert "<script>window.pwned=1</script>" in text


class _Keeper:
    def keep(self, match: Match, choice: Choice, /) -> None: ...
    def skip(self, match: Match, /) -> None: ...
    def forget(self, match: Match, /) -> None: ...


def test_the_arena_page_with_a_megabyte_of_it(chromium: Browser) -> None:
    asked = [Match(f"p {HOSTILE}", (HOSTILE,), (LONG,), (HOSTILE,), HOSTILE)]
    session = Session(asked, seed=0, keeper=_Keeper(), choices={}, skips=set())
    with ArenaServer(session, summary=lambda: {"headline": HOSTILE, "details": [HOSTILE]}).serve() as server:
        page = chromium.open(server.url)
        page.until("view !== null")
        assert page.value("window.pwned") is None
        assert (
            page.value("document.querySelectorAll('main script, main img, main iframe, main a, main base').length") == 0
        )
        assert page.value(r"/[\u202e\u2066\x1b]/.test(document.body.innerText)") is False
        assert page.complaints() == []
        assert {url.split("/")[2] for url in page.requested()} == {server.authority}
        page.close()


def test_a_terminal_is_told_what_was_said_and_not_what_to_do() -> None:
    shown = printable(HOSTILE)
    assert shown.isprintable()
    assert "\\x1b[2J" in shown
    assert "\\u202e" in shown
