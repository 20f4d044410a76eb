"""results.json as a page to read: medians with the smallest and largest, and what the numbers are of."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

DENSE = "trimtab, dense"
BUSY = 0.8  # of all threads; contenders alone on a machine stay above it
Samples = dict[int, dict[str, Any]]


def text(results: dict[str, Any]) -> str:
    about, settings, work = results["about"], results["settings"], results["workload"]
    disturbed = [row for row in results["samples"] if is_disturbed(row, settings["threads"])]
    contenders = _by_contender([row for row in results["samples"] if row not in disturbed])
    order = dict.fromkeys(row["contender"] for row in results["samples"])
    matmul = {repeat: row["matmul"] for repeat, row in contenders.pop("matmul").items()}
    best = _best_of_trl(contenders)
    pairs, (prompt, chosen, rejected) = settings["pairs"], work["tokens"]
    lines = [
        "# trimtab against TRL",
        "",
        f"{about['date']}, commit {about['commit']}, {about['minutes']} minutes. {about['machine']}.",
        *(f"{side.capitalize()}: {_versions(found)}." for side, found in about["versions"].items()),
        "",
        f"    {about['command']}",
        "",
        f"Shape {settings['shape']}, random weights, fp32, full fine-tuning, AdamW; {pairs} pairs an "
        f"optimizer step with lengths like {settings['lengths']} (mean tokens: prompt {prompt / pairs:.0f}, "
        f"chosen {chosen / pairs:.0f}, rejected {rejected / pairs:.0f}). "
        f"{settings['repeats']} repeats; median (smallest to largest).",
        f"TRL's best is “{best}”; its other settings ran once. Active rates are shares of response tokens. "
        "“Above model” is the peak without libraries, weights, gradients and optimizer state.",
        "",
        "| | s a pair | times TRL's best | of the dense time | backward skipped | peak GB | … above model, GB |",
        "|---|---|---|---|---|---|---|",
        *(_row(name, contenders[name], contenders, best, pairs) for name in order if name in contenders),
        "",
        *_left_out(disturbed, pairs),
        *_speed(contenders.get(DENSE, {}), matmul, work["training_operations"]),
        *_startup(results["startup"]),
    ]
    return "\n".join(lines) + "\n"


def is_disturbed(row: dict[str, Any], threads: int) -> bool:
    """Whether other work took the processor away from a measurement."""
    return row["contender"] != "matmul" and row["cpu"] / row["seconds"] / threads < BUSY


def _left_out(disturbed: list[dict[str, Any]], pairs: int) -> list[str]:
    if not disturbed:
        return []
    told = "; ".join(f"{row['contender']}, {row['seconds'] / pairs:.2f} s a pair" for row in disturbed)
    return [f"Left out, because other work took more than {1 - BUSY:.0%} of the processor meanwhile: {told}.", ""]


def _by_contender(samples: list[dict[str, Any]]) -> dict[str, Samples]:
    found: dict[str, Samples] = {}
    for row in samples:
        found.setdefault(row["contender"], {})[row["repeat"]] = row
    return found


def _best_of_trl(contenders: dict[str, Samples]) -> str:
    """The one that stayed for all repeats; the fastest, after the first."""

    def standing(name: str) -> tuple[int, float]:
        return len(contenders[name]), -median(row["seconds"] for row in contenders[name].values())

    return max((name for name in contenders if name.startswith("TRL")), key=standing)


def _row(name: str, rows: Samples, contenders: dict[str, Samples], best: str, pairs: int) -> str:
    seconds = _spread([row["seconds"] / pairs for row in rows.values()], 2)
    faster = _ratios(contenders[best], rows)
    of_dense = _ratios(rows, contenders.get(DENSE, {}))
    skipped = next(iter(rows.values())).get("skipped")
    peak, above = (median(row[key] for row in rows.values()) / 1e9 for key in ("peak", "above"))
    return (
        f"| {name} | {seconds} | {_spread(faster, 2)} | {_spread(of_dense, 2)} | "
        f"{'' if skipped is None else f'{skipped:.0%}'} | {peak:.2f} | {above:.2f} |"
    )


def _ratios(over: Samples, under: Samples) -> list[float]:
    """Within a repeat, so that what slows the machine for a while slows both."""
    return [over[repeat]["seconds"] / under[repeat]["seconds"] for repeat in over if repeat in under]


def _speed(dense: Samples, matmul: dict[int, float], operations: float) -> list[str]:
    share = [operations / dense[repeat]["seconds"] / matmul[repeat] for repeat in dense]
    return [
        f"Fastest fp32 matrix product, measured in each repeat: {_spread([s / 1e9 for s in matmul.values()], 0)} "
        f"GFLOP/s. Training dense reaches {_spread([100 * s for s in share], 0)} % of it, counting only the "
        f"{operations / 1e12:.2f} TFLOP that the gradient needs: no recomputed logits, no optimizer.",
        "",
    ]


def _startup(startup: dict[str, Any]) -> list[str]:
    if not startup:
        return []
    first, second = startup["reference"]["first"], startup["reference"]["second"]
    return [
        f"`trimtab --help`: {_spread(startup['help_seconds'], 2)} s. `trimtab reference`, the whole command: "
        f"{first['seconds']:.1f} s for {first['computed']} responses on an empty cache, {second['seconds']:.1f} s in a "
        f"second run, which computed {second['computed']}; of either, {startup['import_seconds']:.1f} s are imports.",
    ]


def _spread(values: list[float], digits: int) -> str:
    if not values:
        return ""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def _versions(found: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in found.items())


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    print(text(json.loads((folder / "results.json").read_text(encoding="utf-8"))))
