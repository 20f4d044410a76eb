"""A real browser that is told what to press: headless Chromium over `--remote-debugging-pipe`.

The DevTools protocol travels as JSON, each message ended by a NUL byte, through file descriptors 3 (to the browser) and
4 (from it); no socket and no library is needed.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PATIENCE = 30.0  # seconds; a loaded machine starts a browser slowly
_FLAGS = (
    "--headless", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-quic",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--disable-features=Translate,MediaRouter,OptimizationHints", "--window-size=1280,900",
)  # fmt: skip
# What a page shows beyond the screen, and boxes that hide something sideways: the elements, as words
TOO_WIDE = """(() => {
  const name = (e) => `${e.tagName}.${e.getAttribute("class") ?? ""} ${e.textContent.trim().slice(0, 40)}`;
  const outside = (e) => !e.parentElement.closest("svg"); // a drawing counts as one
  const shown = [...document.body.querySelectorAll("*")].filter((e) => e.getClientRects().length && outside(e));
  const page = document.documentElement, is_wide = page.scrollWidth > page.clientWidth + 1;
  return (is_wide ? ["the page itself"] : []).concat(shown.filter((e) => {
    const hides = !["visible", "clip"].includes(getComputedStyle(e).overflowX) && e.scrollWidth > e.clientWidth + 1;
    const is_seen = e.textContent.trim() || ["IMG", "svg"].includes(e.tagName); // a wrapped line's last spaces are not
    return hides || (is_seen && e.getBoundingClientRect().right > document.documentElement.clientWidth + 1);
  }).map(name));
})()"""
# A text for each pair of colours on a page, with its contrast as WCAG defines it
CONTRASTS = """(() => {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 1;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const paint = (css) => { context.fillStyle = css; context.fillRect(0, 0, 1, 1); };
  const light = () => {
    const linear = (c) => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4;
    const [r, g, b] = [...context.getImageData(0, 0, 1, 1).data].slice(0, 3).map((n) => linear(n / 255));
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const found = new Map(), known = new Map();
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const base = matchMedia("(prefers-color-scheme: dark)").matches ? "#121212" : "#fff";
  while (texts.nextNode()) {
    const words = texts.currentNode.textContent.trim(), element = texts.currentNode.parentElement;
    if (!words || !element.getClientRects().length || ["STYLE", "SCRIPT"].includes(element.tagName)) continue;
    const style = getComputedStyle(element), layers = [element.closest("svg") ? style.fill : style.color];
    for (let e = element; e; e = e.parentElement) layers.unshift(getComputedStyle(e).backgroundColor);
    const key = layers.join();
    if (known.has(key)) continue;
    known.set(key, true);
    const ink = layers.pop();
    [base, ...layers].forEach(paint);
    const ground = light();
    paint(ink);
    const [a, b] = [light(), ground].sort((x, y) => y - x);
    found.set(`${ink} ${words.slice(0, 40)}`, (a + .05) / (b + .05));
  }
  return [...found];
})()"""
_KEY_CODES = {"ArrowLeft": 37, "ArrowDown": 40, "ArrowRight": 39, "Enter": 13, "Tab": 9, "Escape": 27}
_MODIFIERS = {"Alt": 1, "Control": 2, "Meta": 4, "Shift": 8}


class Browser:
    """One Chromium process. Messages that are no answer are kept as `events`."""

    def __init__(self, process: int, to_browser: int, from_browser: int) -> None:
        self._process, self._to, self._from = process, to_browser, from_browser
        self._number, self._unread = 0, b""
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, params: Mapping[str, Any] | None = None, *, session: str | None = None) -> Any:
        """One command and its result."""
        self._number += 1
        sent: dict[str, Any] = {"id": self._number, "method": method, "params": params or {}}
        if session is not None:
            sent["sessionId"] = session
        os.write(self._to, json.dumps(sent).encode() + b"\0")
        deadline = time.monotonic() + PATIENCE
        while True:
            message = self._message(deadline)
            if message.get("id") == self._number:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]
            self.events.append(message)

    def open(self, url: str, *, width: int = 1280, height: int = 900, dark: bool = False) -> Page:
        """A new page, once it has loaded."""
        target = self.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        session = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        page = Page(self, session, target)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        page.look(width=width, height=height, dark=dark)
        page.call("Page.navigate", {"url": url})
        page.until("document.readyState === 'complete'")
        return page

    def _message(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._unread:
            ready, _, _ = select.select([self._from], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, "the browser does not answer"
            read = os.read(self._from, 1 << 16)
            assert read, "the browser is gone"
            self._unread += read
        first, _, self._unread = self._unread.partition(b"\0")
        message: dict[str, Any] = json.loads(first)
        return message


class Page:
    """One tab."""

    def __init__(self, browser: Browser, session: str, target: str) -> None:
        self._browser, self._session, self._target = browser, session, target

    def call(self, method: str, params: Mapping[str, Any] | None = None) -> Any:
        return self._browser.call(method, params, session=self._session)

    def look(self, *, width: int, height: int = 900, dark: bool = False) -> None:
        """The window's size and the colour scheme, from now on."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", {"features": [scheme]})

    def value(self, expression: str) -> Any:
        """What a JavaScript expression gives, as JSON."""
        told = self.call("Runtime.evaluate", {"expression": expression, "returnByValue": True, "awaitPromise": True})
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def until(self, expression: str) -> None:
        """Wait for an expression to be true."""
        deadline = time.monotonic() + PATIENCE
        while not self.value(f"Boolean({expression})"):
            assert time.monotonic() < deadline, (
                f"never came true: {expression}\n{self.value('document.body.innerText')}"
            )
            time.sleep(0.02)

    def press(self, key: str, *modifiers: str, repeat: bool = False) -> None:
        """Press and release a key, as a keyboard does."""
        held = sum(_MODIFIERS[name] for name in modifiers)
        code = _KEY_CODES.get(key, ord(key[0].upper()))
        told = {"key": key, "windowsVirtualKeyCode": code, "modifiers": held}
        text = {"text": "\r" if key == "Enter" else key} if (len(key) == 1 or key == "Enter") and not held else {}
        self.call("Input.dispatchKeyEvent", {"type": "keyDown", "autoRepeat": repeat, **told, **text})
        self.call("Input.dispatchKeyEvent", {"type": "keyUp", **told})

    def click(self, selector: str) -> None:
        """Press the mouse on the middle of an element."""
        box = self.value(
            f"(() => {{ const b = document.querySelector({json.dumps(selector)}).getBoundingClientRect();"
            " return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call(
                "Input.dispatchMouseEvent", {"type": kind, "x": box[0], "y": box[1], "button": "left", "clickCount": 1}
            )

    def text(self, selector: str = "body") -> str:
        return str(self.value(f"document.querySelector({json.dumps(selector)}).innerText"))

    def events(self, *methods: str) -> list[dict[str, Any]]:
        """What the page reported so far."""
        self.value("1")  # reads what is still on its way
        return [
            event["params"]
            for event in self._browser.events
            if event.get("sessionId") == self._session and event["method"] in methods
        ]

    def complaints(self) -> list[str]:
        """Script errors, console messages, policy violations."""
        return [
            json.dumps(one)
            for one in self.events("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        ]

    def requested(self) -> list[str]:
        return [str(one["request"]["url"]) for one in self.events("Network.requestWillBeSent")]

    def close(self) -> None:
        self._browser.call("Target.closeTarget", {"targetId": self._target})


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """Chromium with a profile of its own; every process that it started ends with it."""
    assert CHROMIUM is not None
    from_us, to_browser = os.pipe()
    from_browser, from_them = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 20) for end in (from_us, from_them)]
    quiet = os.open(os.devnull, os.O_RDWR)
    actions = [(os.POSIX_SPAWN_DUP2, high[0], 3), (os.POSIX_SPAWN_DUP2, high[1], 4)]
    actions += [(os.POSIX_SPAWN_DUP2, quiet, number) for number in (1, 2)]
    argv = [CHROMIUM, *_FLAGS, f"--user-data-dir={profile}", "about:blank"]
    process = os.posix_spawn(CHROMIUM, argv, os.environ, file_actions=actions, setpgroup=0)
    for end in (from_us, from_them, *high, quiet):
        os.close(end)
    started = Browser(process, to_browser, from_browser)
    try:
        yield started
    finally:
        with suppress(AssertionError, OSError):
            started.call("Browser.close")
        with suppress(ProcessLookupError):
            os.killpg(process, signal.SIGKILL)
        os.waitpid(process, 0)
        os.close(to_browser)
        os.close(from_browser)
