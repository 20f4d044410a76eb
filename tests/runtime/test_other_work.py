"""What other processes use of the machine, from counters that are known."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from trimtab.runtime import other_work
from trimtab.runtime.other_work import OtherWork


class Machine:
    """Seconds on the clock, of all processes, and of this one."""

    def __init__(self) -> None:
        self.now = self.busy = self.own = 0.0

    def run(self, seconds: float, *, own: float, others: float) -> None:
        self.now += seconds
        self.own += own * seconds
        self.busy += (own + others) * seconds

    def watch(self) -> OtherWork:
        return OtherWork(busy_seconds=lambda: self.busy, own_seconds=lambda: self.own, clock=lambda: self.now)


@pytest.fixture(autouse=True)
def _two_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(other_work, "_processors", lambda: {0, 1})


def test_nothing_is_said_until_others_take_a_quarter_of_a_processor_and_the_share_is_that_of_the_last_look() -> None:
    machine = Machine()
    watch = machine.watch()
    machine.run(10, own=2.0, others=0.0)
    assert watch.words() == {}
    machine.run(10, own=1.9, others=0.1)
    assert watch.words() == {}
    machine.run(4, own=1.0, others=0.75)
    assert watch.words() == {"others": "0.8 of 2 CPUs"}
    machine.run(4, own=2.0, others=0.0)
    assert watch.words() == {"others": "0.0 of 2 CPUs"}, "what stays on the line must not go on saying 0.8"


def test_own_work_beyond_the_clock_is_nobody_elses() -> None:
    """Ticks are counted coarsely: own time may be ahead of them."""
    machine = Machine()
    watch = machine.watch()
    machine.run(1, own=2.0, others=-0.1)
    assert watch.words() == {}


def test_a_system_without_these_counters_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert OtherWork(busy_seconds=lambda: None).words() == {}
    monkeypatch.setattr(other_work, "_processors", lambda: {10_000})  # not in the list: a container's own numbers
    assert other_work._busy_seconds() is None


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="Linux counts processors' work there")
def test_a_busy_process_beside_this_one_is_seen() -> None:
    code = (
        "import subprocess, sys, time, os\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from trimtab.runtime.other_work import OtherWork\n"
        "busy = subprocess.Popen([sys.executable, '-c', 'while True: pass'])\n"
        "watch = OtherWork(); time.sleep(1.0); words = watch.words(); busy.kill(); print(words['others'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert float(done.stdout.split()[0]) > 0.5
