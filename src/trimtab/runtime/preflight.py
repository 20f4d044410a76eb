"""Before several processes train: whether they see the same run, and whether there is work for each."""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from trimtab import store
from trimtab.config import to_json
from trimtab.errors import ConfigError
from trimtab.records import digest
from trimtab.runtime.run_setup import RunSetup
from trimtab.version import __version__

PACKAGES = ("torch", "transformers", "peft", "safetensors", "numpy")


def agree(setup: RunSetup) -> None:
    """Raises ConfigError on all processes where one of them sees other data, keys or packages than the first, or where
    a batch has fewer pairs than there are processes. Wants the run's data, prepared."""
    processes = setup.processes
    if processes.alone:
        return
    train = setup.config.train
    if train.batch_pairs < processes.size:
        raise ConfigError(
            f"a batch of {train.batch_pairs} pairs cannot be dealt to {processes.size} processes",
            remedy=f"start {train.batch_pairs} processes at most, or raise train.batch_pairs",
        )
    refuse_difference(processes.gather(_view(setup)))


def refuse_difference(views: Sequence[dict[str, Any]]) -> None:
    """Raises ConfigError where what a process sees (by name, in order of rank) is not what the first sees."""
    first = views[0]
    for rank, view in enumerate(views):
        if keys := [key for key in first if view.get(key) != first[key] and key != "host"]:
            key = keys[0]
            raise ConfigError(
                f"process {rank} on {view['host']} differs from the first, on {first['host']}, in {key}: "
                f"{_short(view.get(key))} there, {_short(first[key])} here",
                remedy="install the same packages everywhere, give all the same command, and put the run folder and "
                "TRIMTAB_HOME on a disk that all hosts share",
            )


def view_of_packages() -> dict[str, Any]:
    """What this process computes with, by name."""
    versions = {name: metadata.version(name) for name in PACKAGES}
    return {"host": socket.gethostname(), "trimtab": __version__, "python": sys.version.split()[0], **versions}


def _view(setup: RunSetup) -> dict[str, Any]:
    files = [setup.folder.data / name for name in ("train.jsonl", "heldout.jsonl")]
    data = digest([store.file_digest(file) for file in files]) if all(file.is_file() for file in files) else "not there"
    weights = setup.model_identity.weights
    return view_of_packages() | {"data": data, "configuration": digest(to_json(setup.config)), "model": weights}


def _short(value: Any) -> str:
    return f"{value}"[:12]
