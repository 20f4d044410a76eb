"""One figure from several runs of which only the figures are here: the others' folders are on other machines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from trimtab.analysis import sweep as sweeping
from trimtab.analysis.intervals import student_t
from trimtab.analysis.seeds import METHOD_OF_FIGURES, pooled_figures
from trimtab.reporting import estimates

_SIDES = ("pair", "chosen", "rejected")
_ONE_SEED = "one seed: no interval"
_OVER_SEEDS = "t interval over seeds"


def of_runs(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The numbers of a point from those of its runs, one seed each. A run that starved has no answers to count."""
    answered = [run for run in runs if run.get("win_rates") or run.get("length") or run.get("mark")]
    kinds = {(row["judge"], row["kind"]): row for run in answered for row in run["win_rates"]}
    lengths = [run["length"] for run in answered if run["length"]]
    marks = [run["mark"] for run in answered if run.get("mark")]
    return {
        "win_rates": [
            {
                **row,
                "win_rate": _estimate([r["win_rate"] for run in answered for r in run["win_rates"] if _is(r, kind)]),
            }
            for kind, row in kinds.items()
        ],
        "mark": {**_estimate(marks), "judge": marks[0]["judge"]} if marks else None,
        "true_score": _known([run["true_score"] for run in answered]),
        "length": {"unit": lengths[0]["unit"], "mean": _estimate([one["mean"] for one in lengths])}
        if lengths
        else None,
        "heldout_accuracy": _known([run["heldout_accuracy"] for run in runs]),
        "active": {side: _spread([run["active"][side]["value"] for run in runs]) for side in _SIDES},
        "steps_to_90": _spread([run["steps_to_90"]["value"] for run in runs]),
        "regimes": [name for run in runs for name in run["regimes"]],
    }


def _is(row: Mapping[str, Any], kind: tuple[str, str]) -> bool:
    return (row["judge"], row["kind"]) == kind


def _known(figures: Sequence[Mapping[str, Any] | None]) -> estimates.Estimate | None:
    known = [figure for figure in figures if figure is not None]
    return _estimate(known) if known else None


def _estimate(seeds: Sequence[Mapping[str, Any]]) -> estimates.Estimate:
    """Mean over seeds; the prompts' error is taken from the seeds' own 95 % intervals, and is common to all of them."""
    known = [one for one in seeds if one["value"] is not None and one["ci95"] is not None]
    if len(known) < 2 or len(known) < len(seeds):
        return _spread([one["value"] for one in seeds])
    n = min(one["n"] for one in known)
    errors = [(one["ci95"][1] - one["ci95"][0]) / (2 * student_t(max(1, n - 1))) for one in known]
    told = pooled_figures([one["value"] for one in known], standard_errors=errors, n_prompts=n)
    return estimates.of_seeds(told, method=METHOD_OF_FIGURES)


def _spread(figures: Sequence[float | None]) -> estimates.Estimate:
    known = [float(figure) for figure in figures if figure is not None]
    told = sweeping.over_seeds(known) if known else sweeping.over_seeds([math.nan])
    method = _OVER_SEEDS if len(known) > 1 else _ONE_SEED
    return estimates.of_seeds(told, method=method) | {"n_missing": len(figures) - len(known)}
