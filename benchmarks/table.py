"""results-*.json as one page to read: a section a run, medians with the smallest and largest, what the numbers are of.

python benchmarks/table.py [FOLDER]        writes RESULTS.md there
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import machine
from workload import LENGTHS, SHAPES

DENSE = "trimtab, dense, fp32"
MIXED = "trimtab, dense, mixed"
BASELINE = "trimtab before, dense, fp32"
ONE_PAIR = "trimtab, dense, fp32, one pair a pack"
LEAN = "trimtab, dense, fp32, one pair a pack, checkpointing"
HELD_TO = "smollm2-135m"
RANKED = 4  # completions a prompt
SHARED = "shared-machine.json"
AS_IT_IS, ONE_THREAD, BEFORE = "trimtab", "trimtab, one thread", "trimtab before"
DISTURBED = 0.2  # of the processors that a contender may use, taken by others
Samples = dict[int, dict[str, Any]]


def trl(precision: str) -> str:
    """How the names of TRL's settings in this precision begin; without one, of all."""
    return f"TRL, {precision}, " if precision else "TRL, "


def file_name(settings: dict[str, Any]) -> str:
    """Of what a run measures; the file's name has the machine before it."""
    parts = [settings["shape"], settings["lengths"], settings["adapter"]]
    ranked = f"-{settings['completions']}-completions" if settings["completions"] > 2 else ""
    return f"{'-'.join(parts)}{ranked}"


def screened(rate: float) -> str:
    return f"trimtab, screened, fp32, {rate:g} active"


def mistaken(rate: float) -> str:
    return f"{screened(rate)}, a tenth of the forecasts wrong"


def shrunk(rate: float) -> str:
    return f"trimtab, screened and shrunk, fp32, {rate:g} active"


def write(folder: Path) -> None:
    """RESULTS.md of all results in the folder."""
    found = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("results-*.json"))]
    found.sort(key=_place)
    beside = [shared_machine(json.loads((folder / SHARED).read_text()))] if (folder / SHARED).exists() else []
    sections = [*map(section, found), *beside] or ["No run of this form is kept here yet.\n"]
    (folder / "RESULTS.md").write_text("\n".join([_HEAD, *sections]), encoding="utf-8")


_HEAD = """# trimtab against TRL

One section a run: the same model, the same pairs, AdamW, both sides taking turns on one machine. Times are medians
(smallest to largest); ratios are taken within a repeat. “Times TRL's best”: rows in fp32 beside TRL's fastest setting
in fp32, mixed ones beside its fastest of all, bf16 included where the processor's bf16 products are the faster ones.
Active rates are shares of response tokens, forced through the references; the coefficients are the objective's own. A
screened step has the forecast that the last visit of the same pairs would have given it. “A tenth of the forecasts
wrong”: for 10 % of the response tokens the forecast says the contrary, and what turns out active pays a second pass.
“Shrunk”: 90 % of the inactive tokens are not computed at all, which is approximate. “Above model” is the peak of the
process without libraries, weights, gradients and optimizer state. Shares of a ceiling count only the operations that
the gradient needs: every prompt and every distinct response once, nothing recomputed, no optimizer. A floor that a
processor of another kind is held to is not in its section. What is compared, and why that is fair: [README](README.md).
"""


def _place(results: dict[str, Any]) -> tuple[Any, ...]:
    told = results["settings"]
    shape = list(SHAPES).index(told["shape"])
    return results["about"]["machine"], shape, told["lengths"] not in LENGTHS, told["completions"], told["adapter"]


def section(results: dict[str, Any]) -> str:
    settings, work, samples = results["settings"], results["workload"], results["samples"]
    disturbed = [row for row in samples if is_disturbed(row, settings["threads"])]
    contenders = _by_contender([row for row in samples if row not in disturbed and "error" not in row])
    order = dict.fromkeys(row["contender"] for row in samples)
    ceilings = contenders.pop("matmul")
    pairs, (prompt, chosen, rejected) = settings["pairs"], work["tokens"]
    best = {precision: _best_of_trl(contenders, precision) for precision in ("fp32", "")}
    lines = [
        f"## {_title(settings)}, {results['about']['machine'].partition(',')[0]}, {_instructions(ceilings)[0]}",
        "",
        *machine.lines(results["about"]),
        f"{pairs} pairs an optimizer step (mean tokens: prompt {prompt / pairs:.0f}, chosen {chosen / pairs:.0f}, "
        f"rejected {rejected / pairs:.0f}); {settings['repeats']} repeats. {_best_words(best, order)}",
        *([f"“Before” is commit {before}."] if (before := results["about"].get("baseline")) else []),
        "",
        "| | active | s a pair | times TRL's best | of the dense time | backward skipped | peak GB | … above model |",
        "|---|---|---|---|---|---|---|---|",
        *(_row(name, contenders[name], contenders, best, pairs) for name in order if name in contenders),
        "",
        *_held_to(results, contenders, ceilings, best),
        *_left_out(disturbed, pairs),
        *_failed(samples),
        *_ceiling_lines(contenders, ceilings, work["training_operations"]),
        *_startup(results["startup"]),
    ]
    return "\n".join(lines)


