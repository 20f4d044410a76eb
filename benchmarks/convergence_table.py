"""convergence.json as a page to read. `python benchmarks/convergence_table.py [FOLDER]` writes CONVERGENCE.md there."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

import machine
from table import spread

SAME = 0.01
"""How far apart the weights may end, as a share of the way that training went: rounding that grew over the steps."""
# shares of response tokens: no backward pass; nothing computed; computed twice, since the forecast was wrong
_SHARES = {"backward skipped": "skipped_backward", "forward skipped": "skipped_forward", "promoted": "promoted"}
LEVELS = [0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]


def text(results: dict[str, Any]) -> str:
    lines = [
        "# Time to a held-out reward accuracy, screening off and on",
        "",
        *machine.lines(results["about"]),
        f"Seed {results['seed']}, {results['repeats']} repeats in turns, medians (smallest to largest); ratios within "
        "a repeat. Seconds are the runs' own training seconds. Held-out accuracy is that of each checkpoint's weights, "
        "computed after the run. “Screened” is `engine.screening = auto`, the default; “dense” is `off`.",
        "",
    ]
    for task in results["tasks"]:
        lines += _task(task)
    return "\n".join(lines)


def _task(task: dict[str, Any]) -> list[str]:
    runs: dict[str, dict[int, list[dict[str, Any]]]] = {}
    for run in task["runs"]:
        runs.setdefault(run["mode"], {})[run["repeat"]] = run["rows"]
    dense, *others = runs
    steps = len(runs[dense][0])
    levels = _reached(task["accuracy"][dense])
    head = ["", "training s", "of dense", *(f"s to {level:g}" for level in levels), *_SHARES]
    return [
        f"## {task['task'].capitalize()}",
        "",
        f"    {task['words']}",
        "",
        f"{steps} steps. {_paths(task)}",
        "",
        _line(head),
        _line(["---"] * len(head)),
        *(_total(mode, runs, dense, levels, task["accuracy"]) for mode in runs),
        "",
        *_epochs(runs, dense, others),
        "",
        *(
            f"Held-out accuracy at steps, {mode}: {', '.join(f'{step} {value:.3f}' for step, value in found)}.\n"
            for mode, found in task["accuracy"].items()
            if mode == dense or found != task["accuracy"][dense]
        ),
    ]


def _paths(task: dict[str, Any]) -> str:
    told = []
    for mode, path in (task["exact"] | task["approximate"]).items():
        same = "the same path" if path["apart"] <= SAME else "**another path**"
        verdict = f"approximate, by {path['apart']:.1e}" if mode in task["approximate"] else same
        told.append(
            f"Dense and {mode}: {verdict} (final weights apart by {path['apart']:.1e} of the way from the start; "
            f"metrics by at most {path['metrics']:.1e} of their largest value)."
        )
    told.append("Repeats are identical." if task["repeats_identical"] else "**Repeats of one run differ.**")
    return " ".join(told)


def _reached(accuracy: Sequence[tuple[int, float]]) -> list[float]:
    """The highest three levels that were reached in training."""
    start, best = accuracy[0][1], max(value for _, value in accuracy)
    return [level for level in LEVELS if start < level <= best][-3:]


def _total(
    mode: str,
    runs: dict[str, dict[int, list[dict[str, Any]]]],
    dense: str,
    levels: list[float],
    accuracy: dict[str, list[tuple[int, float]]],
) -> str:
    rows = runs[mode]
    totals = {repeat: found[-1]["seconds"] for repeat, found in rows.items()}
    of_dense = [total / runs[dense][repeat][-1]["seconds"] for repeat, total in totals.items()]
    cells = [mode, spread(list(totals.values()), 1), spread(of_dense, 2)]
    for level in levels:
        step = next((step for step, value in accuracy[mode] if value >= level), None)
        cells.append("" if step is None else f"{median(found[step - 1]['seconds'] for found in rows.values()):.1f}")
    return _line([*cells, *(f"{_weighed(rows[0], key):.0%}" for key in _SHARES.values())])


def _epochs(runs: dict[str, dict[int, list[dict[str, Any]]]], dense: str, others: list[str]) -> list[str]:
    """Active rates and time by epoch; the rates are those of the dense run."""
    head = ["epoch", "active: chosen", "rejected", "pair", "dense s"]
    for mode in others:
        head += [f"{mode} s", "of dense", "backward skipped"]
    lines = [_line(head), _line(["---"] * len(head))]
    epochs = sorted({_epoch(row) for row in runs[dense][0]})
    for epoch in epochs:
        part = [row for row in runs[dense][0] if _epoch(row) == epoch]
        cells = [str(epoch), *(f"{_mean(part, f'active/{key}'):.2f}" for key in ("chosen", "rejected", "pair"))]
        times = {mode: {n: _seconds(rows, epoch) for n, rows in of.items()} for mode, of in runs.items()}
        cells.append(spread(list(times[dense].values()), 1))
        for mode in others:
            ratios = [times[mode][n] / times[dense][n] for n in times[mode]]
            skipped = _weighed([row for row in runs[mode][0] if _epoch(row) == epoch], "skipped_backward")
            cells += [spread(list(times[mode].values()), 1), spread(ratios, 2), f"{skipped:.0%}"]
        lines.append(_line(cells))
    return lines


def _epoch(row: dict[str, Any]) -> int:
    """1 for the steps of the first epoch; a row says what share of the data has been seen after it."""
    return math.ceil(round(row["epoch"], 6))


def _seconds(rows: list[dict[str, Any]], epoch: int) -> float:
    before = [row["seconds"] for row in rows if _epoch(row) < epoch]
    return max(row["seconds"] for row in rows if _epoch(row) == epoch) - (max(before) if before else 0.0)


def _mean(rows: Sequence[dict[str, Any]], key: str) -> float:
    return fmean(row[key] for row in rows)


def _weighed(rows: Sequence[dict[str, Any]], key: str) -> float:
    """Mean of a share, steps weighed by their tokens."""
    return sum(row.get(key, 0.0) * row["tokens"] for row in rows) / sum(row["tokens"] for row in rows)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    found = json.loads((folder / "convergence.json").read_text(encoding="utf-8"))
    (folder / "CONVERGENCE.md").write_text(text(found), encoding="utf-8")
