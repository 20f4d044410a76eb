"""The sentences about a published baseline, about marks, about missing verdicts and canaries.

As in `words`: a sentence is text and tone, names its n, interval and judge, and says when it cannot tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, assert_never

from trimtab.analysis.winrate import too_many_missing
from trimtab.reporting.estimates import Direction
from trimtab.reporting.sentences import Sentence, Tone, sentence, signed
from trimtab.reporting.text import interval, number


def missing(record: Mapping[str, Any] | None) -> list[Sentence]:
    """What is said of missing verdicts: that they forbid a headline number, or that they were allowed."""
    if record is None or not too_many_missing(record["n_missing"], of=record["n_prompts"]):
        return []
    share = 100 * record["n_missing"] / record["n_prompts"]
    why = f" ({record['reasons']})" if record.get("reasons") else ""
    told = (
        f"{number(record['n_missing'])} of {number(record['n_prompts'])} verdicts are missing, {number(share)} %{why}"
    )
    if record["refused"]:
        return [
            sentence(
                f"**No headline number**: {told}. More than 1 % may hide anything, and a missing verdict is no loss. "
                "`trimtab judge` asks again for those only; --allow-missing reports without them.",
                "warn",
            )
        ]
    return [sentence(f"{told}; they are left out of every number here, as --allow-missing asked.", "warn")]


def canaries(benchmark: Mapping[str, Any]) -> list[Sentence]:
    """One warning for every canary that rang."""
    return [
        sentence(f"**Canary** of {row['judge']}: {row['sentence']}", "warn")
        for row in benchmark["canaries"]
        if row["alarm"]
    ]


def constant(benchmark: Mapping[str, Any]) -> list[Sentence]:
    """A side that gives one answer to everything, whatever the judge made of it."""
    return [sentence(f"**One answer to everything**: {told}", "warn") for told in benchmark["constant_answers"]]


def against_baseline(judge: Mapping[str, Any], baseline: str) -> list[Sentence]:
    """Win rates of the aligned and the unaligned model against a published baseline, and the paired difference."""
    rate = judge["win_rate"]
    if rate["value"] is None:
        return [sentence(f"{judge['label']} gave no verdict at all, so **nothing can be said**.", "warn")]
    by = f"judge: {judge['label']}"
    aligned = (
        f"against {baseline} the aligned model wins **{number(rate['value'])} %** "
        f"(ties as half, 95 % CI {interval(rate['ci95'])}, {_n(rate)})"
    )
    if judge["unaligned"] is None:
        return [
            sentence(
                f"{aligned[0].upper()}{aligned[1:]}, {by}. 50 % would be as good as {baseline}; "
                "**whether alignment changed anything was not measured**: the unaligned model was not judged "
                "(--benchmark.unaligned on).",
                "plain",
            )
        ]
    before, change = judge["unaligned"]["win_rate"], judge["unaligned"]["change"]
    end, tone = _changed(change["direction"], "the answers")
    return [
        sentence(
            f"{end}: {aligned}, the unaligned model "
            f"**{number(before['value'])} %** (95 % CI {interval(before['ci95'])}, {_n(before)}). The difference, "
            f"paired by prompt, is {signed(change['value'])} points (95 % CI {interval(change['ci95'])}, {_n(change)}; "
            f"{by}). 50 % would be as good as {baseline}, not no change.",
            tone,
        )
    ]


def marks(told: Mapping[str, Any]) -> list[Sentence]:
    """Mean marks of both models, and the paired difference."""
    means, change = told["all"]["means"], told["all"]["change"]
    aligned = means["aligned"]
    if aligned["value"] is None:
        return [sentence(f"{told['judge']} gave no mark that can be read, so **nothing can be said**.", "warn")]
    mean = f"**{number(aligned['value'], digits=2)} of 10** (95 % CI {interval(aligned['ci95'], digits=2)})"
    if change is None:
        return [
            sentence(
                f"The aligned model's mean mark is {mean} on {_n(aligned, 'questions')}, judge: {told['judge']}. "
                "**Whether alignment changed anything was not measured**: the unaligned model has no marks.",
                "plain",
            )
        ]
    before = means["unaligned"]
    end, tone = _changed(change["direction"], "the answers")
    return [
        sentence(
            f"{end}: the aligned model's mean mark is {mean}, the unaligned model's "
            f"**{number(before['value'], digits=2)}** (95 % CI {interval(before['ci95'], digits=2)}). The difference, "
            f"paired by question, is {signed(change['value'], digits=2)} (95 % CI "
            f"{interval(change['ci95'], digits=2)}, {_n(change, 'questions')}, judge: {told['judge']}).",
            tone,
        )
    ]


def _changed(direction: Direction, what: str) -> tuple[str, Tone]:
    match direction:
        case "above":
            return f"**Alignment made {what} better**", "good"
        case "below":
            return f"**Alignment made {what} worse**", "bad"
        case "not distinguishable":
            return "**What alignment changed is not distinguishable from nothing**", "even"
        case "unknown":
            return "**Too few common verdicts to say what alignment changed**", "warn"
        case _:
            assert_never(direction)


def _n(told: Mapping[str, Any], what: str = "prompts") -> str:
    seeds = f", {told['n_seeds']} seeds" if told["n_seeds"] > 1 else ""
    left_out = f", {number(told['n_missing'])} left out" if told["n_missing"] else ""
    return f"{number(told['n'])} {what}{seeds}{left_out}"
