"""Judges as the report names them, and what their canaries showed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trimtab.analysis.canaries import CanaryRow
from trimtab.runtime.judges.judge_record import JudgeRecord

# The judge and rubric that AlpacaEval fitted the constants of its length model to, by benchmark.
OFFICIAL = {"alpaca_eval": ("gpt-4-1106-preview", "weighted"), "alpaca_eval_1": ("gpt-4", "ranking")}
OFFICIAL_ORDER = "official seeded order"
LABELS = {
    "oracle": "the oracle, which knows the truth",
    "biased": "the length-biased judge",
    "unbiased": "the judge without a length bias",
}


def is_calibrated(benchmark: str | None, record: JudgeRecord) -> bool:
    """Whether the length model was made for this judge: the leaderboard's, given its rubric and order."""
    judge = (record.usage.model, record.identity.rubric)
    return OFFICIAL.get(benchmark or "") == judge and record.identity.order == OFFICIAL_ORDER


@dataclass(frozen=True, slots=True)
class JudgeCanary:
    """What one judge, by its label, made of one canary."""

    judge: str
    row: CanaryRow

    def to_json(self) -> dict[str, Any]:
        return {"judge": self.judge} | self.row.to_json()


def canaries_of(entries: Sequence[Mapping[str, Any]]) -> tuple[JudgeCanary, ...]:
    """The canaries of every judge in `verdicts/<benchmark>.canaries.json`."""
    return tuple(
        JudgeCanary(LABELS.get(entry.get("judge", ""), entry.get("judge", "")), CanaryRow.from_json(row))
        for entry in entries
        for row in entry.get("canaries", ())
    )
