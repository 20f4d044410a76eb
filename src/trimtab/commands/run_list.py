"""Which runs there are, and what came of each: from the files in their folders, nothing is loaded."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from trimtab import disk, store
from trimtab.errors import ConfigError, StoreError
from trimtab.reporting.text import columns, value_text

State = Literal["reported", "trained", "stopped", "begun", "damaged"]


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run. `step`: of its newest checkpoint; `win_rate`: of the first judge, in %; `bytes` on disk."""

    name: str
    state: State
    objective: str
    model: str
    data: str
    seeds: int
    step: int | None
    regime: str | None
    win_rate: float | None
    win_rate_ci95: tuple[float, float] | None
    bytes: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class RunList:
    folder: str
    runs: tuple[RunRow, ...]

    def to_json(self) -> dict[str, Any]:
        return {"folder": self.folder, "runs": [row.to_json() for row in self.runs]}


def main(folder: str) -> RunList:
    """Every run at or below `folder`, the points of sweeps too; the seeds of one run are one row.

    Raises ConfigError where there is no such folder.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ConfigError(f"no such folder: {root}", remedy="name the folder that holds your runs: trimtab ls runs")
    return RunList(folder, tuple(_row(run, root) for run in _runs(root)))


def lines(result: RunList) -> list[str]:
    """A table for a terminal."""
    if not result.runs:
        return [f"no runs in {result.folder}: `trimtab run` makes one"]
    head = ["run", "state", "objective", "model", "regime", "win rate %", "size"]
    rows = [
        [
            row.name,
            row.state if row.state != "stopped" else f"stopped at step {row.step}",
            row.objective if row.seeds == 1 else f"{row.objective}, {row.seeds} seeds",
            row.model,
            row.regime or "–",
            "–" if row.win_rate is None else value_text(row.win_rate, row.win_rate_ci95),
            disk.size(row.bytes),
        ]
        for row in result.runs
    ]
    return [*columns([head, *rows]), f"  {disk.size(sum(row.bytes for row in result.runs))} in all"]


def folder_bytes(folder: Path) -> int:
    """What the files below a folder take on the disk; a file that goes away meanwhile counts nothing."""
    total = 0
    for parent, _folders, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(parent) / name).lstat().st_size
            except FileNotFoundError:
                continue
    return total


def runs_below(root: Path) -> list[Path]:
    """The run folders at or below `root`: those with a `config.json` of ours, and of several seeds the parent alone."""
    return list(_runs(root))


def _runs(root: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(root):
        folder = Path(parent)
        if "config.json" in names and _config(folder) is not None:
            folders.clear()
            yield folder
        folders[:] = sorted(name for name in folders if not name.startswith("."))


def _config(folder: Path) -> dict[str, Any] | None:
    """A resolved configuration of ours; a model's `config.json` has other keys."""
    try:
        tree = store.read_json(folder / "config.json")
    except StoreError:
        return {}
    is_run = isinstance(tree, dict) and all(isinstance(tree.get(key), dict) for key in ("model", "data", "objective"))
    return tree if is_run else None


def _row(folder: Path, root: Path) -> RunRow:
    tree = _config(folder) or {}
    report = _report(folder / "report.json")
    step = max((_step(path) for path in folder.glob("**/checkpoints/step-*")), default=None)
    judges: Sequence[dict[str, Any]] = (report.get("benchmark") or {}).get("judges") or []
    rate = judges[0]["win_rate"] if judges else {}
    seeds = (report.get("training") or {}).get("seeds") or []
    regimes = dict.fromkeys(seed["regime"]["name"] or "unnamed" for seed in seeds)
    source = tree.get("data", {}).get("source", "?")
    bounds = rate.get("ci95")
    return RunRow(
        name=str(folder.relative_to(root)) if folder != root else folder.name,
        state=_state(folder, tree, report, step),
        objective=tree.get("objective", {}).get("name", "?"),
        model=tree.get("model", {}).get("name", "?"),
        data=source if isinstance(source, str) else ", ".join(source),
        seeds=tree.get("seeds", 1),
        step=step,
        regime=", ".join(regimes) or None,
        win_rate=rate.get("value"),
        win_rate_ci95=None if bounds is None else (bounds[0], bounds[1]),
        bytes=folder_bytes(folder),
    )


def _report(path: Path) -> dict[str, Any]:
    try:
        tree = store.read_json(path) if path.is_file() else {}
    except StoreError:
        return {}
    return tree if isinstance(tree, dict) else {}


def _step(path: Path) -> int:
    number = path.name.removeprefix("step-")
    return int(number) if number.isdecimal() else 0


def _state(folder: Path, tree: dict[str, Any], report: dict[str, Any], step: int | None) -> State:
    if not tree:
        return "damaged"
    if report:
        return "reported"
    if any(folder.glob("model")) or any(folder.glob("seed-*/model")):
        return "trained"
    return "begun" if step is None else "stopped"
