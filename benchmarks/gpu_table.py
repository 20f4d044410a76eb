"""gpu.json as a page to read. `python benchmarks/gpu_table.py [FOLDER]` writes GPU.md there."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

import machine

_TITLE = "# On a GPU"


def not_run() -> str:
    """The page before the first run."""
    return f"""{_TITLE}

**This suite has not been run on a GPU yet; there are no figures.** The tests run it on a CPU at a tiny shape: all of it
but the lines that ask CUDA for its name, its clock and its memory. On a machine with a CUDA GPU:

    python benchmarks/gpu.py --peer-python PYTHON      under 9 minutes; PYTHON has trl==1.16.* and peft
    python benchmarks/gpu.py --quick                   under 2 minutes, without a second shape and without LoRA

It replaces this page by the hardware and versions, the result of every exactness check (gradients packed, padded,
screened, behind a kept prompt, shrunk, in chunks, recomputed, and by each attention way, against autograd over one
sequence at a time; bf16 against fp32; trajectories screened and resumed), and for Qwen2.5's 0.5B and 1.5B shapes in
bf16, full and LoRA: seconds a pair, tokens a second, peak memory, and the share of the bf16 matrix-product ceiling,
which is measured in the same run.
"""


def text(results: dict[str, Any]) -> str:
    device, settings = results["device"], results["settings"]
    failed = [check for check in results["checks"] if not check["passed"]]
    lines = [
        _TITLE,
        "",
        *machine.lines(results["about"]),
        _hardware(device),
        "",
        *_ceilings(results["ceilings"]),
        "## Exactness",
        "",
        f"{len(results['checks'])} checks, {len(failed)} failed." if results["checks"] else "No checks.",
        *(f"**Failed: {said(check)}**" for check in failed),
        "",
        "Fp32: distance of the gradient from autograd over one sequence at a time with the model's own attention and "
        "logits, as a share of its length. Bf16: distance from the fp32 gradient, as a multiple of the model's own.",
        "",
        "| check | on | measured | limit | |",
        "|---|---|---|---|---|",
        *map(_check_row, results["checks"]),
        "",
        "## Speed and memory",
        "",
        f"Random weights, bf16, AdamW; {settings['pairs']} pairs an optimizer step with lengths like "
        f"{settings['lengths']}; median of {settings['repeats']} steps after one to warm up. Tokens count each prompt "
        "once. Rates are shares of response tokens. “Above held” is the peak above what is held between steps. “Of "
        "ceiling” counts the operations that the dense gradient needs, nothing recomputed, against the measured bf16 "
        "product.",
        "" if results["peer"] else "No peer: TRL is not installed here.",
        "",
        "| shape | | case | s a pair | tokens/s | of ceiling | of dense | times TRL's best | peak GB | above held GB |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *(_case_row(row, results) for row in results["cases"]),
        "",
    ]
    return "\n".join(lines)


def said(check: dict[str, Any]) -> str:
    """One check in one line."""
    sign = "ok" if check["passed"] else "FAILED"
    return f"{sign}: {check['on']}: {check['name']}: {_number(check)} (limit {check['limit']:.1e})"


def short(row: dict[str, Any]) -> str:
    """One case in one line."""
    told = row.get("error") or f"{median(row['seconds']):.3f} s, {row['peak'] / 1e9:.2f} GB"
    return f"{row['shape']}, {row['adapter']}, {row['case']}: {told}"


def _number(check: dict[str, Any]) -> str:
    return check["note"] if check["value"] is None else f"{check['value']:.1e}"


def _hardware(device: dict[str, Any]) -> str:
    if not device["gpu"]:
        return f"Device: {device['name']}."
    return (
        f"Device: {device['name']}, {device['memory'] / 1e9:.0f} GB, {device['multiprocessors']} multiprocessors, "
        f"capability {device['capability']}; CUDA {device['cuda']}, driver {device['driver']}."
    )


def _ceilings(found: dict[str, float]) -> list[str]:
    if not found:
        return []
    return [
        f"Ceilings measured in this run: copy {found['copy'] / 1e9:,.0f} GB/s (read plus written), bf16 matrix product "
        f"{found['matmul'] / 1e12:,.3g} TFLOP/s.",
        "",
    ]


def _check_row(check: dict[str, Any]) -> str:
    note = f"; {check['note']}" if check["note"] and check["value"] is not None else ""
    verdict = "ok" if check["passed"] else "**failed**"
    return f"| {check['name']} | {check['on']} | {_number(check)}{note} | {check['limit']:.1e} | {verdict} |"


def _case_row(row: dict[str, Any], results: dict[str, Any]) -> str:
    head = f"| {row['shape']} | {row['adapter']} | {row['case']} |"
    if "error" in row:
        return f"{head} {row['error']} | | | | | | |"
    seconds = median(row["seconds"])
    beside = [
        other for other in results["cases"] if "seconds" in other and _of(other) == _of(row)
    ]  # same shape and adapter
    dense = [median(other["seconds"]) for other in beside if other["case"] == "dense"]
    trl = [median(other["seconds"]) for other in beside if other["case"].startswith("TRL")]
    whole = row["case"].startswith(("dense", "TRL"))  # all that the operations count is done
    ceiling = f"{row['operations'] / seconds / results['ceilings']['matmul']:.1%}" if whole else ""
    cells = [
        f"{seconds / row['pairs']:.4f}",
        f"{row['tokens'] / seconds:,.0f}",
        ceiling,
        f"{seconds / dense[0]:.2f}" if dense else "",
        f"{min(trl) / seconds:.2f}" if trl else "",
        f"{row['peak'] / 1e9:.2f}",
        f"{(row['peak'] - row['held']) / 1e9:.2f}" if row["held"] else "",
    ]
    return f"{head} {' | '.join(cells)} |"


def _of(row: dict[str, Any]) -> tuple[str, str]:
    return row["shape"], row["adapter"]


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    found = json.loads((folder / "gpu.json").read_text(encoding="utf-8"))
    (folder / "GPU.md").write_text(text(found), encoding="utf-8")
