"""The callback that feeds a tracker's process. It never waits for it while the run goes on, and never stops the run."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from trimtab import store
from trimtab.callbacks import Callback, End, Milestone, Step
from trimtab.errors import StoreError
from trimtab.progress import Reporter

END_SECONDS = 30.0  # that the end of a run waits for a tracker; what it has not done by then it does by itself
MEASURES = ("accuracy", "loss", "drift")


class TrackerProcess(Callback):
    """One tracker of one run. `config`: flat, by dotted key. Nothing starts before the first event."""

    def __init__(
        self, name: str, *, folder: Path, project: str, run_name: str, config: Mapping[str, Any], reporter: Reporter,
        offline: bool = False,
    ) -> None:  # fmt: skip
        self._name, self._folder, self._reporter = name, folder, reporter
        self._note = folder / "tracking" / f"{name}.json"
        self.first_event = {
            "tracker": name,
            "folder": str(folder.resolve()),
            "project": project,
            "name": run_name,
            "config": dict(config),
            "offline": offline,
        }
        self._events: queue.SimpleQueue[Mapping[str, Any] | None] = queue.SimpleQueue()
        self._process: subprocess.Popen[str] | None = None
        self._writer: threading.Thread | None = None
        self._is_lost = False

    def step(self, event: Step, /) -> None:
        if self._process is None and not self._is_lost:
            self._start()
            self._send_earlier(before=event.step)
        self._events.put({"step": event.step, "values": _values(event.metrics)})
        self._say_if_lost()

    def milestone(self, event: Milestone, /) -> None:
        values = {name: getattr(event, name) for name in (*MEASURES, "reward_gap")}
        self._events.put({"milestone": event.step, "values": _heldout(values)})

    def end(self, event: End, /) -> None:
        """Everything that is in the folder and was not delivered, then the end; a bounded wait."""
        if self._process is None and not self._is_lost:
            self._start()
        if self._process is None or self._writer is None:
            return
        self._send_earlier(before=None)
        self._events.put({"outcome": event.outcome, "report": None if event.report is None else str(event.report)})
        self._events.put(None)
        self._writer.join(END_SECONDS)
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._say(f"{self._name} has not taken everything after {END_SECONDS:.0f} s; it goes on by itself")
            return
        self._say_if_lost()

    def _start(self) -> None:
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "trimtab.tracking.process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
                start_new_session=True,  # Ctrl-C is for the run
            )
        except OSError as error:
            self._is_lost = True
            self._say(f"{self._name} cannot be started ({error.strerror or error})")
            return
        assert self._process.stdin is not None
        self._events.put(self.first_event)
        self._writer = threading.Thread(target=_write, args=(self._events, self._process.stdin), daemon=True)
        self._writer.start()

    def _send_earlier(self, *, before: int | None) -> None:
        """The steps of earlier lives of the run, or all; the process leaves out what was delivered."""
        for row in _rows(self._folder / "metrics.jsonl"):
            if before is None or row["step"] < before:
                self._events.put({"step": row["step"], "values": _values(row)})
        if before is None and (path := self._folder / "selection.json").is_file():
            for entry in store.read_json(path)["milestones"]:
                values = {name: (entry.get(name) or {}).get("value") for name in MEASURES}
                self._events.put({"milestone": entry["step"], "values": _heldout(values)})

    def _say_if_lost(self) -> None:
        if self._is_lost or self._process is None or self._process.poll() in (None, 0):
            return
        self._is_lost = True
        try:
            problem = store.read_json(self._note)["problem"]
        except (StoreError, KeyError, TypeError):
            problem = None
        self._say(f"{self._name} failed ({problem or f'exit code {self._process.returncode}'}); the run goes on")

    def _say(self, sentence: str) -> None:
        self._reporter.say(f"track: {sentence}. `trimtab run {self._folder}` sends what is missing")


def _write(events: queue.SimpleQueue[Mapping[str, Any] | None], pipe: IO[str]) -> None:
    """Events until None; where nobody reads any more they are let go."""
    try:
        with pipe:
            while (event := events.get()) is not None:
                pipe.write(json.dumps(event) + "\n")
                pipe.flush()
    except (OSError, ValueError):
        while events.get() is not None:
            pass


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    if path.is_file():
        yield from store.iter_jsonl(path)


def _values(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "step"}


def _heldout(values: Mapping[str, float | None]) -> dict[str, float]:
    return {f"heldout/{name}": value for name, value in values.items() if value is not None}
