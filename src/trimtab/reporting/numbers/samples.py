"""Which answers to show side by side. Nothing is picked by eye: the order is a hash of the prompt's id.

Wins and losses are shown in equal number, so a reader sees both; how often each happened is the win rate's business.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, assert_never

from trimtab.analysis.comparison import scores_by_prompt
from trimtab.records import Answer, digest
from trimtab.reporting.numbers.answers import Unit, n_characters, n_tokens
from trimtab.reporting.read import Answers, Run

# Few enough to be read; wins and losses alike, so that neither makes the impression.
COUNTS = {"win": 4, "loss": 4, "tie": 2, "drift": 3, "answer": 6}

Outcome = Literal["win", "loss", "tie", "missing"]
GroupName = Literal["win", "loss", "tie", "drift", "answer"]
Outcomes: TypeAlias = Mapping[str, Mapping[str, Outcome]]
"""By judge and prompt."""


@dataclass(frozen=True, slots=True)
class SampleAnswer:
    text: str
    length: int
    finished: bool


@dataclass(frozen=True, slots=True)
class SampleLabels:
    """Whose the two answers are."""

    before: str
    after: str


@dataclass(frozen=True, slots=True)
class SampleVerdict:
    judge: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class SampleRow:
    """A prompt with both answers, whole."""

    prompt_id: str
    family: str
    prompt: str
    before: SampleAnswer
    after: SampleAnswer
    unit: Unit
    labels: SampleLabels
    verdicts: tuple[SampleVerdict, ...]


@dataclass(frozen=True, slots=True)
class SampleGroup:
    """`n_all`: how many prompts belong to the group; None for the answers that grew the most, which are a ranking."""

    group: GroupName
    title: str
    n_all: int | None
    samples: tuple[SampleRow, ...]


def sample_groups(run: Run, *, judge: str | None, unit: Unit) -> list[SampleGroup]:
    """Wins, losses and ties by `judge`, and the longest drifts; plain answers where nobody judged."""
    prompts = sorted((p for p in _compared_with(run) if p in run.after), key=digest)
    outcomes = {
        name: {prompt: outcome(score) for prompt, score in scores_by_prompt(verdicts).items()}
        for name, verdicts in run.verdicts.items()
    }
    members = _members(run, prompts, None if judge is None else outcomes[judge], unit=unit)
    return [
        SampleGroup(
            group=name,
            title=_title(name, judge, rival="the baseline's" if _beside_baseline(run) else None),
            n_all=None if name == "drift" else len(of_group),
            samples=tuple(_row(run, p, unit=unit, outcomes=outcomes) for p in _choice(name, of_group, run)),
        )
        for name, of_group in members.items()
        if of_group
    ]


def _members(
    run: Run, prompts: Sequence[str], outcomes: Mapping[str, str] | None, *, unit: Unit
) -> dict[GroupName, list[str]]:
    """The prompts of every group. `outcomes`: by prompt; None where nobody judged."""
    members: dict[GroupName, list[str]] = {}
    if outcomes is None:
        members["answer"] = list(prompts)
    else:
        names: tuple[Literal["win", "loss", "tie"], ...] = ("win", "loss", "tie")
        for name in names:
            members[name] = [prompt for prompt in prompts if outcomes.get(prompt, "missing") == name]
    longer = (prompt for prompt in prompts if _growth(run, prompt, unit) > 0)
    members["drift"] = sorted(longer, key=lambda prompt: (-_growth(run, prompt, unit), digest(prompt)))
    return members


def _title(group: GroupName, judge: str | None, *, rival: str | None) -> str:
    """`rival`: whose the other answers are where they are not the same model's from before training."""
    match group:
        case "win":
            return f"The aligned answer wins (judge: {judge})"
        case "loss":
            return f"The aligned answer loses (judge: {judge})"
        case "tie":
            return f"Ties (judge: {judge})"
        case "drift":
            return f"Aligned answers longest beside {rival}" if rival else "Answers that grew the most"
        case "answer":
            return f"Answers beside {rival} (not judged)" if rival else "Answers before and after (not judged)"
        case _:
            assert_never(group)


def _choice(group: GroupName, prompts: Sequence[str], run: Run) -> Sequence[str]:
    """The first ones; for all but the drifts, one a family before any family has two."""
    if group == "drift":
        return prompts[: COUNTS[group]]
    in_family: Counter[str] = Counter()
    rounds = []
    for prompt in prompts:
        rounds.append(in_family[run.after[prompt].dataset])
        in_family[run.after[prompt].dataset] += 1
    in_rounds = sorted(zip(rounds, prompts, strict=True), key=lambda entry: entry[0])
    return [prompt for _, prompt in in_rounds[: COUNTS[group]]]


def outcome(score: float | None) -> Outcome:
    """What a score in [0, 1] (None, NaN: none) says about the aligned answer."""
    if score is None or math.isnan(score):
        return "missing"
    return "win" if score > 0.5 else "loss" if score < 0.5 else "tie"


def _row(run: Run, prompt: str, *, unit: Unit, outcomes: Outcomes) -> SampleRow:
    before, after = _compared_with(run)[prompt], run.after[prompt]
    return SampleRow(
        prompt_id=prompt,
        family=after.dataset,
        prompt=after.instruction,
        before=SampleAnswer(before.output, _length(before, unit), before.finished),
        after=SampleAnswer(after.output, _length(after, unit), after.finished),
        unit=unit,
        labels=SampleLabels(before.generator, "aligned") if _beside_baseline(run) else SampleLabels("before", "after"),
        verdicts=tuple(SampleVerdict(judge, of.get(prompt, "missing")) for judge, of in outcomes.items()),
    )


def _beside_baseline(run: Run) -> bool:
    """Whether the answers beside the aligned ones are a published baseline's."""
    return run.published and (bool(run.verdicts) or not run.unaligned)


def _length(answer: Answer, unit: Unit) -> int:
    return n_tokens(answer) if unit == "tokens" else n_characters(answer)


def _growth(run: Run, prompt: str, unit: Unit) -> int:
    return _length(run.after[prompt], unit) - _length(_compared_with(run)[prompt], unit)


def _compared_with(run: Run) -> Answers:
    """What the aligned answers are shown beside: what the judge saw them beside, else the unaligned model's."""
    return run.baseline if run.published and run.verdicts else run.before
