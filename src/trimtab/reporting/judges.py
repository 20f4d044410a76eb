"""Judges as the report names them, and what their canaries showed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trimtab.runtime.judges.judge_record import JudgeRecord

# The judge and rubric that AlpacaEval fitted the constants of its length model to, by benchmark.
OFFICIAL = {"alpaca_eval": ("gpt-4-1106-preview", "weighted"), "alpaca_eval_1": ("gpt-4", "ranking")}
OFFICIAL_ORDER = "official seeded order"
LABELS = {"oracle": "the oracle, which knows the truth", "biased": "the length-biased judge"}


def is_calibrated(benchmark: str | None, record: JudgeRecord) -> bool:
    """Whether the length model was made for this judge: the leaderboard's, given its rubric and order."""
    judge = (record.usage.model, record.identity.rubric)
    return OFFICIAL.get(benchmark or "") == judge and record.identity.order == OFFICIAL_ORDER


@dataclass(frozen=True, slots=True)
class Canary:
    """A row of `analysis.canaries` with the judge's label: rates in percent, None without a verdict."""

    judge: str
    name: str
    expected: float
    win_rate: float | None
    ci95: tuple[float | None, float | None]
    n: int
    n_missing: int
    alarm: bool
    sentence: str
    document: Mapping[str, Any]

    @classmethod
    def from_json(cls, row: Mapping[str, Any], *, judge: str) -> Canary:
        low, high = row["ci95"]
        return cls(
            judge, row["name"], row["expected"], row["win_rate"], (low, high), row["n"], row["n_missing"],
            row["alarm"], row["sentence"], row,
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        return {"judge": self.judge} | dict(self.document)


def canaries_of(entries: Sequence[Mapping[str, Any]]) -> tuple[Canary, ...]:
    """The canaries of every judge in `verdicts/<benchmark>.canaries.json`."""
    return tuple(
        Canary.from_json(row, judge=LABELS.get(entry.get("judge", ""), entry.get("judge", "")))
        for entry in entries
        for row in entry.get("canaries", ())
    )
