"""New numbers against the committed ones: each may differ by no more than the committed interval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Entry = Mapping[str, Any]  # of `numbers.json`


def differences(old: Mapping[str, Entry], new: Mapping[str, Entry]) -> list[str]:
    """One line for each number that lies outside, is gone, or is not among the committed ones.

    A committed number without an interval (a single seed's rank) must come out the same to a millionth.
    """
    lines = [f"{name}: committed, but not made again" for name in old if name not in new]
    lines += [f"{name}: made, but not among the committed numbers" for name in new if name not in old]
    for name, entry in old.items():
        if name in new and not _is_within(entry, new[name]["value"]):
            bounds = entry["ci95"] or entry["value"]
            lines.append(f"{name}: {new[name]['value']} is outside {bounds} (`{entry['command']}`)")
    return lines


def _is_within(old: Entry, new: float | None) -> bool:
    if old["value"] is None or new is None:
        return bool(old["value"] is None and new is None)
    low, high = old["ci95"] or (old["value"], old["value"])
    slack = 1e-6 * max(1.0, abs(old["value"]))
    return bool(low - slack <= new <= high + slack)
