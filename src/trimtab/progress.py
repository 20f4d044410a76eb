"""How long work shows itself: bars with rates and time left on a terminal, plain lines everywhere else.

Everything goes to stderr, so that stdout stays free for `--json`. A reporter is a value that is handed to whoever does
the work; there is no global one. Text that comes from a model, a data set or a judge is shown through `printable`.

    show = reporter(quiet=False)
    show.say("wind tunnel: 1,024 prompts")
    with show.track("train", total=300, unit="steps") as advance:
        for step in steps:
            advance(loss=step.loss)
"""

from __future__ import annotations

import os
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import IO, TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress

Figure = float | int | str
Clock = Callable[[], float]

_JOINERS = "\u200c\u200d"  # zero-width, but part of how Persian and emoji are written


class Advance(Protocol):
    """Call it with the units just done, and figures to show with them (the last value of each name stays).

    The figure `seconds_left` is the time left by a better measure than units done: the rate is then not shown.
    """

    def __call__(self, n: int = 1, /, **figures: Figure) -> None: ...


class Reporter(Protocol):
    """Where a stage shows what it is doing."""

    def say(self, line: str, /) -> None:
        """One line for people. Control characters are shown, never obeyed."""

    def track(
        self, description: str, /, *, total: int | None, unit: str, n_done: int = 0
    ) -> AbstractContextManager[Advance]:
        """A task of `total` units (None = unknown; `unit` in the plural), `n_done` of them by a run that stopped."""


def reporter(*, quiet: bool = False, stream: IO[str] | None = None) -> Reporter:
    """Bars when `stream` (default stderr) is a terminal that can draw them; plain lines when not, or when quiet."""
    stream = sys.stderr if stream is None else stream
    draws = stream.isatty() and os.environ.get("TERM", "") not in {"dumb", "unknown"}
    return RichReporter(stream) if draws and not quiet else PlainReporter(stream)


def printable(text: str, *, keep_newlines: bool = False) -> str:
    """The text with everything that could steer a terminal or reorder a line written out, as in `\\x1b[31m`.

    Control characters (C0, C1), bidirectional and other invisible format characters, line and paragraph separators and
    lone surrogates become escapes; the two joiners of ordinary writing stay. `keep_newlines` keeps newlines and tabs.
    """
    stays = _JOINERS + ("\n\t" if keep_newlines else "")
    return "".join(
        char.encode("unicode_escape").decode("ascii")
        if unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"} and char not in stays
        else char
        for char in text
    )


@contextmanager
def track_if_slow(
    reporter: Reporter,
    description: str,
    /,
    *,
    total: int | None,
    unit: str,
    patience: float = 5.0,
    clock: Clock = time.monotonic,
) -> Iterator[Advance]:
    """A task that shows itself once it has taken `patience` seconds: what is mostly short and sometimes minutes."""
    start, n_done = clock(), 0
    task: Advance | None = None
    with ExitStack() as stack:

        def advance(n: int = 1, /, **figures: Figure) -> None:
            nonlocal n_done, task
            n_done += n
            if task is not None:
                task(n, **figures)
            elif clock() - start >= patience:
                task = stack.enter_context(reporter.track(description, total=total, unit=unit, n_done=n_done))

        yield advance


class SilentReporter:
    """Shows nothing: for library use, where the caller has words of their own."""

    def say(self, line: str, /) -> None:
        pass

    @contextmanager
    def track(  # the parameters are the protocol's
        self,
        description: str,  # noqa: ARG002 - see above
        /,
        *,
        total: int | None,  # noqa: ARG002 - see above
        unit: str,  # noqa: ARG002 - see above
        n_done: int = 0,  # noqa: ARG002 - see above
    ) -> Iterator[Advance]:
        def advance(n: int = 1, /, **figures: Figure) -> None:
            pass

        yield advance


class PlainReporter:
    """Lines without a single control character: the first and the last of each task, and one in `interval` seconds."""

    def __init__(self, stream: IO[str], *, interval: float = 5.0, clock: Clock = time.monotonic) -> None:
        self._stream, self._interval, self._clock = stream, interval, clock
        self._lock = threading.Lock()
        self._last_line_at = clock()

    def say(self, line: str, /) -> None:
        with self._lock:
            self._write(printable(line))

    @contextmanager
    def track(self, description: str, /, *, total: int | None, unit: str, n_done: int = 0) -> Iterator[Advance]:
        meter = _Meter(description, total=total, unit=unit, n_done=n_done, clock=self._clock)

        def advance(n: int = 1, /, **figures: Figure) -> None:
            with self._lock:
                meter.advance(n, figures)
                if self._clock() - self._last_line_at >= self._interval and not meter.complete:
                    self._write(f"{meter.description}: {meter.figures()}")

        with self._lock:
            self._write(f"{meter.description}: {meter.count()}")
        try:
            yield advance
            meter.is_stopped = False
        finally:
            with self._lock:
                self._write(meter.last_line())

    def _write(self, line: str) -> None:
        self._last_line_at = self._clock()
        self._stream.write(line + "\n")
        self._stream.flush()


