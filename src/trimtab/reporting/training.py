"""From `metrics.jsonl` to numbers: how training went, its regime, and the curves behind the plots.

Curves are means over at most `POINTS` equal stretches of steps, so that a report of a long run stays small; the rows
themselves stay in `metrics.jsonl`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trimtab.analysis import regime
from trimtab.analysis.calibration import calibration
from trimtab.analysis.intervals import FloatArray
from trimtab.analysis.symptoms import symptoms
from trimtab.config import Config
from trimtab.errors import DataError
from trimtab.objectives import Objective
from trimtab.reporting import estimates
from trimtab.reporting.inputs import Run
from trimtab.runtime.symptom_watch import course

POINTS = 80
CURVES = (
    "loss", "grad_norm", "learning_rate", "rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins",
    "logps/chosen", "logps/rejected", "active/chosen", "active/rejected", "active/pair", "pull/chosen", "pull/rejected",
    "skipped_backward", "skipped_forward", "promoted",
)  # fmt: skip
SIDES = ("active/chosen", "active/rejected", "pull/chosen", "pull/rejected")


def training_numbers(runs: Sequence[Run], objective: Objective, config: Config) -> dict[str, Any] | None:
    """One entry a seed, and the loss of a policy equal to its reference; None when no run recorded a step."""
    entries = [_one(run, objective, config) for run in runs if run.metrics]
    if not entries:
        return None
    return {"step_zero": objective.step_zero(), "has_dead_zone": objective.has_dead_zone, "seeds": entries}


def _one(run: Run, objective: Objective, config: Config) -> dict[str, Any]:
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
        "symptoms": _symptoms(run, objective, config),
        "sides_by_epoch": _by_epoch(rows),
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


def _symptoms(run: Run, objective: Objective, config: Config) -> list[dict[str, Any]]:
    """What the log said while it trained; the plan has what `auto` became."""
    plan = run.plan or {}
    steps = plan.get("train", {}).get("steps") or len(run.metrics)
    dtype = plan.get("engine", {}).get("dtype") or config.engine.dtype
    found = symptoms(run.metrics, course(config, objective, steps=steps, dtype=dtype))
    return [symptom.to_json() | {"sentence": symptom.sentence} for symptom in found]


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
    """Mean active fraction and pull of each side in every epoch; null where rows have none."""
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
    """Reward accuracy (a share), gap (nats) and calibration on pairs kept out of training; None when there are none.

    Every seed holds out the same pairs, so seeds are pooled over pairs and seeds as over prompts and seeds.
    """
    told = [run.heldout for run in runs if run.heldout is not None and run.heldout.get("after") is not None]
    if len(told) < len(runs):
        return None
    common = [pair for pair in told[0]["ids"] if all(pair in heldout["ids"] for heldout in told)]
    after = _gaps(told, "after", common)
    known_before = all(heldout.get("before") is not None for heldout in told)
    before = _gaps(told, "before", common) if known_before else None
    return {
        "accuracy": estimates.rate(_right(after)),
        "reward_gap": estimates.mean(after),
        "before": None
        if before is None
        else {"accuracy": estimates.rate(_right(before)), "reward_gap": estimates.mean(before)},
        "calibration": {
            "before": None if before is None else calibration(before.ravel().tolist()).to_json(),
            "after": calibration(after.ravel().tolist()).to_json(),
        },
        "by_seed": [
            {
                "seed": run.seed,
                "accuracy": estimates.rate(_right(after[k : k + 1])),
                "reward_gap": estimates.mean(after[k : k + 1]),
            }
            for k, run in enumerate(runs)
        ],
    }


def _gaps(told: Sequence[Mapping[str, Any]], when: str, pairs: Sequence[str]) -> FloatArray:
    """Reward gaps in nats, [K, P]."""
    rows = [dict(zip(heldout["ids"], heldout[when]["reward_gaps"], strict=True)) for heldout in told]
    return np.array([[row[pair] for pair in pairs] for row in rows], dtype=np.float64)


def _right(gaps_KP: FloatArray) -> FloatArray:
    """1 where chosen is above rejected, ½ at a tie."""
    return np.where(gaps_KP > 0, 1.0, np.where(gaps_KP < 0, 0.0, 0.5))


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
