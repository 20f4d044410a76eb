"""One command for a machine with a CUDA GPU: is it exact there, and how fast is it, against TRL and the chip itself.

    python benchmarks/gpu.py [--peer-python PYTHON] [--quick]       writes gpu.json and GPU.md; under 9 (2) minutes
    python benchmarks/gpu.py --device cpu --shape tiny --out DIR    every line of it, without a GPU

Exactness comes first (`exactness.py`); a check that fails is named, makes the exit status 1, and does not keep the
measurements from running. Steps are measured in bf16 with random weights (`gpu_cases.py`). What does not fit into
memory, breaks, or comes after the time is up, is a row that says so. Results are written after every case.
It needs torch, transformers and peft; trimtab itself may be this checkout, not installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gpu_table
import machine
from workload import LENGTHS, SHAPES

HERE = Path(__file__).parent
if importlib.util.find_spec("trimtab") is None:
    sys.path.insert(0, str(HERE.parent / "src"))
SMALL = "tiny"  # the shape on which exactness is checked besides the one that is measured


class Results:
    """What is known so far, on disk after every piece."""

    def __init__(self, told: argparse.Namespace) -> None:
        self._told, self._began, self._commit = told, datetime.now(UTC), machine.commit()
        self.checks: list[dict[str, Any]] = []
        self.rows: list[dict[str, Any]] = []
        self.ceilings: dict[str, float] = {}
        self._device = _device(told.device)

    def save(self) -> str:
        """Write both files; return the page."""
        told = self._told
        results = {
            "about": machine.about("gpu.py", self._began, self._commit, threads=told.threads, peer=told.peer_python),
            "device": self._device,
            "settings": {"lengths": told.lengths, "pairs": told.pairs, "repeats": told.repeats, "quick": told.quick},
            "peer": told.peer_python is not None,
            "ceilings": self.ceilings,
            "checks": self.checks,
            "cases": self.rows,
        }
        (told.out / "gpu.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        page = gpu_table.text(results)
        (told.out / "GPU.md").write_text(page, encoding="utf-8")
        return page


def main() -> int:
    told = _arguments()
    told.out.mkdir(parents=True, exist_ok=True)
    if told.not_run:
        (told.out / "GPU.md").write_text(gpu_table.not_run(), encoding="utf-8")
        return 0
    import torch

    torch.set_num_threads(told.threads)
    torch.set_float32_matmul_precision("highest")  # the exactness of fp32 is not that of tf32
    results = Results(told)
    until = time.monotonic() + 60 * told.minutes
    for check in _checks(told):
        results.checks.append(check)
        print(gpu_table.said(check), flush=True)
    results.save()
    for row in _measured(told, results, until):
        results.rows.append(row)
        print(gpu_table.short(row), flush=True)
        results.save()
    print("\n" + results.save())
    return int(not all(check["passed"] for check in results.checks))


def _checks(told: argparse.Namespace) -> Iterator[dict[str, Any]]:
    import exactness

    for shape in dict.fromkeys([SMALL, *told.shape[:1]]):
        try:
            for check in exactness.checks(shape, device=told.device):
                yield check.row()
        except Exception as error:  # what no single check could catch: building the model, its truth
            said = f"{type(error).__name__}: {error}".splitlines()[0]
            yield exactness.Check("all further checks", shape, None, 0.0, said).row()
            exactness.empty(told.device)


def _measured(told: argparse.Namespace, results: Results, until: float) -> Iterator[dict[str, Any]]:
    """Ours first, shape by shape, then the peer; LoRA with the setting that was TRL's fastest in full fine-tuning."""
    import gpu_cases

    plan = gpu_cases.Plan(told.device, told.lengths, told.pairs, told.repeats, until)
    results.ceilings = gpu_cases.ceilings(told.device, seconds=0.3 if told.quick or told.device == "cpu" else 2.0)
    adapters = (False,) if told.quick else (False, True)
    for shape in told.shape:
        for lora in adapters:
            yield from gpu_cases.ours(shape, lora=lora, plan=plan)
    if told.peer_python is None:
        return
    for shape in told.shape:
        settings = list(gpu_cases.TRL_SETTINGS)[: 1 if told.quick else None]
        for lora in adapters:
            taken = []
            for row in gpu_cases.trl(
                shape, lora=lora, settings=settings, python=told.peer_python, plan=plan, log=told.out / "workers.log"
            ):
                taken.append(row)
                yield row
            timed = [row for row in taken if "seconds" in row]
            settings = [min(timed, key=lambda row: min(row["seconds"]))["case"]] if timed else settings[:1]


def _device(device: str) -> dict[str, Any]:
    import torch

    if device == "cpu":
        return {"name": "CPU (a rehearsal: the figures say nothing about a GPU)", "gpu": False}
    told = torch.cuda.get_device_properties(0)
    return {
        "name": told.name,
        "gpu": True,
        "memory": told.total_memory,
        "multiprocessors": told.multi_processor_count,
        "capability": f"{told.major}.{told.minor}",
        "cuda": torch.version.cuda,
        "driver": _driver(),
    }


def _driver() -> str:
    try:
        words = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "unknown"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="exactness and speed on a GPU, in one command")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--shape", nargs="+", default=["qwen2.5-0.5b", "qwen2.5-1.5b"], choices=SHAPES)
    parser.add_argument("--lengths", default="ultrafeedback", choices=LENGTHS)
    parser.add_argument("--pairs", type=int, default=32, help="pairs an optimizer step; a multiple of 8 for TRL")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=8.0, help="after which no further case is begun")
    parser.add_argument("--quick", action="store_true", help="two minutes: the first shape, full fine-tuning")
    parser.add_argument("--peer-python", help="an interpreter with trl; default: this one, if it has it")
    parser.add_argument("--threads", type=int, default=machine.threads_here())
    parser.add_argument("--not-run", action="store_true", help="only write a GPU.md that says what it will hold")
    parser.add_argument("--out", type=Path, help="default: beside this file")
    told = parser.parse_args()
    if told.out is None:
        if told.device == "cpu" and not told.not_run:
            parser.error("a rehearsal on the CPU needs --out: its figures are not to stand where a GPU's should")
        told.out = HERE
    if told.peer_python is None and importlib.util.find_spec("trl") is not None:
        told.peer_python = sys.executable
    if told.quick:
        told.shape, told.repeats, told.minutes = told.shape[:1], min(2, told.repeats), min(1.5, told.minutes)
    return told


if __name__ == "__main__":
    sys.exit(main())
