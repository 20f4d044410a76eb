"""The trackers that a configuration names, as callbacks of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trimtab.config import Config, to_json
from trimtab.progress import Reporter
from trimtab.runtime.run_setup import RunSetup
from trimtab.tracking.follower import TrackerProcess

Plain = str | int | float | bool | None


def trackers(setup: RunSetup, *, reporter: Reporter) -> list[TrackerProcess]:
    """One for each of `track.to`."""
    config = setup.config
    return [
        TrackerProcess(
            name,
            folder=setup.folder.root,
            project=config.track.project,
            run_name=_run_name(setup.folder.root),
            config=flat(config),
            offline=config.offline,
            reporter=reporter,
        )
        for name in config.track.to
    ]


def flat(config: Config) -> dict[str, Plain]:
    """The configuration by dotted key; what is no plain value is its JSON."""
    tree: dict[str, Any] = to_json(config)
    values: dict[str, Any] = {}
    for name, value in tree.items():
        values |= {f"{name}.{key}": of for key, of in value.items()} if isinstance(value, dict) else {name: value}
    return {name: value if isinstance(value, Plain) else json.dumps(value) for name, value in values.items()}


def _run_name(folder: Path) -> str:
    """The last parts of the folder's path, as many as tell runs of a sweep apart."""
    parts = [part for part in folder.parts[-3:] if part not in ("/", ".", "..", "runs", "points")]
    return "-".join(parts) or folder.resolve().name