def _title(settings: dict[str, Any]) -> str:
    weights = f"{settings['model']}, its own weights" if settings["model"] else f"Shape {settings['shape']}"
    source = (
        f"lengths like {settings['lengths']}" if settings["lengths"] in LENGTHS else f"pairs of {settings['lengths']}"
    )
    ranked = f", {settings['completions']} completions a prompt" if settings["completions"] > 2 else ""
    return f"{weights}, {'LoRA' if settings['adapter'] == 'lora' else 'full fine-tuning'}, {source}{ranked}"


def _best_words(best: dict[str, str], contenders: Iterable[str]) -> str:
    if not best[""]:
        return "TRL was left out, or gave no time."
    fp32 = f", in fp32 “{best['fp32']}”" if best["fp32"] != best[""] else ""
    tried = sum(name.startswith("TRL") for name in contenders)
    words = "only setting" if tried == 1 else f"best of {tried} settings"
    return f"TRL's {words} tried is “{best['']}”{fp32}."


def _ceiling_lines(contenders: dict[str, Samples], ceilings: Samples, operations: float) -> list[str]:
    first = next(iter(ceilings.values()))
    parts = [f"Fastest matrix products, measured in each repeat ({', '.join(first['instructions'])}):"]
    for what, key, name in (("fp32", "matmul", DENSE), ("bf16", "matmul_bf16", MIXED)):
        speeds = spread([row[key] / 1e9 for row in ceilings.values()], 0)
        share = spread([100 * s for s in _share_of_peak(contenders.get(name, {}), ceilings, key, operations)], 0)
        parts.append(f"{what} {speeds} GFLOP/s" + (f", of which “{name}” reaches {share} %;" if share else ";"))
    return [" ".join(parts).rstrip(";") + f". The gradient needs {operations / 1e12:.2f} TFLOP.", ""]


def is_disturbed(row: dict[str, Any], threads: int) -> bool:
    """Whether other work took the processor away from a measurement."""
    return "others" in row and row["others"] / row["seconds"] / threads > DISTURBED


def _left_out(disturbed: list[dict[str, Any]], pairs: int) -> list[str]:
    if not disturbed:
        return []
    times: dict[str, list[str]] = {}
    for row in disturbed:
        times.setdefault(row["contender"], []).append(f"{row['seconds'] / pairs:.2f}")
    told = "; ".join(f"{name}, {' and '.join(found)} s a pair" for name, found in times.items())
    return [f"Left out, because other work took more than {DISTURBED:.0%} of the processor meanwhile: {told}.", ""]


def _failed(samples: list[dict[str, Any]]) -> list[str]:
    names = dict.fromkeys(row["contender"] for row in samples if "error" in row)
    return [f"Ended without an answer: {'; '.join(names)}.", ""] if names else []


def _by_contender(samples: list[dict[str, Any]]) -> dict[str, Samples]:
    found: dict[str, Samples] = {}
    for row in samples:
        found.setdefault(row["contender"], {})[row["repeat"]] = row
    return found


def _best_of_trl(contenders: dict[str, Samples], precision: str) -> str:
    """The one that stayed for all repeats; the fastest, after the first. Empty where none answered."""

    def standing(name: str) -> tuple[int, float]:
        return len(contenders[name]), -median(row["seconds"] for row in contenders[name].values())

    return max((name for name in contenders if name.startswith(trl(precision))), key=standing, default="")


def _peer(name: str, best: dict[str, str]) -> str:
    """TRL's setting that this contender's time is compared with."""
    return best["fp32" if ", fp32, " in f"{name}, " else ""]


def _row(name: str, rows: Samples, contenders: dict[str, Samples], best: dict[str, str], pairs: int) -> str:
    each = [row["seconds"] / pairs for row in rows.values()]
    seconds = spread(each, 2 if median(each) >= 0.1 else 4)
    faster = _ratios(contenders.get(_peer(name, best), {}), rows)
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


def _share_of_peak(rows: Samples, ceilings: Samples, key: str, operations: float) -> list[float]:
    return [operations / rows[repeat]["seconds"] / ceilings[repeat][key] for repeat in rows if repeat in ceilings]


# --- what the runs are held to ---------------------------------------------------------------------------------------


def _instructions(ceilings: Samples) -> list[str]:
    """The widest that torch uses on this processor, and its units for half precision."""
    return list(next(iter(ceilings.values()))["instructions"])


