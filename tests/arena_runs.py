"""Run folders and answer files for the command, and the command as a process that a person stops."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from trimtab.records import Answer
from trimtab.runtime.folder import Folder


def answers(texts: Sequence[str], generator: str, *, ids: bool = True) -> list[dict[str, Any]]:
    """AlpacaEval's `model_outputs`, with this project's ids or, as others write them, without."""
    rows = [
        Answer(f"p{i}", f"question {i}", text, generator, "math" if i % 2 else "writing").to_json()
        for i, text in enumerate(texts)
    ]
    return rows if ids else [{name: row[name] for name in ("instruction", "output", "generator")} for row in rows]


def put(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def a_run(root: Path, name: str, *, n: int = 4, benchmark: str = "eval", baseline: str = "tiny") -> Path:
    """A run folder after `generate`: its answers, and its baseline's by `baseline`."""
    folder = Folder(root)
    put(folder.answers(benchmark), answers([f"{name} says {i}" for i in range(n)], f"{name} aligned"))
    put(folder.baseline_answers(benchmark), answers([f"{baseline} says {i}" for i in range(n)], baseline))
    put(folder.config, {"model": {"name": "tiny"}, "benchmark": {"name": benchmark}})
    return root


@dataclass
class Said:
    """A reporter that keeps what was said, and knows the address once it was told."""

    lines: list[str] = field(default_factory=list)
    told: threading.Event = field(default_factory=threading.Event)

    def say(self, line: str, /) -> None:
        self.lines.append(line)
        if line.startswith("http://"):
            self.told.set()

    @property
    def url(self) -> str:
        assert self.told.wait(60), f"no address was told: {self.lines}"
        return next(line for line in self.lines if line.startswith("http://"))


def ask(url: str, action: str, body: object = None) -> dict[str, Any]:
    """One request of the page's kind, and what it said."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    try:
        if body is None:
            connection.request("GET", parts.path + action)
        else:
            told = json.dumps(body)
            connection.request("POST", parts.path + action, body=told, headers={"Content-Type": "application/json"})
        answer: dict[str, Any] = json.loads(connection.getresponse().read())
        return answer
    finally:
        connection.close()


def prefer(url: str, name: str, times: int) -> None:
    """Choose the answer that `name` gave, wherever it stands."""
    for _ in range(times):
        view = ask(url, "state")
        said = "left" if view["match"]["left"][0].startswith(name) else "right"
        ask(url, "choose", {"ticket": view["ticket"], "said": said})


class Process:
    """`trimtab arena …` in a process of its own."""

    def __init__(self, words: Sequence[str | Path], *, cwd: Path) -> None:
        environ = {name: value for name, value in os.environ.items() if name not in {"DISPLAY", "WAYLAND_DISPLAY"}}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "trimtab.cli", "arena", *map(str, words)],
            cwd=cwd, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.said: list[str] = []

    @property
    def url(self) -> str:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)
            if found := re.match(r"http://\S+", line):
                return found[0]
        raise AssertionError("".join(self.said))

    def ended(self, number: int | None = None) -> tuple[int, str, str]:
        """Exit code and what was said, after a signal if one is named."""
        if number is not None:
            self.process.send_signal(number)
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err
