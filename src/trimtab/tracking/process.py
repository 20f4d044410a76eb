"""`python -m trimtab.tracking.process`: events as JSON lines on stdin, into one library.

The first line is the run (`TrackedRun`), then `{"step"|"milestone": N, "values": {…}}`, last `{"outcome": …}`; a pipe
that closes before means that the run was killed. `tracking/NAME.json` notes what was delivered, at most a second late:
what a kill in that second lets be sent twice has the same step and the same values.
"""

from __future__ import annotations

import json
import queue
import sys
import threading
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trimtab import store
from trimtab.errors import StoreError
from trimtab.tracking.libraries import LIBRARIES, TrackedRun

NOTE_SECONDS = 1.0


@dataclass(slots=True)
class Note:
    """`id` of the tracker's run; the last `step` and `milestone` that were delivered; what the library raised."""

    id: str
    step: int = 0
    milestone: int = 0
    problem: str | None = None

    @classmethod
    def read(cls, path: Path) -> Note:
        try:
            tree = store.read_json(path)
            return cls(tree["id"], tree["step"], tree["milestone"])
        except (StoreError, KeyError, TypeError):
            return cls(uuid.uuid4().hex[:8])


def main() -> None:
    events: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    begin = json.loads(sys.stdin.readline())
    threading.Thread(target=_read, args=(events,), daemon=True).start()
    path = Path(begin["folder"]) / "tracking" / f"{begin['tracker']}.json"
    note = Note.read(path)
    try:
        _deliver(begin, events, note, path)
    except Exception as error:
        first = (str(error).strip() or "no message").splitlines()[0]
        note.problem = f"{type(error).__name__}: {first}"
        raise
    finally:
        store.write_json(path, asdict(note))


def _read(events: queue.SimpleQueue[dict[str, Any]]) -> None:
    """At once, however long the library takes: the run must never find the pipe full."""
    for line in sys.stdin:
        events.put(json.loads(line))
    events.put({"outcome": "failed", "report": None})


def _deliver(begin: dict[str, Any], events: queue.SimpleQueue[dict[str, Any]], note: Note, path: Path) -> None:
    is_known, tracker = path.is_file(), LIBRARIES[begin.pop("tracker")]()
    tracker.begin(TrackedRun(**begin | {"id": note.id, "is_known": is_known}))
    store.write_json(path, asdict(note))
    noted_at = time.monotonic()
    while "outcome" not in (event := events.get()):
        kind = "step" if "step" in event else "milestone"
        if event[kind] > getattr(note, kind):
            tracker.log(event["values"], step=event[kind])
            setattr(note, kind, event[kind])
        if time.monotonic() - noted_at > NOTE_SECONDS:
            store.write_json(path, asdict(note))
            noted_at = time.monotonic()
    tracker.end(event["outcome"], event["report"])


if __name__ == "__main__":
    main()
