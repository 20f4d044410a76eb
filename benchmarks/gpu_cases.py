"""Seconds, tokens a second and memory of training steps in bf16, case by case; what does not fit is a row.

Ours run in this process; TRL runs in a process of its own, while nothing of ours is on the device.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from contenders import EndedError, Worker
from step import Stepper
from worker import copy_speed, matmul_speed, timed
from workload import SHAPES, Fate, TokenIds, choose_fate, make_pairs

DTYPE = "bfloat16"
TRL_SETTINGS = {
    "TRL, no checkpointing, batch 8": ("--batch", "8"),
    "TRL, checkpointing, batch 8": ("--checkpointing", "--batch", "8"),
    "TRL, no checkpointing, batch 4": ("--batch", "4"),
}


@dataclass(frozen=True)
class Plan:
    """How much is measured. `until`: on the clock of `time.monotonic`; cases after it are rows without a number."""

    device: str
    lengths: str
    pairs: int
    repeats: int
    until: float

    @property
    def time_is_up(self) -> bool:
        return time.monotonic() > self.until


@dataclass(frozen=True)
class Case:
    name: str
    fate: Fate
    screening: bool = True
    pack_tokens: int | None = None
    checkpointing: str = "off"


def ceilings(device: str, *, seconds: float) -> dict[str, float]:
    """What the chip can do at this moment: bytes a second of a copy, operations a second of a bf16 product."""
    large = device == "cuda"
    return {
        "copy": copy_speed(seconds, megabytes=1024 if large else 64, device=device),
        "matmul": matmul_speed(seconds, sizes=(4096, 8192) if large else (256,), device=device, dtype=DTYPE),
    }


def cases(rows: list[TokenIds]) -> list[Case]:
    dense = choose_fate(rows, rate=1.0)
    return [
        Case("dense", dense, screening=False),
        *(Case(f"screened, {rate:g} active", choose_fate(rows, rate=rate)) for rate in (1.0, 0.5, 0.3, 0.1)),
        Case("screened, 0.3 active, a tenth of the forecasts wrong", choose_fate(rows, rate=0.3, wrong=0.1)),
        Case("screened, chosen active, rejected not", choose_fate(rows, rate=1.0, side="chosen")),
        Case("screened and shrunk, 0.1 active", choose_fate(rows, rate=0.1, held=0.9)),
        Case("dense, one pair a pack", dense, screening=False, pack_tokens=1),
        Case("dense, one pair a pack, checkpointing", dense, screening=False, pack_tokens=1, checkpointing="on"),
    ]


def ours(shape: str, *, lora: bool, plan: Plan) -> Iterator[dict[str, Any]]:
    """A row a case: `seconds` of each repeat and the rest of the last, or `error`."""
    rows = make_pairs(plan.pairs, lengths=plan.lengths, vocabulary=SHAPES[shape].vocabulary)
    head = _head(shape, lora, rows)
    try:
        stepper = Stepper(SHAPES[shape], device=plan.device, dtype=DTYPE, lora=lora)
        stepper.warm_up(rows)
        budget = stepper.pack_tokens(rows)
    except Exception as error:  # the other shapes still run
        yield head | {"case": "all", "error": _said(error)}
        return
    for case in cases(rows):
        if plan.time_is_up:
            yield head | {"case": case.name, "error": "not measured: the time was up"}
            continue
        yield head | {"case": case.name, "pack_tokens": budget} | _timed_steps(stepper, rows, case, budget, plan)
    del stepper
    empty(plan.device)


def _timed_steps(stepper: Stepper, rows: list[TokenIds], case: Case, budget: int, plan: Plan) -> dict[str, Any]:
    """One step to warm up, then the repeats."""
    seconds: list[float] = []
    failed = ""
    try:
        if case.checkpointing != "off":
            stepper.rescore(checkpointing=case.checkpointing)
        held = torch.cuda.memory_allocated() if plan.device == "cuda" else 0
        for _ in range(1 + plan.repeats):
            with timed(plan.device) as took:
                result = stepper.step(rows, case.fate, pack_tokens=case.pack_tokens or budget, screening=case.screening)
                answer = took()
            seconds.append(answer["seconds"])
    except Exception as error:  # out of memory, or whatever it is: this case's result
        failed = _said(error)
    if failed:  # only here does nothing point to the tensors any more
        empty(plan.device)
        return {"error": failed}
    return {
        "seconds": seconds[1:],
        "peak": answer["peak"],
        "held": held,
        "skipped": result.skipped_backward,
        "forward_tokens": result.forward_tokens,
    }


def trl(shape: str, *, lora: bool, settings: list[str], python: str, plan: Plan, log: Path) -> Iterator[dict[str, Any]]:
    """A row a setting of TRL, whose reference is cached too."""
    rows = make_pairs(plan.pairs, lengths=plan.lengths, vocabulary=SHAPES[shape].vocabulary)
    head = _head(shape, lora, rows)
    common = ["--shape", shape, "--lengths", plan.lengths, "--pairs", str(plan.pairs), "--cached"]
    common += ["--device", plan.device, "--dtype", DTYPE, *(["--lora"] if lora else [])]
    for name in settings:
        if plan.time_is_up:
            yield head | {"case": name, "error": "not measured: the time was up"}
            continue
        try:
            worker = Worker.start(
                python, "trl_worker.py", [*common, *TRL_SETTINGS[name]], threads=torch.get_num_threads(), log=log
            )
            answers = [worker.order(do="train") for _ in range(1 + plan.repeats)]
            worker.stop()
        except EndedError as error:
            yield head | {"case": name, "error": _short(str(error))}
            continue
        told = {"seconds": [answer["seconds"] for answer in answers[1:]], "peak": answers[-1]["peak"]}
        yield head | {"case": name, "held": worker.ready["held"], **told}


def _head(shape: str, lora: bool, rows: list[TokenIds]) -> dict[str, Any]:
    return {
        "shape": shape,
        "adapter": "LoRA" if lora else "full",
        "pairs": len(rows),
        "tokens": sum(len(ids) for row in rows for ids in row),
        "operations": SHAPES[shape].training_operations(rows, frozen=lora),
    }


def _said(error: Exception) -> str:
    if isinstance(error, torch.OutOfMemoryError):
        return "out of memory"
    text = str(error).strip().splitlines() or [""]
    return _short(f"{type(error).__name__}: {text[0]}")


def _short(text: str) -> str:
    if "OutOfMemoryError" in text:
        return "out of memory"
    return text if len(text) <= 200 else f"… {text[-200:]}"


def empty(device: str) -> None:
    """Give back what nothing points to any more."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
