"""What is printed: a value as JSON or as lines for people, and progress as it comes."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from typing import TypeVar

from trimtab.progress import Reporter, SilentReporter, printable
from trimtab.progress import reporter as progress_reporter

T = TypeVar("T")


class _ReporterHandler(logging.Handler):
    """The engine's warnings, as lines that do not cut into a progress bar."""

    def __init__(self, reporter: Reporter) -> None:
        super().__init__()
        self._reporter = reporter

    def emit(self, record: logging.LogRecord) -> None:
        self._reporter.say(record.getMessage())


def reporter(*, quiet: bool = False, silent: bool = False) -> Reporter:
    """A command's own reporter, which shows the engine's warnings too. `silent`: another process reports."""
    own = SilentReporter() if silent else progress_reporter(quiet=quiet)
    logger = logging.getLogger("trimtab")
    logger.handlers, logger.propagate = [_ReporterHandler(own)], False
    return own


def show(value: T, as_json: bool, lines: Callable[[T], list[str]]) -> None:
    """Print a command's result: one JSON object (a tree, or what its `to_json` makes), or its lines for people."""
    if as_json:
        tree = value.to_json() if hasattr(value, "to_json") else value
        ascii_only = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
        text = json.dumps(tree, ensure_ascii=ascii_only, allow_nan=False)
        print(text.encode("utf-8", "backslashreplace").decode("utf-8"))  # a lone surrogate as JSON writes it
        return
    for line in lines(value):
        print(printable(line))
