"""What screening and shrinking left out, of every seed: from `metrics.jsonl` and `screening.json` to numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trimtab.analysis.compute_saved import SHARES, saving
from trimtab.reporting.inputs import Run

_SHRINKING = ("shrunk_visits", "rechecked", "missed")


def saved_numbers(runs: Sequence[Run]) -> dict[str, Any] | None:
    """One entry a seed that screened; None when no run did, or none says so."""
    entries = [_one(run) for run in runs if run.metrics and _screened(run)]
    return {"seeds": entries} if entries else None


def _screened(run: Run) -> bool:
    return run.screening is not None or any(row.get(name) for row in run.metrics for name in SHARES)


def _one(run: Run) -> dict[str, Any]:
    """Shares are of response tokens, each step counted by its tokens; None where no row has them."""
    told = run.screening or {}
    screened, promoted = _count(told, "responses_screened"), _count(told, "promoted")
    return {
        "seed": run.seed,
        "mode": told.get("mode"),
        "n_steps": len(run.metrics),
        "shares": {name: _share(run.metrics, name) for name in SHARES},
        "responses_screened": screened,
        "responses_promoted": promoted,
        "promoted_share": promoted / screened if screened and promoted is not None else None,
        "time": saving(run.metrics).to_json(),
        "shrinking": _shrinking(told),
    }


def _shrinking(told: Mapping[str, Any]) -> dict[str, Any] | None:
    """Visits passed over, and how often the look after them found a response active; None where nothing was shrunk."""
    visits, rechecked, missed = (_count(told, name) for name in _SHRINKING)
    if visits is None or rechecked is None or missed is None:
        return None
    return {
        "visits": visits,
        "rechecked": rechecked,
        "missed": missed,
        "rate": missed / rechecked if rechecked else None,
    }


def _count(told: Mapping[str, Any], name: str) -> int | None:
    value = told.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _share(rows: Sequence[Mapping[str, Any]], name: str) -> float | None:
    known = [(row[name], row.get("tokens") or 1) for row in rows if isinstance(row.get(name), int | float)]
    return float(np.average([share for share, _ in known], weights=[n for _, n in known])) if known else None
