"""Who judged, in which order, with what prompt, and what it took: `verdicts/<benchmark>.judge.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class JudgeIdentity:
    """`order`: how the order of two answers was chosen. `texts`: the official texts behind it, in their JSON form."""

    judge: str
    rubric: str
    prompt_sha256: str | None
    order: str
    texts: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class JudgeUsage:
    """Where was asked, and what it took. `cost_usd` is None where prices, or the tokens used, are not known.

    `reasons`: why verdicts are missing, the most frequent first. `notes`: what must be said beside the numbers.
    """

    model: str
    base_url: str | None
    reasons: str
    n_asked: int
    n_cached: int
    n_failed: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class JudgeRecord:
    """`n_unanswered` of the `n_prompts` have no answer to be judged, and count among the `n_missing` verdicts."""

    identity: JudgeIdentity
    usage: JudgeUsage
    n_prompts: int
    n_missing: int
    n_unanswered: int
    allow_missing: bool
    unit: str = ""  # what is unanswered, where that is not a prompt

    def to_json(self) -> dict[str, Any]:
        unanswered = f"{self.unit} not answered: {self.n_unanswered}".strip() if self.n_unanswered else ""
        return {
            **asdict(self.identity),
            **asdict(self.usage),
            "notes": list(self.usage.notes),
            "n_prompts": self.n_prompts,
            "n_missing": self.n_missing,
            "allow_missing": self.allow_missing,
            "reasons": ", ".join(filter(None, [unanswered, self.usage.reasons])),
        }
