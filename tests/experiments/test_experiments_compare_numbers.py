"""`--check`: a number may move within the committed interval, not out of it, and none may come or go unsaid."""

from __future__ import annotations

from typing import Any

from experiments.compare_numbers import differences


def entry(value: float | None, ci95: list[float] | None = None) -> dict[str, Any]:
    return {"value": value, "ci95": ci95, "command": "trimtab sweep x.toml"}


def test_within_and_differences() -> None:
    old = {"a": entry(1.0, [0.5, 1.5])}
    assert differences(old, {"a": entry(1.5)}) == []
    (line,) = differences(old, {"a": entry(1.6)})
    assert line == "a: 1.6 is outside [0.5, 1.5] (`trimtab sweep x.toml`)"


def test_without_an_interval_it_must_come_out_the_same() -> None:
    assert differences({"a": entry(3.0)}, {"a": entry(3.0 + 1e-7)}) == []
    assert len(differences({"a": entry(3.0)}, {"a": entry(3.1)})) == 1
    assert differences({"a": entry(None)}, {"a": entry(None)}) == []
    assert len(differences({"a": entry(None)}, {"a": entry(0.0)})) == 1


def test_what_is_gone_and_what_is_new_is_named() -> None:
    lines = differences({"gone": entry(1.0)}, {"new": entry(1.0)})
    assert lines == ["gone: committed, but not made again", "new: made, but not among the committed numbers"]
