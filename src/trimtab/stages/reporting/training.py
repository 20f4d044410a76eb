"""From `metrics.jsonl` to numbers: how training went, its regime, and the curves behind the plots.

Curves are means over at most `POINTS` equal stretches of steps, so that a report of a long run stays small; the rows
themselves stay in `metrics.jsonl`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trimtab.analysis import intervals, regime, seeds
from trimtab.errors import DataError
from trimtab.objectives import Objective
from trimtab.stages.reporting.estimates import estimate, of_seeds
from trimtab.stages.reporting.inputs import Run

POINTS = 80
CURVES = (
    "loss", "grad_norm", "learning_rate", "rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins",
    "logps/chosen", "logps/rejected", "active/chosen", "active/rejected", "active/pair", "skipped_backward",
)  # fmt: skip
WILSON = "Wilson score interval over pairs"
SIDES = ("active/chosen", "active/rejected")


def training_numbers(runs: Sequence[Run], objective: Objective) -> dict[str, Any] | None:
    """One entry a seed, and the loss of a policy equal to its reference; None when no run recorded a step."""
    entries = [_one(run, objective) for run in runs if run.metrics]
    return {"step_zero": objective.step_zero(), "seeds": entries} if entries else None


def _one(run: Run, objective: Objective) -> dict[str, Any]:
    rows = run.metrics
    last = rows[-1]
    tail = rows[-max(1, len(rows) // 10) :]
    named = _regime(rows, objective)
    return {
        "seed": run.seed,
        "n_steps": len(rows),
        "epochs": _number(last.get("epoch")),
        "seconds": _number(last.get("seconds")),
        "tokens_per_second": _median(rows, "tokens_per_second"),
        "peak_memory_bytes": max(
            (n for row in rows if (n := _number(row.get("peak_memory_bytes"))) is not None), default=None
        ),
        "first": {name: _number(rows[0].get(name)) for name in CURVES if name in rows[0]},
        "last_tenth": {name: _mean(tail, name) for name in CURVES if name in last},
        "regime": named,
        "active_by_epoch": _by_epoch(rows),
        "curves": curves(rows),
    }


def _regime(rows: Sequence[Mapping[str, Any]], objective: Objective) -> dict[str, Any]:
    try:
        told = regime.name_regime(rows, has_dead_zone=objective.has_dead_zone)
    except DataError as error:
        return {"name": None, "sentence": f"The regime cannot be named: {error.message}."}
    return {
        "name": told.name,
        "sentence": told.sentence,
        "share_at_end": _number(told.share_at_end),
        "chosen_at_end": _number(told.chosen_at_end),
        "rejected_at_end": _number(told.rejected_at_end),
    }


def curves(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[float | None]]:
    """`step` and every known metric, averaged over stretches of steps of equal length."""
    width = math.ceil(len(rows) / POINTS)
    stretches = [rows[start : start + width] for start in range(0, len(rows), width)]
    table: dict[str, list[float | None]] = {"step": [_mean(stretch, "step") for stretch in stretches]}
    for name in CURVES:
        if any(name in row for row in rows):
            table[name] = [_mean(stretch, name) for stretch in stretches]
    return table


def _by_epoch(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Mean active fraction of each side in every epoch."""
    epochs: dict[int, list[Mapping[str, Any]]] = {}
    for row in rows:
        epoch = _number(row.get("epoch"))
        if epoch is not None:
            epochs.setdefault(max(1, math.ceil(epoch - 1e-9)), []).append(row)
    return [
        {"epoch": epoch, "n_steps": len(members)} | {side: _mean(members, side) for side in SIDES}
        for epoch, members in sorted(epochs.items())
    ]


def heldout_numbers(runs: Sequence[Run]) -> dict[str, Any] | None:
    """Reward accuracy (a share) and gap on pairs kept out of training; None when no seed evaluated any."""
    told = [(run.seed, run.heldout) for run in runs if run.heldout is not None]
    if not told:
        return None
    return {
        "accuracy": _accuracy([heldout["after"] for _, heldout in told]),
        "by_seed": [
            {
                "seed": seed,
                "before": heldout.get("before"),
                "after": heldout["after"],
                "accuracy": _accuracy([heldout["after"]]),
            }
            for seed, heldout in told
        ],
    }


def _accuracy(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Wilson's interval for one seed; for several the spread of the seeds and the binomial error within each."""
    shares = [_number(entry.get("accuracy")) for entry in entries]
    n = min(int(entry.get("n", 0)) for entry in entries)
    known = [share for share in shares if share is not None]
    if len(known) < len(shares) or n == 0:
        return estimate(math.nan, intervals.NO_INTERVAL, n=n, method=WILSON)
    if len(known) == 1:
        return estimate(known[0], intervals.wilson_interval(known[0] * n, n=n), n=n, method=WILSON)
    errors = [math.sqrt(share * (1 - share) / n) for share in known]
    return of_seeds(seeds.pooled_figures(known, standard_errors=errors, n_prompts=n), method=seeds.METHOD_OF_FIGURES)


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def _known(rows: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    return [n for row in rows if (n := _number(row.get(name))) is not None]


def _mean(rows: Sequence[Mapping[str, Any]], name: str) -> float | None:
    known = _known(rows, name)
    return float(np.mean(known)) if known else None


def _median(rows: Sequence[Mapping[str, Any]], name: str) -> float | None:
    known = _known(rows, name)
    return float(np.median(known)) if known else None
