"""The page in a real browser, with real keys: headless Chromium, driven through its debugging pipe."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from arena_runs import Process, a_run
from arena_sessions import MemoryKeeper, a_session, a_summary, matches
from devtools import CHROMIUM, Browser, Page, browser
from trimtab.judging.annotations import read_annotations
from trimtab.studies.arena import ArenaServer, Match, Session

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

LONG = "A line of an answer that goes on for a while, as answers do.\n" * 80


@dataclass
class Sitting:
    """A page on a session."""

    page: Page
    session: Session
    server: ArenaServer
    keeper: MemoryKeeper

    def said(self) -> list[str]:
        """Everything chosen, in the order of the matches."""
        return [one.choice.pick if one.choice else "" for one in self.session.outcomes()]

    def ready(self) -> None:
        """A new prompt is on the page, and keys count again."""
        self.page.until("view !== null && !busy && performance.now() - shownAt > BOUNCE")

    def press(self, key: str, *modifiers: str, repeat: bool = False) -> None:
        """Press once the page takes keys, and wait for what comes of it."""
        self.ready()
        self.page.press(key, *modifiers, repeat=repeat)
        self.page.until("!busy")


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture
def sit(chromium: Browser) -> Iterator[Callable[..., Sitting]]:
    with ExitStack() as stack:

        def start(asked: Sequence[Match], *, width: int = 1280, height: int = 900, dark: bool = False) -> Sitting:
            keeper = MemoryKeeper()
            session = a_session(asked, keeper)
            server = stack.enter_context(ArenaServer(session, summary=a_summary).serve())
            page = chromium.open(server.url, width=width, height=height, dark=dark)
            stack.callback(page.close)
            page.until("view !== null")
            return Sitting(page, session, server, keeper)

        yield start


def test_every_key_says_what_it_stands_for(sit: Callable[..., Sitting]) -> None:
    sitting = sit(matches(9))
    for key in ("1", "ArrowLeft", "2", "0", "ArrowDown", "3", "ArrowRight", "4", "b"):
        sitting.press(key)
    assert sitting.said() == ["left", "left", "tie", "tie", "tie", "right", "right", "both bad", "both bad"]
    assert "All 9 prompts are judged" in sitting.page.text("main")
    sitting.press("Enter")
    sitting.page.until("view.state === 'finished'")
    assert "runs/b is preferred" in sitting.page.text("main")
    assert sitting.server.done.wait(5)
    assert sitting.page.complaints() == []
    assert {url.split("/")[2] for url in sitting.page.requested()} == {sitting.server.authority}


def test_left_and_right_are_where_the_choice_says(sit: Callable[..., Sitting]) -> None:
    asked = matches(6)
    sitting = sit(asked)
    for match in asked:
        left = sitting.page.text("article.left .text")
        assert sitting.page.text(".ask .text") == match.prompt[0]
        sitting.press("1")
        preferred = match.first[0] if sitting.keeper.chosen[match.content].preference(match) == 1 else match.second[0]
        assert preferred == left


def test_skip_undo_and_the_skipped_again(sit: Callable[..., Sitting]) -> None:
    sitting = sit(matches(3))
    assert sitting.page.value("document.querySelector('[data-act=undo]').disabled") is True
    sitting.press("1")
    sitting.press("u")
    assert sitting.said() == ["", "", ""]
    assert sitting.page.text(".ask .text") == "question 0.0"
    sitting.press("S")
    sitting.press("3")
    sitting.press("2")
    assert "2 of 3 prompts are judged" in sitting.page.text("main")
    sitting.page.click("[data-act=again]")
    sitting.page.until("view.state === 'asking'")
    assert "You skipped this one before" in sitting.page.text("main")
    sitting.press("4")
    assert sitting.said() == ["both bad", "right", "tie"]
    sitting.press("u")
    assert sitting.page.text(".ask .text") == "question 0.0"


def test_the_mouse_works_too_and_finishing_early_asks_first(sit: Callable[..., Sitting]) -> None:
    sitting = sit(matches(5))
    sitting.ready()
    for said in ("left", "tie", "both bad"):
        sitting.page.click(f"[data-said='{said}']")
        sitting.page.until("!busy")
    assert sitting.said() == ["left", "tie", "both bad", "", ""]
    sitting.page.click("[data-act=stop]")
    assert "3 of 5 prompts are judged" in sitting.page.text("#stop")
    sitting.press("1")  # a key behind the question is no choice
    sitting.page.click("[data-act=stay]")
    assert sitting.said()[3:] == ["", ""]
    sitting.page.click("[data-act=stop]")
    sitting.page.click("[data-act=finish]")
    sitting.page.until("view.state === 'finished'")
    assert sitting.session.is_finished


def test_keys_that_mean_something_else_are_left_alone(sit: Callable[..., Sitting]) -> None:
    sitting = sit(matches(3))
    for key, modifier in (("1", "Control"), ("3", "Alt"), ("s", "Meta"), ("2", "Shift"), ("ArrowRight", "Alt")):
        sitting.press(key, modifier)
    sitting.press("3", repeat=True)
    for key in ("x", "9", "Tab", "Escape"):
        sitting.press(key)
    assert sitting.said() == ["", "", ""]
    assert sitting.session.view().to_json()["ticket"] == 0


def test_a_key_that_bounces_does_not_judge_the_next_prompt_unseen(sit: Callable[..., Sitting]) -> None:
    """The second key comes the moment that the next prompt is laid out."""
    sitting = sit(matches(3))
    sitting.page.value(
        "new MutationObserver(() => document.dispatchEvent(new KeyboardEvent('keydown', { key: '3' })))"
        ".observe(main, { childList: true })"
    )
    sitting.press("1")
    sitting.ready()
    assert sitting.said() == ["left", "", ""]
    sitting.page.value("document.dispatchEvent(new KeyboardEvent('keydown', { key: '3' }))")
    sitting.page.until("!busy && view.ticket === 2")
    assert sitting.said() == ["left", "right", ""], "the same key, after a while, is a choice"


def test_the_down_key_scrolls_where_there_is_more_to_read(sit: Callable[..., Sitting]) -> None:
    sitting = sit([Match("long", ("question",), (LONG,), ("short",)), *matches(1)])
    sitting.press("ArrowDown")
    sitting.page.until("window.scrollY > 0")
    assert sitting.said() == ["", ""]
    sitting.press("2")
    sitting.page.until("window.scrollY === 0")
    sitting.press("ArrowDown")
    assert sitting.said() == ["tie", "tie"]


def test_hostile_answers_are_text(sit: Callable[..., Sitting]) -> None:
    texts = (
        "<script>window.pwned = 1</script><img src=x onerror='window.pwned = 1'>",
        "</div></script><style>*{display:none}</style>\u202egnp.exe <a href='javascript:window.pwned=1'>x</a>",
        "<svg onload='window.pwned = 1'></svg>&lt;b&gt; ${window.pwned = 1} {{7*7}}",
    )
    sitting = sit([Match("p", (texts[0],), (texts[1],), (texts[2],))])
    shown = [sitting.page.value(f"document.querySelector('{place} .text').textContent") for place in (".ask", ".pair")]
    assert shown[0] == texts[0]
    both = sitting.page.value("[...document.querySelectorAll('article .text')].map((node) => node.textContent)")
    assert sorted(both) == sorted([texts[1].replace("\u202e", "\\u202e"), texts[2]])
    assert (
        sitting.page.value("document.querySelectorAll('main img, main script, main svg, main a, main style').length")
        == 0
    )
    assert sitting.page.value("window.pwned") is None
    sitting.press("1")
    assert sitting.page.complaints() == []
    assert {url.split("/")[2] for url in sitting.page.requested()} == {sitting.server.authority}


def test_the_policy_holds_should_markup_ever_get_in(sit: Callable[..., Sitting]) -> None:
    """The second lock: even a page that set markup could not, and nothing could be fetched from elsewhere."""
    sitting = sit(matches(1))
    tried = "(() => { try { document.body.innerHTML = '<img>'; return 'set'; } catch (e) { return e.name; } })()"
    assert sitting.page.value(tried) == "TypeError"
    fetched = "fetch('http://127.0.0.1:9/').then(() => 'fetched', (error) => error.name)"
    assert sitting.page.value(fetched) == "TypeError"
    assert any("connect-src" in one or "Content Security Policy" in one for one in sitting.page.complaints())
    framed = "(() => { const f = document.createElement('iframe'); f.src = 'state'; document.body.append(f);"
    assert sitting.page.value(framed + " return f.contentDocument?.body?.innerText || ''; })()") == ""


def test_a_conversation_shows_its_turns_one_under_another(sit: Callable[..., Sitting]) -> None:
    [match] = matches(1, turns=2)
    sitting = sit([match])
    assert sitting.page.value("[...document.querySelectorAll('.ask .text')].map((n) => n.textContent)") == list(
        match.prompt
    )
    sides = {
        side: sitting.page.value(f"[...document.querySelectorAll('.{side} .text')].map((n) => n.textContent)")
        for side in ("left", "right")
    }
    assert sorted(sides.values()) == sorted([list(match.first), list(match.second)])
    sitting.press("3")
    assert sitting.said() == ["right"]


def test_a_server_that_has_ended_is_told(sit: Callable[..., Sitting]) -> None:
    sitting = sit(matches(2))
    sitting.press("1")
    sitting.server.shutdown()
    sitting.server.server_close()
    sitting.press("1")
    sitting.page.until("!document.getElementById('alarm').hidden")
    assert "start the same command again" in sitting.page.text("#alarm")
    assert sitting.said() == ["left", ""]


def test_a_choice_that_could_not_be_kept_is_told_and_can_be_made_again(sit: Callable[..., Sitting]) -> None:
    sitting = sit(matches(2))
    sitting.keeper.full = True
    sitting.press("1")
    sitting.page.until("!document.getElementById('alarm').hidden")
    assert "the disk is full" in sitting.page.text("#alarm")
    assert sitting.page.text(".ask .text") == "question 0.0"
    sitting.keeper.full = False
    sitting.press("1")
    assert sitting.said() == ["left", ""]
    assert sitting.page.value("document.getElementById('alarm').hidden") is True


def test_another_tab_cannot_choose_twice(sit: Callable[..., Sitting], chromium: Browser) -> None:
    sitting = sit(matches(3))
    other = chromium.open(sitting.server.url)
    other.until("view !== null && performance.now() - shownAt > BOUNCE")
    sitting.press("1")
    other.press("3")
    other.until("!busy && view.ticket === 1")
    assert sitting.said() == ["left", "", ""]
    assert other.text(".ask .text") == "question 1.0"
    other.close()


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_it_fits_a_narrow_window_and_can_be_read(sit: Callable[..., Sitting], width: int, dark: bool) -> None:
    sitting = sit([Match("p", ("q" * 500,), ("x" * 900,), (LONG,))], width=width, height=700, dark=dark)
    assert sitting.page.value("document.documentElement.scrollWidth <= window.innerWidth")
    contrast = sitting.page.value(_CONTRAST)
    assert min(contrast.values()) >= 4.5, contrast  # WCAG 2.2, level AA


def test_everything_to_press_has_a_name_and_focus_is_seen(sit: Callable[..., Sitting]) -> None:
    sitting = sit(matches(2))
    tree = sitting.page.call("Accessibility.getFullAXTree")["nodes"]
    named = {
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in tree
        if not node.get("ignored", False)
    }
    buttons = {name for role, name in named if role == "button"}
    assert buttons == {"Left is better", "Tie", "Both bad", "Right is better", "Skip", "Undo", "Finish…"}
    assert {("article", "Left answer"), ("article", "Right answer"), ("region", "Prompt")} <= named
    assert {role for role, _ in named} >= {"main", "progressbar", "status", "group"}
    sitting.press("Tab")
    sitting.press("Tab")
    outline = (
        "(() => { const s = getComputedStyle(document.activeElement); return [s.outlineStyle, s.outlineWidth]; })()"
    )
    assert sitting.page.value("document.activeElement.dataset.said") == "left"
    assert sitting.page.value(outline) == ["solid", "3px"]


def test_the_command_from_the_printed_address_to_the_verdicts(
    chromium: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of ours stands in between: the process, its store, its page, a keyboard, its file."""
    monkeypatch.chdir(tmp_path)
    a_run(tmp_path / "a", "alpha", n=6)
    a_run(tmp_path / "b", "beta", n=6)
    process = Process(["a", "b", "--name", "ann", "--json"], cwd=tmp_path)
    page = chromium.open(process.url)
    source = page.value("document.documentElement.outerHTML")
    for ticket in range(6):
        page.until(f"view !== null && view.ticket === {ticket} && !busy && performance.now() - shownAt > BOUNCE")
        assert "aligned" not in page.value("document.documentElement.outerHTML") + json.dumps(page.value("view"))
        beta_is_left = page.text("article.left .text").startswith("beta")
        page.press(("ArrowLeft" if beta_is_left else "ArrowRight") if ticket < 4 else "b")
    page.until("view.state === 'done' && performance.now() - shownAt > BOUNCE")
    page.press("Enter")
    page.until("view.state === 'finished'")
    assert "beta aligned" in page.text("main")
    assert "aligned" not in source
    page.close()
    code, out, err = process.ended()
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert (told["wins_a"], told["wins_b"], told["both_bad"], told["judge"]) == (0, 4, 2, "human:ann")
    verdicts = read_annotations(tmp_path / told["file"]).verdicts
    assert sorted(one.preference or 0 for one in verdicts) == [1.5, 1.5, 2.0, 2.0, 2.0, 2.0]


_CONTRAST = """(() => {
  const light = (css) => {
    const linear = (c) => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4;
    const [r, g, b] = css.match(/[\\d.]+/g).map((n) => linear(n / 255));
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const ground = (node) => {
    const css = getComputedStyle(node).backgroundColor;
    return css === "rgba(0, 0, 0, 0)" ? ground(node.parentElement) : css;
  };
  const found = {};
  const read = ["#count", ".ask h2", ".ask .text", "article h2", "article .text", "[data-said=left]", "kbd"];
  for (const selector of read) {
    const node = document.querySelector(selector);
    const [a, b] = [light(getComputedStyle(node).color), light(ground(node))].sort((x, y) => y - x);
    found[selector] = (a + .05) / (b + .05);
  }
  return found;
})()"""
