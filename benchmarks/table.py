"""results-*.json as one page to read: a section a run, medians with the smallest and largest, what the numbers are of.

python benchmarks/table.py [FOLDER]        writes RESULTS.md there
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import machine
from workload import LENGTHS, SHAPES

DENSE = "trimtab, dense"
PLAIN_PRODUCTS = "trimtab, dense, matrix products by torch's default library"
ONE_PAIR = "trimtab, dense, one pair a pack"
LEAN = "trimtab, dense, one pair a pack, checkpointing"
ONE_SIDED = "trimtab, chosen active, rejected not"
MAIN = ("60m", "ultrafeedback")
BUSY = 0.8  # of all threads; contenders alone on a machine stay above it
Samples = dict[int, dict[str, Any]]


def screened(rate: float) -> str:
    return f"trimtab, screened, {rate:g} active"


def mistaken(rate: float) -> str:
    return f"{screened(rate)}, a tenth of the forecasts wrong"


def shrunk(rate: float) -> str:
    return f"trimtab, screened and shrunk, {rate:g} active"


def write(folder: Path) -> None:
    """RESULTS.md of all results in the folder."""
    found = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("results-*.json"))]
    found.sort(key=_place)
    (folder / "RESULTS.md").write_text("\n".join([_HEAD, *map(section, found)]), encoding="utf-8")


_HEAD = """# trimtab against TRL

