"""What `trimtab calibrate` measured, as numbers with intervals: reward gap, next token, drift from the reference.

Intervals treat held-out pairs as the sample (with several seeds: pairs and seeds), never tokens, which hang together.
Shapes: K seeds, P pairs, B bins.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trimtab.analysis.calibration import Calibration, Chance, calibration, chance_error
from trimtab.analysis.intervals import FloatArray, finite
from trimtab.analysis.token_calibration import TokenTable, chance_error_of_tokens, per_token, token_calibration
from trimtab.reporting import estimates
from trimtab.reporting.estimates import Estimate

BY_CONSTRUCTION = (
    "Before training the policy is its own reference: every reward gap is 0 and σ(0) is 50 %, by construction. "
    "There is nothing to calibrate."
)


@dataclass(frozen=True, slots=True)
class Seed:
    """One seed on the held-out pairs. Sums are over a response's tokens, in nats; gaps are rewards, in nats.

    `gaps_before` is None where the objective compares with the reference, which is what the untrained model is: every
    gap is then 0. Log-ratios are aligned less unaligned, `divergence_P` is KL(aligned ‖ unaligned) on the chosen side.
    """

    seed: int
    gaps_before_P: FloatArray | None
    gaps_after_P: FloatArray
    unaligned: TokenTable
    aligned: TokenTable
    divergence_P: FloatArray
    rejected_tokens_P: FloatArray
    rejected_ratio_P: FloatArray


def measured(runs: Sequence[Seed]) -> dict[str, Any]:
    """`reward_gap`, `next_token` and `drift` of one seed, or of several together."""
    before = [run.gaps_before_P for run in runs if run.gaps_before_P is not None]
    return {
        "reward_gap": {
            "note": None if before else BY_CONSTRUCTION,
            "before": _gaps(before) if before else None,
            "after": _gaps([run.gaps_after_P for run in runs]),
        },
        "next_token": _next_token(runs),
        "drift": _drift(runs),
    }


def _gaps(gaps: Sequence[FloatArray]) -> dict[str, Any]:
    """σ(|gap|) against how often the gap's sign is right (a gap of 0 is half right)."""
    gaps_KP = np.array(gaps, dtype=np.float64)
    confidence_KP = 1 / (1 + np.exp(-np.abs(gaps_KP)))
    right_KP = np.where(gaps_KP > 0, 1.0, np.where(gaps_KP < 0, 0.0, 0.5))
    wrongness_KP = np.where(gaps_KP >= 0, 1 - confidence_KP, confidence_KP)
    return {
        "accuracy": _of_pairs(estimates.rate(right_KP)),
        "confidence": _of_pairs(estimates.rate(confidence_KP)),
        "over_confidence": _of_pairs(estimates.paired(confidence_KP - right_KP)),
        "brier": _of_pairs(estimates.rate(wrongness_KP**2)),
        "reward_gap": _of_pairs(estimates.mean(gaps_KP)),
        **_errors(
            [calibration(row.tolist()) for row in gaps_KP],
            [chance_error(row.tolist()) for row in gaps_KP],
            bins=calibration(gaps_KP.ravel().tolist()),
        ),
    }


def _errors(seeds: Sequence[Calibration], chances: Sequence[Chance], *, bins: Calibration) -> dict[str, Any]:
    """Means over seeds of the calibration error and of what chance alone would give; the bins hold all seeds' rows."""
    chance = Chance(float(np.mean([one.mean for one in chances])), float(np.mean([one.below95 for one in chances])))
    return {
        "ece": finite(float(np.mean([one.ece for one in seeds]))),
        "ece_by_chance": chance.to_json(),
        "bins": bins.to_json()["bins"],
    }


def _next_token(runs: Sequence[Seed]) -> dict[str, Any]:
    sides = {"unaligned": [run.unaligned for run in runs], "aligned": [run.aligned for run in runs]}
    told: dict[str, Any] = {side: _side(tables) for side, tables in sides.items()}

    def change(sums: Callable[[TokenTable], FloatArray]) -> Estimate:
        return _paired([sums(run.aligned) - sums(run.unaligned) for run in runs], runs[0].aligned.tokens_P)

    told["change"] = {name: change(sums) for name, sums in _SUMS.items()}
    told["change"]["perplexity_ratio"] = _exponential(told["change"]["nll"])
    return told


_SUMS: dict[str, Callable[[TokenTable], FloatArray]] = {
    "nll": lambda table: table.nll_P,
    "entropy": lambda table: table.entropy_P,
    "accuracy": lambda table: table.right_P,
    "over_confidence": lambda table: table.over_P,
    "brier": lambda table: table.brier_P,
}


def _side(tables: Sequence[TokenTable]) -> dict[str, Any]:
    """One model on the chosen responses, a token: nats for `nll` and `entropy`, shares for the others."""
    tokens_P = tables[0].tokens_P
    told: dict[str, Any] = {}
    for name, sums in _SUMS.items():
        values_KP = np.array([per_token(sums(table), tokens_P) for table in tables])
        told[name] = _of_pairs(
            estimates.rate(values_KP) if name in ("accuracy", "brier") else estimates.mean(values_KP)
        )
    told["perplexity"] = _exponential(told["nll"])
    pooled = TokenTable(*(np.concatenate(columns) for columns in zip(*map(_columns, tables), strict=True)))
    return told | _errors(
        [token_calibration(table) for table in tables],
        [chance_error_of_tokens(table) for table in tables],
        bins=token_calibration(pooled),
    )


def _columns(table: TokenTable) -> tuple[FloatArray, ...]:
    return (
        table.tokens_P, table.nll_P, table.entropy_P, table.right_P, table.brier_P,
        table.tokens_PB, table.confidence_PB, table.right_PB,
    )  # fmt: skip


def _drift(runs: Sequence[Seed]) -> dict[str, Any]:
    """Nats a token, aligned against unaligned."""
    tokens_P, rejected_P = runs[0].aligned.tokens_P, runs[0].rejected_tokens_P
    return {
        "log_ratio_chosen": _paired([run.unaligned.nll_P - run.aligned.nll_P for run in runs], tokens_P),
        "log_ratio_rejected": _paired([run.rejected_ratio_P for run in runs], rejected_P),
        "divergence": _of_pairs(estimates.mean(np.array([per_token(run.divergence_P, tokens_P) for run in runs]))),
    }


def _paired(sums: Sequence[FloatArray], tokens_P: FloatArray) -> Estimate:
    return _of_pairs(estimates.paired(np.array([per_token(row, tokens_P) for row in sums])))


def _exponential(told: Estimate) -> Estimate:
    """Perplexity from nats; the interval goes along, the spread between seeds does not."""
    result = {name: value for name, value in told.items() if name != "seed_deviation"}
    result["value"] = None if told["value"] is None else math.exp(told["value"])
    result["ci95"] = None if told["ci95"] is None else [math.exp(bound) for bound in told["ci95"]]
    return result


def _of_pairs(told: Estimate) -> Estimate:
    """The report's methods speak of prompts; here the rows are held-out pairs, and one alone has no interval."""
    method = told["method"].replace("prompts", "held-out pairs")
    return told | {"method": method, "ci95": told["ci95"] if told["n"] > 1 else None}
