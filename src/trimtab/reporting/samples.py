"""Which answers to show side by side. Nothing is picked by eye: the order is a hash of the prompt's id.

Wins and losses are shown in equal number, so a reader sees both; how often each happened is the win rate's business.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, assert_never

from trimtab.analysis import winrate
from trimtab.records import Answer, digest
from trimtab.reporting.inputs import Run

SHOWN = {"win": 4, "loss": 4, "tie": 2, "drift": 3, "answer": 6}
ORDER_RULE = "shown in the order of a hash of the prompt's id, one family after another, not chosen by quality"

Outcome = Literal["win", "loss", "tie", "missing"]
Group = Literal["win", "loss", "tie", "drift", "answer"]


def sample_groups(run: Run, *, judge: str | None, unit: str) -> list[dict[str, Any]]:
    """Groups of samples: wins, losses, ties by `judge`, and the longest drifts; plain answers where no one judged."""
    prompts = sorted((p for p in _beside(run) if p in run.after), key=digest)
    outcomes = {name: _outcomes(run, name) for name in run.verdicts}
    sections: list[tuple[Group, list[str]]] = []
    if judge is None:
        sections.append(("answer", prompts))
    else:
        for group in ("win", "loss", "tie"):
            sections.append((group, [p for p in prompts if outcomes[judge].get(p, "missing") == group]))
    sections.append(("drift", sorted(prompts, key=lambda p: (-_grown(run, p, unit), digest(p)))))
    return [
        {
            "group": group,
            "title": _title(group, judge),
            "n_all": len(members) if group != "drift" else None,
            "samples": [_row(run, p, unit=unit, outcomes=outcomes) for p in _taken(group, members, run)],
        }
        for group, members in sections
        if members
    ]


def _title(group: Group, judge: str | None) -> str:
    match group:
        case "win":
            return f"The aligned answer wins (judge: {judge})"
        case "loss":
            return f"The aligned answer loses (judge: {judge})"
        case "tie":
            return f"Ties (judge: {judge})"
        case "drift":
            return "Answers that grew the most"
        case "answer":
            return "Answers before and after (not judged)"
        case _:
            assert_never(group)


def _taken(group: Group, prompts: Sequence[str], run: Run) -> list[str]:
    """The first ones; for all but the drifts, one a family before any family has two."""
    if group == "drift":
        return list(prompts[: SHOWN[group]])
    seen: dict[str, int] = {}
    rounds = []
    for prompt in prompts:
        family = run.after[prompt].dataset
        rounds.append(seen.get(family, 0))
        seen[family] = seen.get(family, 0) + 1
    ordered = [prompt for _, prompt in sorted(zip(rounds, prompts, strict=True), key=lambda entry: entry[0])]
    return ordered[: SHOWN[group]]


def _outcomes(run: Run, judge: str) -> dict[str, Outcome]:
    rows = run.verdicts[judge]
    scores = winrate.scores_from(row.preference for row in rows)
    return {row.prompt_id: outcome(float(score)) for row, score in zip(rows, scores, strict=True)}


def outcome(score: float) -> Outcome:
    """What a score in [0, 1] (NaN: none) says about the aligned answer."""
    if math.isnan(score):
        return "missing"
    return "win" if score > 0.5 else "loss" if score < 0.5 else "tie"


def _row(run: Run, prompt: str, *, unit: str, outcomes: Mapping[str, Mapping[str, Outcome]]) -> dict[str, Any]:
    before, after = _beside(run)[prompt], run.after[prompt]
    return {
        "prompt_id": prompt,
        "family": after.dataset,
        "prompt": after.instruction,
        "before": _answer(before, unit),
        "after": _answer(after, unit),
        "unit": unit,
        "labels": _labels(run, before),
        "verdicts": [{"judge": judge, "outcome": of.get(prompt, "missing")} for judge, of in outcomes.items()],
    }


def _answer(answer: Answer, unit: str) -> dict[str, Any]:
    return {"text": answer.output, "length": _length(answer, unit), "finished": answer.finished}


def _length(answer: Answer, unit: str) -> int:
    return answer.n_tokens if unit == "tokens" else len(answer.output)


def _grown(run: Run, prompt: str, unit: str) -> int:
    return _length(run.after[prompt], unit) - _length(_beside(run)[prompt], unit)


def _beside(run: Run) -> Mapping[str, Answer]:
    """What the aligned answers are shown beside: what the judge saw them beside, else the unaligned model's."""
    return run.baseline if run.published and run.verdicts else run.before


def _labels(run: Run, before: Answer) -> dict[str, str]:
    shown = run.published and (bool(run.verdicts) or not run.unaligned)
    return {"before": before.generator, "after": "aligned"} if shown else {"before": "before", "after": "after"}