class RichReporter:
    """Bars that are redrawn in place; a finished task leaves one line. `stream` must be a terminal."""

    def __init__(self, stream: IO[str], *, clock: Clock = time.monotonic) -> None:
        from rich.console import Console

        self._console = Console(file=stream, highlight=False, markup=False, emoji=False)
        self._clock = clock
        self._lock = threading.Lock()
        self._bars: Progress | None = None  # one live display, shared by tasks inside tasks

    def say(self, line: str, /) -> None:
        with self._lock:
            self._console.print(printable(line), soft_wrap=True)
            if self._bars is not None:
                self._bars.refresh()

    @contextmanager
    def track(self, description: str, /, *, total: int | None, unit: str, n_done: int = 0) -> Iterator[Advance]:
        meter = _Meter(description, total=total, unit=unit, n_done=n_done, clock=self._clock)
        with self._lock:
            if self._bars is None:
                self._bars = _bars(self._console)
                self._bars.start()
            bars = self._bars
            task = bars.add_task(meter.description, total=total, completed=n_done, meter=meter)

        def advance(n: int = 1, /, **figures: Figure) -> None:
            with self._lock:
                meter.advance(n, figures)
            bars.advance(task, n)

        try:
            yield advance
            meter.is_stopped = False
        finally:
            with self._lock:
                bars.remove_task(task)
                self._console.print(meter.last_line(), soft_wrap=True)
                if not bars.task_ids:
                    bars.stop()
                    self._bars = None


def _bars(console: object) -> Progress:
    """A rich display that draws description, bar and the meter's own words, and leaves stdout alone."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
    from rich.table import Column
    from rich.text import Text

    class Words(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(task.fields["meter"].figures())

    assert isinstance(console, Console)
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        Words(table_column=Column(no_wrap=True)),
        console=console,
        transient=True,
        redirect_stdout=False,
    )


class _Meter:
    """Counts, rate and time left of one task, and the words for them. The rate counts only what this run did."""

    def __init__(self, description: str, *, total: int | None, unit: str, n_done: int, clock: Clock) -> None:
        self.description, self._unit = printable(description), printable(unit)
        self._total, self._done_before, self._done = total, n_done, n_done
        self._clock, self._start = clock, clock()
        self._figures: dict[str, Figure] = {}
        self._seconds_left: Figure | None = None
        self.is_stopped = True  # until the work has left its block without an error

    def advance(self, n: int, figures: Mapping[str, Figure]) -> None:
        self._done += n
        self._figures.update(figures)
        self._seconds_left = self._figures.pop("seconds_left", self._seconds_left)

    @property
    def complete(self) -> bool:
        return self._total is not None and self._done >= self._total

    def count(self) -> str:
        of = "" if self._total is None else f" of {self._total:,}"
        return f"{self._done:,}{of} {self._unit}"

    def figures(self) -> str:
        """For example `120 of 300 steps (40 %), 3.2 steps/s, 0:56 left, loss 0.693`."""
        share = f" ({100 * self._done // self._total} %)" if self._total else ""
        rate = self._rate()
        words = [self.count() + share]
        if self._seconds_left is not None:
            words.append(f"{duration(float(self._seconds_left))} left")
        elif rate:
            words.append(self._rate_words(rate))
            if self._total is not None and not self.complete:
                words.append(f"{duration((self._total - self._done) / rate)} left")
        return ", ".join(words + self._figure_words())

    def last_line(self) -> str:
        """For example `train: 300 of 300 steps in 1:34, 3.2 steps/s`; `stopped at` when an error ended the task."""
        rate, time_taken = self._rate(), duration(self._clock() - self._start)
        start = f"{self.description}: {'stopped at ' if self.is_stopped else ''}"
        words = [f"{start}{self.count()} in {time_taken}", *([self._rate_words(rate)] if rate else [])]
        return ", ".join(words + self._figure_words())

    def _rate(self) -> float:
        """Units a second; 0 while it cannot be known."""
        seconds = self._clock() - self._start
        return (self._done - self._done_before) / seconds if seconds > 0 else 0.0

    def _rate_words(self, rate: float) -> str:
        return f"{_figure(rate)} {self._unit}/s" if rate >= 1 else f"{_figure(1 / rate)} s each"

    def _figure_words(self) -> list[str]:
        return [f"{printable(name)} {_figure(value)}" for name, value in self._figures.items()]


def _figure(value: Figure) -> str:
    """Whole numbers with separators, others with three significant digits."""
    match value:
        case str():
            return printable(value)
        case int():
            return f"{value:,}"
        case _:
            return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """`0:07`, `12:34` or `3:05:09`."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
