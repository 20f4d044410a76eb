"""How one process of several ends: with its work's exit code, after what was registered for its end."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

WORK = """
import atexit, sys
from trimtab.commands.launch import end_after
atexit.register(lambda: print("registered"))
def work():
    print("work", end=" ")
    {end}
end_after(work)
"""


def _end(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WORK.format(end=code)], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("end", "code"), [("pass", 0), ("sys.exit()", 0), ("sys.exit(143)", 143), ("sys.exit('no')", 1), ("1 / 0", 1)]
)
def test_the_code_is_that_of_the_work(end: str, code: int) -> None:
    done = _end(end)
    assert done.returncode == code
    assert done.stdout == "work registered\n"
    assert ("ZeroDivisionError" in done.stderr) == (end == "1 / 0")


def test_the_command_line_of_one_process_of_several_keeps_its_exit_code() -> None:
    words = [sys.executable, "-m", "trimtab", "no-such-command"]
    done = subprocess.run(
        words, env=os.environ | {"RANK": "0"}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "no-such-command" in done.stderr
