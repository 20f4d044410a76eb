"""Experiment trackers (`--track`): what a run writes of itself, handed on to other people's dashboards.

    follower    the callback of a run: starts a process for each tracker, and writes events into its pipe
    process     that process: reads events, keeps a note of what was delivered, calls the library
    libraries   one small class a library

A library runs in a process of its own, so that nothing that it does (raise, hang, crash, print, catch signals, fill the
memory) reaches the training. The note, `tracking/NAME.json` in the run folder, says which steps were delivered: a run
that goes on sends the others, to the same run of the tracker.
"""

from __future__ import annotations

from collections.abc import Iterable

from trimtab.errors import require_package

PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow", "trackio": "trackio"}


def require(names: Iterable[str]) -> None:
    """Raises UserError for a tracker whose library is not installed."""
    for name in names:
        require_package(PACKAGES[name], extra="track", reason=f"track: {name}")