One section a run: the same model with random weights, the same pairs, fp32, full fine-tuning, AdamW, both sides
taking turns on one machine. Times are medians (smallest to largest); ratios are taken within a repeat. Active rates
are shares of response tokens, forced through the references; the coefficients are the objective's own. A screened
step has the forecast that the last visit of the same pairs would have given it: responses forecast inactive are
looked at without gradient first. “A tenth of the forecasts wrong”: for 10 % of the response tokens the forecast
says the contrary, and what turns out active pays a second pass. “Shrunk”: 90 % of the inactive tokens are not
computed at all, which is approximate. “Matrix products by torch's default library”: the same dense step without
oneDNN's fp32 kernels, which trimtab uses where they beat MKL's; on other processors the two are the same. “Above
model” is the peak of the process without libraries, weights, gradients and optimizer state. What is compared, and
why that is fair: [README](README.md).
"""


def _place(results: dict[str, Any]) -> tuple[int, int]:
    told = results["settings"]
    return list(SHAPES).index(told["shape"]), list(LENGTHS).index(told["lengths"])


def section(results: dict[str, Any]) -> str:
    settings, work, samples = results["settings"], results["workload"], results["samples"]
    disturbed = [row for row in samples if is_disturbed(row, settings["threads"])]
    contenders = _by_contender([row for row in samples if row not in disturbed and "error" not in row])
    order = dict.fromkeys(row["contender"] for row in samples)
    matmul = {repeat: row["matmul"] for repeat, row in contenders.pop("matmul").items()}
    best = _best_of_trl(contenders)
    pairs, (prompt, chosen, rejected) = settings["pairs"], work["tokens"]
    share = _share_of_peak(contenders.get(DENSE, {}), matmul, work["training_operations"])
    lines = [
        f"## Shape {settings['shape']}, lengths like {settings['lengths']}",
        "",
        *machine.lines(results["about"]),
        f"{pairs} pairs an optimizer step (mean tokens: prompt {prompt / pairs:.0f}, chosen {chosen / pairs:.0f}, "
        f"rejected {rejected / pairs:.0f}); {settings['repeats']} repeats. "
        + (f"TRL's best is “{best}”; its other settings ran once." if best else "TRL gave no time."),
        "",
        "| | active | s a pair | times TRL's best | of the dense time | backward skipped | peak GB | … above model |",
        "|---|---|---|---|---|---|---|---|",
        *(_row(name, contenders[name], contenders, best, pairs) for name in order if name in contenders),
        "",
        *_held_to(results, contenders, best, share),
        *_left_out(disturbed, pairs),
        *_failed(samples),
        f"Fastest fp32 matrix product, measured in each repeat: {spread([s / 1e9 for s in matmul.values()], 0)} "
        f"GFLOP/s. Training dense reaches {spread([100 * s for s in share], 0)} % of it, counting only the "
        f"{work['training_operations'] / 1e12:.2f} TFLOP that the gradient needs: nothing recomputed, no optimizer.",
        "",
        *_startup(results["startup"]),
    ]
    return "\n".join(lines)


def is_disturbed(row: dict[str, Any], threads: int) -> bool:
    """Whether other work took the processor away from a measurement."""
    return "cpu" in row and row["cpu"] / row["seconds"] / threads < BUSY


def _left_out(disturbed: list[dict[str, Any]], pairs: int) -> list[str]:
    if not disturbed:
        return []
    times: dict[str, list[str]] = {}
    for row in disturbed:
        times.setdefault(row["contender"], []).append(f"{row['seconds'] / pairs:.2f}")
    told = "; ".join(f"{name}, {' and '.join(found)} s a pair" for name, found in times.items())
    return [f"Left out, because other work took more than {1 - BUSY:.0%} of the processor meanwhile: {told}.", ""]


def _failed(samples: list[dict[str, Any]]) -> list[str]:
    names = dict.fromkeys(row["contender"] for row in samples if "error" in row)
    return [f"Ended without an answer: {'; '.join(names)}.", ""] if names else []


def _by_contender(samples: list[dict[str, Any]]) -> dict[str, Samples]:
    found: dict[str, Samples] = {}
    for row in samples:
        found.setdefault(row["contender"], {})[row["repeat"]] = row
    return found


def _of_trl(contenders: dict[str, Samples]) -> list[str]:
    return [name for name in contenders if name.startswith("TRL")]


def _best_of_trl(contenders: dict[str, Samples]) -> str:
    """The one that stayed for all repeats; the fastest, after the first. Empty where none answered."""

    def standing(name: str) -> tuple[int, float]:
        return len(contenders[name]), -median(row["seconds"] for row in contenders[name].values())

    return max(_of_trl(contenders), key=standing, default="")


def _row(name: str, rows: Samples, contenders: dict[str, Samples], best: str, pairs: int) -> str:
    each = [row["seconds"] / pairs for row in rows.values()]
    seconds = spread(each, 2 if median(each) >= 0.1 else 4)
    faster = _ratios(contenders.get(best, {}), rows)
    of_dense = _ratios(rows, contenders.get(DENSE, {}))
    active, skipped = (_percent(next(iter(rows.values())).get(key)) for key in ("active", "skipped"))
    peak, above = (median(row[key] for row in rows.values()) / 1e9 for key in ("peak", "above"))
    return (
        f"| {name} | {active} | {seconds} | {spread(faster, 2)} | {spread(of_dense, 2)} | {skipped} | "
        f"{peak:.2f} | {above:.2f} |"
    )


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"


def _ratios(over: Samples, under: Samples) -> list[float]:
    """Within a repeat, so that what slows the machine for a while slows both."""
    return [over[repeat]["seconds"] / under[repeat]["seconds"] for repeat in over if repeat in under]


def _share_of_peak(dense: Samples, matmul: dict[int, float], operations: float) -> list[float]:
    return [operations / dense[repeat]["seconds"] / matmul[repeat] for repeat in dense]


# --- what the main run is held to ------------------------------------------------------------------------------------


def _held_to(results: dict[str, Any], contenders: dict[str, Samples], best: str, share: list[float]) -> list[str]:
    """The targets that this project has set itself, beside what came out."""
    settings = results["settings"]
    if (settings["shape"], settings["lengths"]) != MAIN:
        return []
    targets = [
        *_against_trl(contenders, best),
        Target("dense: share of the fp32 matrix-product ceiling", 0.7, 0.82, share),
        *_against_dense(contenders),
        *_memory(contenders),
        *_reference(results["startup"]),
    ]
    rows = [target.row for target in targets if target.values]
    return ["| held to | floor | aim | measured | |", "|---|---|---|---|---|", *rows, ""]


@dataclass(frozen=True)
class Target:
    what: str
    floor: float
    aim: float
    values: list[float]
    at_most: bool = False

    @property
    def row(self) -> str:
        sign, value = -1 if self.at_most else 1, median(self.values)
        met = [name for name, bound in (("aim", self.aim), ("floor", self.floor)) if sign * value >= sign * bound]
        bounds = " | ".join(f"{'≤ ' if self.at_most else '≥ '}{bound:g}" for bound in (self.floor, self.aim))
        return f"| {self.what} | {bounds} | {spread(self.values, 2)} | {[*met, '**missed**'][0]} |"


def _against_trl(contenders: dict[str, Samples], best: str) -> Iterator[Target]:
    for what, name, floor, aim in (
        ("every response active", DENSE, 4.5, 6),
        ("0.3 active, exact", screened(0.3), 7, 9),
        ("0.1 active, exact", screened(0.1), 9, 13),
        ("0.1 active, shrunk", shrunk(0.1), 12, 20),
    ):
        values = _ratios(contenders.get(best, {}), contenders.get(name, {}))
        yield Target(f"times TRL's best, {what}", floor, aim, values)


def _against_dense(contenders: dict[str, Samples]) -> Iterator[Target]:
    for rate, floor, aim in ((1, 1.02, 1.0), (0.7, 1.0, 1.0), (0.5, 0.85, 0.85), (0.3, 0.65, 0.65), (0.1, 0.5, 0.45)):
        values = _ratios(contenders.get(screened(rate), {}), contenders.get(DENSE, {}))
        yield Target(f"screened, {rate:g} active: of the dense time", floor, aim, values, at_most=True)


def _memory(contenders: dict[str, Samples]) -> Iterator[Target]:
    """Peak above the model against the leanest that TRL ran with."""
    trl = [median(row["above"] for row in contenders[name].values()) for name in _of_trl(contenders)]
    for name in (ONE_PAIR, LEAN):
        ours = [row["above"] for row in contenders.get(name, {}).values()]
        values = [min(trl) / median(ours)] if trl and ours else []
        how = name.removeprefix("trimtab, dense, ")
        yield Target(f"memory above model, times less than TRL's leanest: {how}", 5, 8, values)


def _reference(startup: dict[str, Any]) -> Iterator[Target]:
    if startup:
        seconds = startup["reference"]["second"]["seconds"] - startup["import_seconds"]
        what = "second run's reference in seconds, a difference of two timings: the command and its imports"
        yield Target(what, 2, 2, [seconds], at_most=True)


def _startup(startup: dict[str, Any]) -> list[str]:
    if not startup:
        return []
    first, second = startup["reference"]["first"], startup["reference"]["second"]
    return [
        f"`trimtab --help`: {spread(startup['help_seconds'], 2)} s. `trimtab reference`, the whole command: "
        f"{first['seconds']:.1f} s for {first['computed']} responses on an empty cache, {second['seconds']:.1f} s in a "
        f"second run, which computed {second['computed']}; of either, {startup['import_seconds']:.1f} s are imports.",
        "",
    ]


def spread(values: Sequence[float], digits: int) -> str:
    """Median (smallest to largest)."""
    if not values:
        return ""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
