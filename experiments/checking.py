"""New numbers against the committed ones: each may differ by no more than the committed interval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def outside(committed: Mapping[str, Mapping[str, Any]], made: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One line for each number that lies outside, is gone, or is not among the committed ones.

    A committed number without an interval (a single seed's rank) must come out the same to a millionth.
    """
    lines = [f"{name}: committed, but not made again" for name in committed if name not in made]
    lines += [f"{name}: made, but not among the committed numbers" for name in made if name not in committed]
    for name, old in committed.items():
        if name in made and not _holds(old, made[name]["value"]):
            lines.append(f"{name}: {made[name]['value']} is outside {_said(old)} (`{old['command']}`)")
    return lines


def _holds(old: Mapping[str, Any], new: float | None) -> bool:
    if old["value"] is None or new is None:
        return bool(old["value"] is None and new is None)
    low, high = old["ci95"] or (old["value"], old["value"])
    slack = 1e-6 * max(1.0, abs(old["value"]))
    return bool(low - slack <= new <= high + slack)


def _said(old: Mapping[str, Any]) -> str:
    return f"{old['ci95']}" if old["ci95"] else f"{old['value']}"
