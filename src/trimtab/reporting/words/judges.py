"""The sentences about win rates, marks, missing verdicts and canaries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from trimtab.analysis.winrate import too_many_missing
from trimtab.records import Direction, Estimate
from trimtab.reporting.forest import EVEN
from trimtab.reporting.numbers.benchmark import BenchmarkNumbers
from trimtab.reporting.numbers.judges import JudgeNumbers, LengthControlNumbers
from trimtab.reporting.numbers.marks import MarkNumbers
from trimtab.reporting.sections import Sentence, Tone, sentence
from trimtab.reporting.text import interval, number, with_sign
from trimtab.reporting.words.lengths import MANY_CUT
from trimtab.runtime.judges.judge_record import JudgeRecord


def missing(record: JudgeRecord | None) -> list[Sentence]:
    """Too many missing verdicts forbid a headline number, or were allowed."""
    if record is None or not record.too_many_missing:
        return []
    share = 100 * record.n_missing / record.n_prompts
    reason = f" ({record.usage.reasons})" if record.usage.reasons else ""
    text = f"{number(record.n_missing)} of {number(record.n_prompts)} verdicts are missing, {number(share)} %{reason}"
    if record.refused:
        return [
            sentence(
                f"**No headline number**: {text}. More than 1 % may hide anything, and a missing verdict is no loss. "
                "`trimtab judge` asks again for those only; --allow-missing reports without them.",
                "warn",
            )
        ]
    return [sentence(f"{text}; they are left out of every number here, as --allow-missing asked.", "warn")]


def canaries(benchmark: BenchmarkNumbers) -> list[Sentence]:
    """One warning for every canary that rang."""
    return [
        sentence(f"**Canary** of {canary.judge}: {canary.row.sentence}", "warn")
        for canary in benchmark.canaries
        if canary.row.alarm
    ]


def constant_answers(benchmark: BenchmarkNumbers) -> list[Sentence]:
    """A side that gives one answer to everything, whatever the judge made of it."""
    return [sentence(f"**One answer to everything**: {warning}", "warn") for warning in benchmark.constant_answers]


def qualify(first: Sentence, benchmark: BenchmarkNumbers) -> Sentence:
    """The answer to "did it help?" as a warning, where what it rests on does not carry it: it names why."""
    reasons = _weaknesses(benchmark)
    if first.tone not in ("good", "bad") or not reasons:
        return first
    return sentence(f"{first.text} **Do not rely on this**: {'; '.join(reasons)}.", "warn")


def _weaknesses(benchmark: BenchmarkNumbers) -> list[str]:
    reasons = []
    judge = benchmark.judges[0] if benchmark.judges else None
    if any(
        canary.row.alarm and (judge is None or not judge.is_truth or canary.judge == judge.label)
        for canary in benchmark.canaries
    ):
        reasons.append("the judge failed a canary")
    if benchmark.constant_answers:
        reasons.append("most answers of one side are one and the same")
    if benchmark.lengths is not None:
        sides = benchmark.lengths.cut_off
        cut = max(sides.before.value or 0.0, sides.after.value or 0.0)
        if cut >= MANY_CUT:
            reasons.append(f"{number(100 * cut)} % of one side's answers were cut at the limit and judged unfinished")
    if judge is not None:
        rate = judge.win_rate if judge.unaligned is None else judge.unaligned.change.estimate
        if too_many_missing(rate.n_missing, of=rate.n + rate.n_missing):
            share = 100 * rate.n_missing / (rate.n + rate.n_missing)
            reasons.append(f"{number(share)} % of the prompts have no verdict, which may hide anything")
    return reasons


# --- win rates -------------------------------------------------------------------------------------------------------


def win_rate(judge: JudgeNumbers) -> Sentence:
    """Against the unaligned model, where 50 % is no change."""
    rate = judge.win_rate
    if rate.value is None:
        return _no_verdict(judge.label)
    seeds = f" and {rate.n_seeds} seeds" if rate.n_seeds > 1 else ""
    left_out = f", {number(rate.n_missing)} prompts without a verdict left out" if rate.n_missing else ""
    tone: Tone
    match judge.direction:
        case "above":
            tone, end = "good", "**better than no change**, which would be 50 %"
        case "below":
            tone, end = "bad", "**worse than no change**, which would be 50 %"
        case "not distinguishable":
            tone, end = "even", "**not distinguishable from no change**, which would be 50 %"
        case "unknown":
            tone, end = "warn", "so few verdicts that **nothing can be concluded**"
        case _:
            assert_never(judge.direction)
    return sentence(
        f"The aligned model's answers are better than the unaligned model's on **{number(rate.value)} %** of the "
        f"prompts, ties counted as half (95 % CI {interval(rate.ci95)}, {number(rate.n)} prompts{seeds}"
        f"{left_out}, judge: {judge.label}): {end}.",
        tone,
    )


def against_baseline(judge: JudgeNumbers, baseline: str) -> Sentence:
    """Win rates of the aligned and the unaligned model against a published baseline, and the paired difference."""
    rate = judge.win_rate
    if rate.value is None:
        return _no_verdict(judge.label)
    aligned = (
        f"against {baseline} the aligned model wins **{number(rate.value)} %** "
        f"(ties as half, 95 % CI {interval(rate.ci95)}, {_n(rate)})"
    )
    if judge.unaligned is None:
        return sentence(
            f"{aligned[0].upper()}{aligned[1:]}, judge: {judge.label}. 50 % would be as good as {baseline}; "
            "**whether alignment changed anything was not measured**: the unaligned model was not judged "
            "(--benchmark.unaligned on)."
        )
    before, change = judge.unaligned.win_rate, judge.unaligned.change.estimate
    outcome, tone = _outcome(judge.unaligned.change.direction)
    return sentence(
        f"{outcome}: {aligned}, the unaligned model "
        f"**{number(before.value)} %** (95 % CI {interval(before.ci95)}, {_n(before)}). The difference, "
        f"paired by prompt, is {with_sign(change.value)} points (95 % CI {interval(change.ci95)}, {_n(change)}; "
        f"judge: {judge.label}). 50 % would be as good as {baseline}, not no change.",
        tone,
    )


def length_controlled(judges: Sequence[JudgeNumbers]) -> list[Sentence]:
    """Every judge's rates with length controlled, beside the truth where the first judge knows it."""
    truth = judges[0].win_rate.value if judges[0].is_truth else None
    return [
        _length_controlled(judge, judge.length_controlled, truth)
        for judge in judges
        if judge.length_controlled is not None
    ]


