"""Who judged: the record of a run's judge (`verdicts/<benchmark>.judge.json`) and what its canaries showed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from trimtab.analysis import winrate

# The judge and rubric that AlpacaEval fitted the constants of its length model to, by benchmark.
OFFICIAL = {"alpaca_eval": ("gpt-4-1106-preview", "weighted"), "alpaca_eval_1": ("gpt-4", "ranking")}
OFFICIAL_ORDER = "official seeded order"
LABELS = {"oracle": "the oracle, which knows the truth", "biased": "the length-biased judge"}
_COUNTS = ("n_asked", "n_cached", "n_failed", "prompt_tokens", "completion_tokens", "n_prompts", "n_missing")


@dataclass(frozen=True, slots=True)
class JudgeText:
    """A text that the judge was given, and whether it is the official one."""

    sha256: str | None
    official: bool


@dataclass(frozen=True, slots=True)
class JudgeRecord:
    """Model, prompt and order are the first seed's; counts and cost those of all seeds. Absent texts are None.

    `counts` are of `_COUNTS`: questions put, answered from the store, failed; tokens in and out; prompts and missing
    verdicts. `document` is the first seed's file, which report.json repeats.
    """

    judge: str | None
    model: str | None
    base_url: str | None
    rubric: str | None
    prompt_sha256: str | None
    order: str | None
    reasons: str | None
    texts: Mapping[str, JudgeText]
    counts: Mapping[str, int]
    cost_usd: float | None
    notes: tuple[str, ...]
    allow_missing: bool
    document: Mapping[str, Any]

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> JudgeRecord:
        names = ("judge", "model", "base_url", "rubric", "prompt_sha256", "order", "reasons")
        return cls(
            **{name: str(tree[name]) if tree.get(name) else None for name in names},
            texts={
                name: JudgeText(text.get("sha256"), bool(text.get("official")))
                for name, text in (tree.get("texts") or {}).items()
            },
            counts={name: int(tree.get(name) or 0) for name in _COUNTS},
            cost_usd=tree.get("cost_usd"),
            notes=tuple(tree.get("notes") or ()),
            allow_missing=tree.get("allow_missing", False),
            document=tree,
        )

    @property
    def n_prompts(self) -> int:
        return self.counts["n_prompts"]

    @property
    def n_missing(self) -> int:
        return self.counts["n_missing"]

    @property
    def too_many_missing(self) -> bool:
        return winrate.too_many_missing(self.n_missing, of=self.n_prompts)

    @property
    def refused(self) -> bool:
        """Whether so many verdicts are missing that no headline number may be given."""
        return self.too_many_missing and not self.allow_missing

    @property
    def label(self) -> str:
        """The judge on every number: its name, rubric and order, and the prompt by the start of its digest."""
        name = str(self.judge)
        prompt = f"prompt {self.prompt_sha256[:8]}" if self.prompt_sha256 else ""
        order = "" if self.order in (None, "none") else self.order
        details = [text for text in (self.rubric, prompt, order) if text and text not in name]  # the name may say them
        return f"{name} [{', '.join(details)}]" if details else name

    def is_calibrated(self, benchmark: str | None) -> bool:
        """Whether the length model was made for this judge: the leaderboard's, given its rubric and order."""
        official = OFFICIAL.get(benchmark or "")
        return official is not None and official == (self.model, self.rubric) and self.order == OFFICIAL_ORDER

    def to_json(self) -> dict[str, Any]:
        return {
            **self.document,
            **self.counts,
            "cost_usd": self.cost_usd,
            "notes": list(self.notes),
            "allow_missing": self.allow_missing,
            "refused": self.refused,
            "texts": self.document.get("texts") or {},
        }


def pooled_record(records: Sequence[JudgeRecord]) -> JudgeRecord | None:
    """The record of all seeds; None where none has one. The cost is known where every seed's is."""
    if not records:
        return None
    costs = [record.cost_usd for record in records if record.cost_usd is not None]
    return replace(
        records[0],
        counts={name: sum(record.counts[name] for record in records) for name in _COUNTS},
        cost_usd=float(sum(costs)) if len(costs) == len(records) else None,
        notes=tuple(dict.fromkeys(note for record in records for note in record.notes)),
        allow_missing=all(record.allow_missing for record in records),
    )


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
