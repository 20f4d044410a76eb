"""time-to-accuracy-….json as a page. `python benchmarks/time_to_accuracy_table.py [FOLDER]` writes it there."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import machine

NAME = "TIME_TO_ACCURACY.md"


def write(folder: Path) -> None:
    """A section a machine."""
    files = sorted(folder.glob("time-to-accuracy-*.json"))
    sections = [section(json.loads(path.read_text(encoding="utf-8"))) for path in files]
    text = "# Time to a held-out accuracy beside TRL\n\nReal weights, real pairs, DPO unless said, one epoch.\n\n"
    (folder / NAME).write_text(text + "\n".join(sections or ["No run is kept here yet.\n"]), encoding="utf-8")


def section(results: dict[str, Any]) -> str:
    runs = results["runs"]
    steps = [look["step"] for look in runs[0]["looks"]]
    lines = [
        f"## {results['about']['machine']}",
        "",
        *machine.lines(results["about"]),
        f"Batches of {results['batch']} pairs. Seconds of training until a look, and the accuracy then (95 % "
        "interval). Reference: of the training pairs, the passes alone.",
        "",
        "| | reference, s | " + " | ".join(f"step {step}" for step in steps) + " |",
        "|---" * (2 + len(steps)) + "|",
        *(_row(run) for run in runs),
        "",
        *_paces(runs),
        *_ratios(runs),
        "",
        "Sides run one after another, once each, and accuracies of looks within each other's intervals are not told "
        "apart: the pace is the figure to trust, the time to an accuracy may be one pair's luck.",
    ]
    return "\n".join(lines) + "\n"


def _row(run: dict[str, Any]) -> str:
    looks = [
        f"{look['seconds']:.0f} s, {100 * look['value']:.1f} % ({', '.join(f'{100 * b:.0f}' for b in look['ci95'])})"
        for look in run["looks"]
    ]
    return f"| {name(run)} | {run['reference_seconds']:.0f} | {' | '.join(looks)} |"


def name(run: dict[str, Any]) -> str:
    return f"{run['side']}, {run['objective']}, {run['adapter']}, {run['rate']:g}"


def _paces(runs: list[dict[str, Any]]) -> list[str]:
    """Seconds of all steps, theirs over ours, of runs with the same adapter."""
    lines = []
    for theirs in (run for run in runs if run["side"] == "TRL"):
        for ours in (run for run in runs if (run["side"], run["adapter"]) == ("trimtab", theirs["adapter"])):
            times = [run["looks"][-1]["seconds"] for run in (theirs, ours)]
            lines.append(
                f"- Pace, {theirs['looks'][-1]['step']} steps: {name(theirs)} {times[0]:.0f} s, {name(ours)} "
                f"{times[1]:.0f} s, {times[0] / times[1]:.1f} times."
            )
    return lines


def _ratios(runs: list[dict[str, Any]]) -> list[str]:
    """Seconds to the best accuracy that a run of TRL's showed, reference included, over ours."""
    lines = []
    for theirs in (run for run in runs if run["side"] == "TRL"):
        best = max(theirs["looks"], key=lambda look: (look["value"], -look["seconds"]))
        for ours in (run for run in runs if run["side"] == "trimtab"):
            reached = next((look for look in ours["looks"] if look["value"] >= best["value"]), None)
            text = f"{name(theirs)} first shows its best, {100 * best['value']:.1f} %, at step {best['step']}; "
            if reached is None:
                lines.append(f"- {text}{name(ours)} never shows as much.")
                continue
            times = [run["reference_seconds"] + look["seconds"] for run, look in ((theirs, best), (ours, reached))]
            lines.append(
                f"- {text}{name(ours)} shows as much at step {reached['step']}: "
                f"{times[0]:.0f} s against {times[1]:.0f}, {times[0] / times[1]:.1f} times."
            )
    return lines


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