def _held_to(
    results: dict[str, Any], contenders: dict[str, Samples], ceilings: Samples, best: dict[str, str]
) -> list[str]:
    """The targets that this project has set itself, beside what came out; those of this processor and this data."""
    settings = results["settings"]
    if settings["shape"] != HELD_TO:
        return []
    instructions = _instructions(ceilings)
    is_wide, has_amx = instructions[0] == "AVX512", "amx_bf16" in instructions
    lora = settings["adapter"] == "lora"
    if settings["lengths"] not in LENGTHS:
        targets = _real_pairs(settings["lengths"], contenders, lora=lora)
    elif settings["completions"] == RANKED:
        targets = _ranked(contenders, best)
    else:
        share = _share_of_peak(
            contenders.get(DENSE, {}), ceilings, "matmul", results["workload"]["training_operations"]
        )
        targets = [
            *_against_trl(contenders, best, lora=lora, is_wide=is_wide, has_amx=has_amx),
            Target("fp32: share of the product ceiling", *((0.6, 0.75) if is_wide else (0.8, 0.88)), share),
            *_memory_and_screening(contenders, best, lora=lora),
        ]
    rows = [target.row for target in targets if target.values]
    return ["| held to | floor | aim | measured | |", "|---|---|---|---|---|", *rows, ""] if rows else []


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


def _against_trl(
    contenders: dict[str, Samples], best: dict[str, str], *, lora: bool, is_wide: bool, has_amx: bool
) -> Iterator[Target]:
    narrow = (2.5, 3.0) if lora else (2.7, 3.2)
    fp32 = _ratios(contenders.get(best["fp32"], {}), contenders.get(DENSE, {}))
    yield Target("times TRL's best in fp32, every response active", *((2.5, 3.0) if is_wide else narrow), fp32)
    if has_amx:
        mixed = _ratios(contenders.get(best[""], {}), contenders.get(MIXED, {}))
        yield Target("mixed: times TRL's best of all", *((3.5, 5.0) if lora else (3.0, 4.5)), mixed)


def _ranked(contenders: dict[str, Samples], best: dict[str, str]) -> Iterator[Target]:
    dense = contenders.get(DENSE, {})
    yield Target("ranked: a pair, times TRL's best in fp32", 6, 8, _ratios(contenders.get(best["fp32"], {}), dense))
    yield Target("ranked: a pair, times trimtab before", 2.8, 3.3, _ratios(contenders.get(BASELINE, {}), dense))


def _real_pairs(source: str, contenders: dict[str, Samples], *, lora: bool) -> Iterator[Target]:
    dense = contenders.get(DENSE, {})
    if source == "ukp-convarg1-strict":
        yield Target("a pair, times trimtab before", 1.8, 2.5, _ratios(contenders.get(BASELINE, {}), dense))
    if source.startswith("hh-rlhf") and lora:
        peaks = [row["peak"] / 1e9 for row in dense.values()]
        yield Target("default settings: peak of the process, GB", 3.0, 2.2, peaks, at_most=True)


def _memory_and_screening(contenders: dict[str, Samples], best: dict[str, str], *, lora: bool) -> Iterator[Target]:
    dense, fastest = contenders.get(DENSE, {}), contenders.get(best[""], {})
    if not lora:
        less = [fastest[repeat]["peak"] / dense[repeat]["peak"] for repeat in dense if repeat in fastest]
        yield Target("default settings: peak of the process, times less than TRL's at its fastest", 2.0, 2.3, less)
    of_dense = _ratios(contenders.get(screened(0.3), {}), dense)
    yield Target("screened, 0.3 active: of the dense time", 0.55, 0.48, of_dense, at_most=True)


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


# --- beside other work -----------------------------------------------------------------------------------------------


def shared_machine(results: dict[str, Any]) -> str:
    """What `shared_machine.py` measured."""
    settings, rows = results["settings"], results["samples"]
    lines = [
        "## Beside one busy process",
        "",
        *machine.lines(results["about"]),
        f"Shape {settings['shape']}, {settings['pairs']} pairs a step, dense, fp32, full fine-tuning; the other "
        "process is an endless loop of one thread. “Of quiet”: throughput beside it over that alone, within a repeat."
        + (f" “Before” is commit {before}." if (before := results["about"]["baseline"]) else ""),
        "",
        "| | s a step, quiet | s a step beside it | of quiet |",
        "|---|---|---|---|",
    ]
    kept = {}
    for name in dict.fromkeys(row["contender"] for row in rows):
        own = [row for row in rows if row["contender"] == name]
        kept[name] = [row["quiet"] / row["beside"] for row in own]
        quiet, beside = (spread([row[key] for row in own], 2) for key in ("quiet", "beside"))
        lines.append(f"| {name} | {quiet} | {beside} | {spread(kept[name], 2)} |")
    target = Target("throughput beside one busy process, of quiet", 0.48, 0.48, kept[AS_IT_IS])
    return "\n".join([*lines, "", "| held to | floor | aim | measured | |", "|---|---|---|---|---|", target.row, ""])


def spread(values: Sequence[float], digits: int) -> str:
    """Median (smallest to largest)."""
    if not values:
        return ""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