def _length_controlled(judge: JudgeNumbers, control: LengthControlNumbers, truth: float | None) -> Sentence:
    raw, rate = judge.win_rate, control.win_rate
    text = f"Judged by {judge.label}: {number(raw.value)} % raw (95 % CI {interval(raw.ci95)})"
    notes = "; ".join(dict.fromkeys(note for entry in control.by_seed for note in entry.fit.notes))
    reasons = f": {notes}" if notes else ""
    if rate.value is None:
        return sentence(f"{text}; a length-controlled win rate could not be computed{reasons}.", "warn")
    if rate.ci95 is None:  # the model's strength cannot be told from length: the point alone would be read as a finding
        return sentence(f"{text}; with answer length controlled nothing can be said{reasons}.", "warn")
    # the constants of the length model were fitted to one judge; the wind tunnel's (None) are held against the truth
    doubt = ", uncalibrated for this judge" if control.calibrated is False else ""
    text += (
        f" and **{number(rate.value)} %** with answer length controlled "
        f"(95 % CI {interval(rate.ci95)}, {number(rate.n)} prompts{doubt})"
    )
    if truth is None or raw.ci95 is None:
        return sentence(f"{text}.")
    end, tone = _against_truth(raw, rate, truth)
    return sentence(f"{text}; {end}.", tone)


def _against_truth(raw: Estimate, rate: Estimate, truth: float) -> tuple[str, Tone]:
    """What length control made of a judge's error. Length control cannot take away a judge's doubt, and says so."""
    in_raw, in_controlled = _holds(raw, truth), _holds(rate, truth)
    if in_controlled:
        recovery = "both intervals contain" if in_raw else "the raw interval misses and length control recovers"
        return f"{recovery} the true {number(truth)} %", "plain"
    outside = f"the true {number(truth)} % lies outside {'the second interval' if in_raw else 'both intervals'}"
    lead, true_lead = (rate.value or 0.0) - EVEN, truth - EVEN
    if lead * true_lead > 0 and abs(lead) < abs(true_lead):
        return f"{outside}, and a judge in doubt stays nearer to 50 % than the truth", "plain"
    return f"{outside}: **this judge misleads here**", "warn"


def _holds(estimate: Estimate, value: float) -> bool:
    return estimate.ci95 is not None and estimate.ci95[0] <= value <= estimate.ci95[1]


# --- marks -----------------------------------------------------------------------------------------------------------


def marks(numbers: MarkNumbers) -> Sentence:
    """Mean marks of both models, and the paired difference."""
    aligned, change = numbers.overall.means["aligned"], numbers.overall.change
    if aligned.value is None:
        return sentence(f"{numbers.judge} gave no mark that can be read, so **nothing can be said**.", "warn")
    mean = f"**{number(aligned.value, digits=2)} of 10** (95 % CI {interval(aligned.ci95, digits=2)})"
    if change is None:
        return sentence(
            f"The aligned model's mean mark is {mean} on {_n(aligned, 'questions')}, judge: {numbers.judge}. "
            "**Whether alignment changed anything was not measured**: the unaligned model has no marks."
        )
    before, difference = numbers.overall.means["unaligned"], change.estimate
    outcome, tone = _outcome(change.direction)
    return sentence(
        f"{outcome}: the aligned model's mean mark is {mean}, the unaligned model's "
        f"**{number(before.value, digits=2)}** (95 % CI {interval(before.ci95, digits=2)}). The difference, "
        f"paired by question, is {with_sign(difference.value, digits=2)} (95 % CI "
        f"{interval(difference.ci95, digits=2)}, {_n(difference, 'questions')}, judge: {numbers.judge}).",
        tone,
    )


def _outcome(direction: Direction) -> tuple[str, Tone]:
    match direction:
        case "above":
            return "**Alignment made the answers better**", "good"
        case "below":
            return "**Alignment made the answers worse**", "bad"
        case "not distinguishable":
            return "**No change for better or worse can be distinguished**", "even"
        case "unknown":
            return "**Too few common verdicts to say what alignment changed**", "warn"
        case _:
            assert_never(direction)


def _no_verdict(judge: str) -> Sentence:
    return sentence(f"{judge} gave no verdict at all, so **nothing can be said**.", "warn")


def _n(estimate: Estimate, rows: str = "prompts") -> str:
    seeds = f", {estimate.n_seeds} seeds" if estimate.n_seeds > 1 else ""
    left_out = f", {number(estimate.n_missing)} left out" if estimate.n_missing else ""
    return f"{number(estimate.n)} {rows}{seeds}{left_out}"
