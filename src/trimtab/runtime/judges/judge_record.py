"""Who judged, in which order, with what prompt, and what it took: `verdicts/<benchmark>.judge.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from trimtab.analysis.winrate import too_many_missing


@dataclass(frozen=True, slots=True)
class JudgeIdentity:
    """`order`: how the order of two answers was chosen. `texts`: the official texts behind it, in their JSON form."""

    judge: str
    rubric: str
    prompt_sha256: str | None
    order: str
    texts: Mapping[str, Any]

    @property
    def label(self) -> str:
        """The judge as every number names it: with its rubric and order, and the prompt by the start of its digest."""
        prompt = f"prompt {self.prompt_sha256[:8]}" if self.prompt_sha256 else ""
        order = "" if self.order == "none" else self.order
        details = [text for text in (self.rubric, prompt, order) if text and text not in self.judge]
        return f"{self.judge} [{', '.join(details)}]" if details else self.judge


COUNTS = ("n_asked", "n_cached", "n_failed", "prompt_tokens", "completion_tokens")


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

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> JudgeRecord:
        """As a run folder has it; what is not there is empty. What is unanswered stands among the reasons."""

        def text(key: str) -> str:
            return str(tree.get(key) or "")

        def count(key: str) -> int:
            return int(tree.get(key) or 0)

        return cls(
            JudgeIdentity(
                text("judge"), text("rubric"), tree.get("prompt_sha256"), text("order"), tree.get("texts") or {}
            ),
            JudgeUsage(
                model=text("model"),
                base_url=tree.get("base_url"),
                reasons=text("reasons"),
                n_asked=count("n_asked"),
                n_cached=count("n_cached"),
                n_failed=count("n_failed"),
                prompt_tokens=count("prompt_tokens"),
                completion_tokens=count("completion_tokens"),
                cost_usd=tree.get("cost_usd"),
                notes=tuple(tree.get("notes") or ()),
            ),
            n_prompts=count("n_prompts"),
            n_missing=count("n_missing"),
            n_unanswered=0,
            allow_missing=tree.get("allow_missing", False),
        )

    @property
    def too_many_missing(self) -> bool:
        return too_many_missing(self.n_missing, of=self.n_prompts)

    @property
    def refused(self) -> bool:
        """Whether so many verdicts are missing that no headline number may be given."""
        return self.too_many_missing and not self.allow_missing

    def to_json(self) -> dict[str, Any]:
        missing_answers = f"{self.unit} not answered: {self.n_unanswered}".strip() if self.n_unanswered else ""
        return {
            **asdict(self.identity),
            **asdict(self.usage),
            "notes": list(self.usage.notes),
            "n_prompts": self.n_prompts,
            "n_missing": self.n_missing,
            "allow_missing": self.allow_missing,
            "reasons": ", ".join(filter(None, [missing_answers, self.usage.reasons])),
        }


def pooled(records: Sequence[JudgeRecord]) -> JudgeRecord | None:
    """The first seed's judge with counts and cost of all seeds; None where no seed has a record.

    The cost is known where every seed's is.
    """
    if not records:
        return None
    usages = [record.usage for record in records]
    costs = [usage.cost_usd for usage in usages if usage.cost_usd is not None]
    usage = replace(
        usages[0],
        **{name: sum(getattr(usage, name) for usage in usages) for name in COUNTS},
        cost_usd=float(sum(costs)) if len(costs) == len(usages) else None,
        notes=tuple(dict.fromkeys(note for usage in usages for note in usage.notes)),
    )
    return replace(
        records[0],
        usage=usage,
        n_prompts=sum(record.n_prompts for record in records),
        n_missing=sum(record.n_missing for record in records),
        allow_missing=all(record.allow_missing for record in records),
    )
