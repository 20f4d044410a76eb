"""The command line on the shipped model with tiny dials: a run of seconds in which every stage is real."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from trimtab import cli

TINY = (
    *("--windtunnel.pairs", "32"),
    *("--windtunnel.prompts", "16"),
    *("--train.max-steps", "2"),
    *("--train.batch-pairs", "8"),
)


def call(words: Sequence[str | Path], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of one command."""
    try:
        cli.main([str(word) for word in words])
        code = 0
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@contextmanager
def alone(home: Path) -> Iterator[None]:
    """A cache folder of its own and no socket at all, for runs that several tests look at."""

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("the run reached for the network")

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRIMTAB_HOME", str(home))
        patch.setattr(socket.socket, "connect", refused)
        patch.setattr(socket, "getaddrinfo", refused)
        yield


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def tree_of(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, with its bytes."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
