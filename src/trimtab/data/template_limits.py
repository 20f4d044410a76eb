"""What a foreign chat template may cost. Jinja's sandbox keeps it from running code, but not from running for ever.

Time and memory are bounded around each rendering, in CPU seconds, so that a loaded machine refuses nothing. Arithmetic
that would be one single call of the interpreter, which nothing can break off, is refused beforehand.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

CPU_SECONDS = 5.0  # a real template takes well under a thousandth
MEMORY_BYTES = 2**30  # on top of what the process has; the longest real conversation needs a few MB
SPARE_CHARACTERS = 1_000_000  # beyond four times the conversation
_LARGEST_FACTOR = 10_000  # templates repeat a space or a dash; at this factor a text of a kB takes 10 MB


class TooCostlyError(Exception):
    """The template asked for more than one rendering may have."""


def refusal(template: str) -> str:
    """Why the text of a template is refused unseen; empty where it is not."""
    from jinja2 import Environment, TemplateSyntaxError

    try:
        tokens = [
            (kind, value) for _, kind, value in Environment(autoescape=True).lex(template) if kind != "whitespace"
        ]
    except TemplateSyntaxError:
        return ""  # it will not render either
    for place, (kind, value) in enumerate(tokens):
        if kind == "operator" and value == "**":
            return "it raises numbers to powers (**)"
        if kind == "operator" and value == "*" and not _by_small_number(tokens, place):
            return "it multiplies (*) by something that is not a small number"
    return ""


def _by_small_number(tokens: Sequence[tuple[str, str]], place: int) -> bool:
    """`a * 3` or `3 * a`, but not the second of `3 * a * b` or of `a * 3 * b`."""

    def small(at: int) -> bool:
        kind, value = tokens[at] if 0 <= at < len(tokens) else ("", "")
        return kind == "integer" and int(value, 0) <= _LARGEST_FACTOR

    return small(place + 1) or (small(place - 1) and tokens[place - 2][1] not in {"*", "**"})


@contextmanager
def limits(characters: int) -> Iterator[list[str]]:
    """Bounds what happens within, where the rendered text is appended to the list. `characters`: of the conversation.

    Raises TooCostlyError and MemoryError. Time is bounded in a process's main thread on POSIX, memory on Linux.
    """
    outputs: list[str] = []
    with _time(), _memory():
        yield outputs
    if sum(map(len, outputs)) > SPARE_CHARACTERS + 4 * characters:
        raise TooCostlyError(f"it writes more than {SPARE_CHARACTERS:,} characters of its own")


@contextmanager
def _time() -> Iterator[None]:
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def over(_number: int, _frame: FrameType | None) -> None:
        raise TooCostlyError(f"it renders for more than {CPU_SECONDS:g} s")

    before = signal.signal(signal.SIGVTALRM, over)
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


@contextmanager
def _memory() -> Iterator[None]:
    pages = Path("/proc/self/statm")
    if not pages.exists():
        yield
        return
    import resource

    used = int(pages.read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = min([used + MEMORY_BYTES, *(ceiling for ceiling in (soft, hard) if ceiling != resource.RLIM_INFINITY)])
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        with suppress(ValueError):
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
