"""What people see of long work, on a terminal and off it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from typing import Any

import pytest

from trimtab.progress import PlainReporter, RichReporter, SilentReporter, duration, printable, reporter, track_if_slow


class Clock:
    """A clock that moves when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_lines_come_first_last_and_every_few_seconds() -> None:
    out, clock = io.StringIO(), Clock()
    show = PlainReporter(out, interval=5.0, clock=clock)
    with show.track("train", total=300, unit="steps") as advance:
        for _ in range(300):  # half a second a step: 150 s, a line at every tenth step
            clock.now += 0.5
            advance(loss=0.6931, tokens=2048)
    lines = out.getvalue().splitlines()
    assert lines[0] == "train: 0 of 300 steps"
    assert lines[1] == "train: 10 of 300 steps (3 %), 2 steps/s, 2:25 left, loss 0.693, tokens 2,048"
    assert lines[-1] == "train: 300 of 300 steps in 2:30, 2 steps/s, loss 0.693, tokens 2,048"
    assert len(lines) == 1 + 29 + 1


def test_rate_counts_only_what_this_run_did() -> None:
    out, clock = io.StringIO(), Clock()
    show = PlainReporter(out, interval=5.0, clock=clock)
    with show.track("reference", total=1000, unit="rows", n_done=900) as advance:
        clock.now += 10
        advance(20)
        clock.now += 40
        advance(80)
    assert out.getvalue().splitlines() == [
        "reference: 900 of 1,000 rows",
        "reference: 920 of 1,000 rows (92 %), 2 rows/s, 0:40 left",
        "reference: 1,000 of 1,000 rows in 0:50, 2 rows/s",
    ]


def test_slow_work_gives_seconds_each_and_an_unknown_total_no_time_left() -> None:
    out, clock = io.StringIO(), Clock()
    show = PlainReporter(out, interval=5.0, clock=clock)
    with show.track("judge", total=None, unit="answers") as advance:
        clock.now += 25
        advance(2)
    assert out.getvalue().splitlines() == [
        "judge: 0 answers",
        "judge: 2 answers, 12.5 s each",
        "judge: 2 answers in 0:25, 12.5 s each",
    ]


@pytest.mark.parametrize("make", [PlainReporter, RichReporter])
def test_work_that_fails_says_where_it_stopped(make: Any) -> None:
    out, clock = Terminal(), Clock()
    show = make(out, clock=clock)

    def work() -> None:
        with show.track("train", total=10, unit="steps") as advance:
            clock.now += 2
            advance(4)
            raise KeyError

    with pytest.raises(KeyError):
        work()
    assert "train: stopped at 4 of 10 steps in 0:02, 2 steps/s" in out.getvalue()


def test_the_reporter_suits_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(reporter(stream=Terminal()), RichReporter)
    assert isinstance(reporter(stream=Terminal(), quiet=True), PlainReporter)
    assert isinstance(reporter(stream=io.StringIO()), PlainReporter)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(reporter(stream=Terminal()), PlainReporter)


def test_a_terminal_gets_a_bar_with_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    out, clock = Terminal(), Clock()
    show = RichReporter(out, clock=clock)
    with show.track("sweep [red]", total=2, unit="runs") as outer, show.track("train", total=8, unit="steps") as inner:
        clock.now += 2
        inner(4, loss=0.5)
        outer()
        show.say("[bold]not markup[/bold] \x1b[31m")
    drawn = out.getvalue()
    assert "━" in drawn
    assert "4 of 8 steps (50 %), 2 steps/s, 0:02 left, loss 0.5" in drawn
    assert "sweep [red]" in drawn
    assert "[bold]not markup[/bold] \\x1b[31m" in drawn


@pytest.mark.parametrize("quiet", [False, True])
def test_off_a_terminal_stderr_is_plain_and_stdout_is_only_json(quiet: bool) -> None:
    script = (
        "import sys, json; from trimtab.progress import reporter\n"
        f"show = reporter(quiet={quiet}); show.say('hello \\x1b[31m')\n"
        "with show.track('work', total=2, unit='things') as advance:\n"
        "    advance(); advance(note='\\x1b]0;title\\x07')\n"
        "print(json.dumps({'done': True}))\n"
        "assert not {'torch', 'rich', 'numpy'} & set(sys.modules), 'plain progress imports nothing heavy'\n"
    )
    environment = {**os.environ, "TERM": "xterm", "FORCE_COLOR": "1"}
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, env=environment, check=True)
    assert json.loads(ran.stdout) == {"done": True}
    assert b"\x1b" not in ran.stderr
    assert b"work: 0 of 2 things\n" in ran.stderr
    assert ran.stderr.startswith(b"hello \\x1b[31m\n")


def test_silence() -> None:
    show = SilentReporter()
    show.say("nothing")
    with show.track("nothing", total=1, unit="things") as advance:
        advance(1, loss=0.1)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, ünïcode, 中文, 👍🏽", "plain, ünïcode, 中文, 👍🏽"),
        ("\x1b[2J\x07\x9b1m\x7f", "\\x1b[2J\\x07\\x9b1m\\x7f"),
        ("a\nb\tc\rd", "a\\nb\\tc\\rd"),
        ("user\u202etxt.exe\u2066", "user\\u202etxt.exe\\u2066"),
        ("\ud800\u2028\u200b", "\\ud800\\u2028\\u200b"),
        ("👩\u200d👩 نمی\u200cخواهم", "👩\u200d👩 نمی\u200cخواهم"),
    ],
)
def test_printable_shows_what_would_steer_a_terminal(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(printable(text)) == shown


def test_printable_can_keep_the_shape_of_an_answer() -> None:
    assert printable("two\nlines\t\x1b[1m", keep_newlines=True) == "two\nlines\t\\x1b[1m"


def test_duration() -> None:
    assert [duration(s) for s in (0, 6.6, 754, 11109)] == ["0:00", "0:07", "12:34", "3:05:09"]


@pytest.mark.parametrize(("seconds_each", "is_slow"), [(1.0, False), (3.0, True)])
def test_a_task_shows_itself_once_it_is_slow(seconds_each: float, is_slow: bool) -> None:
    out, clock = io.StringIO(), Clock()
    show = PlainReporter(out, interval=5.0, clock=clock)
    with track_if_slow(show, "held-out pairs", total=4, unit="responses", clock=clock) as advance:
        for _ in range(4):
            clock.now += seconds_each
            advance(1)
    lines = out.getvalue().splitlines()
    assert bool(lines) == is_slow
    if is_slow:  # five seconds are over after the second of the four
        assert lines[0] == "held-out pairs: 2 of 4 responses"
        assert lines[-1].startswith("held-out pairs: 4 of 4 responses in 0:06")
