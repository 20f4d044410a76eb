"""What `trimtab calibrate` says: three sentences, and the rows of its tables. No number is made here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from trimtab.analysis.selection import MIN_PAIRS
from trimtab.records import Estimate
from trimtab.reporting.sections import Sentence, Tone, sentence
from trimtab.reporting.text import estimate_text, interval, number, significant, with_sign
from trimtab.studies.calibration.numbers import (
    CalibrationError,
    CalibrationNumbers,
    Drift,
    GapNumbers,
    Measures,
    TokenMeans,
)


def headline(numbers: CalibrationNumbers) -> list[Sentence]:
    """The answers: the reward gap, the next token, the drift."""
    measures = numbers.measures
    return [
        _reward_sentence(measures.gaps_after, n_pairs=len(numbers.run.pairs)),
        _token_sentence(measures),
        _drift_sentence(measures.drift),
    ]


def _reward_sentence(gaps: GapNumbers, *, n_pairs: int) -> Sentence:
    accuracy, confidence = gaps.accuracy.scaled(100), gaps.confidence.scaled(100)
    verdict, tone = _confidence_verdict(gaps)
    return sentence(
        f"The reward is right on **{number(accuracy.value)} %** of {number(n_pairs)} held-out pairs "
        f"({interval(accuracy.ci95)}) and {number(confidence.value)} % sure of itself on average: {verdict}. "
        f"{error_text(gaps.error)}, Brier score {number(gaps.brier.value, digits=3)}.",
        tone,
    )


def _confidence_verdict(gaps: GapNumbers) -> tuple[str, Tone]:
    if gaps.over_confidence.n < MIN_PAIRS:
        return "these are too few pairs to tell over- from under-confidence", "even"
    match gaps.over_confidence.direction(0.0):
        case "above":
            return "it is **over-confident**", "warn"
        case "below":
            return "it is **under-confident**", "warn"
        case _ if gaps.error.is_beyond_chance:  # over- and under-confidence may cancel in the mean
            return (
                "neither too sure nor too unsure on average, but **miscalibrated** by more than chance explains",
                "warn",
            )
        case "unknown":
            return "these are too few pairs to tell over- from under-confidence", "even"
        case _:
            return "on so many pairs over- or under-confidence is **not distinguishable**", "even"


def _token_sentence(measures: Measures) -> Sentence:
    before, after, change = measures.reference, measures.policy, measures.change.nll
    verdict, tone = _token_verdict(change)
    over_before, over_after = (100 * (side.over_confidence.value or 0.0) for side in (before, after))
    ece_before, ece_after = (number(error.ece, digits=4) for error in (measures.reference_error, measures.policy_error))
    return sentence(
        f"At the next token of chosen responses the aligned model is {verdict}: perplexity "
        f"{significant(before.perplexity.value)} before, {significant(after.perplexity.value)} after "
        f"({with_sign(change.value, digits=4)} nats a token, {interval(change.ci95, digits=4)}). Its calibration "
        f"error is {ece_after} against {ece_before}, its over-confidence "
        f"{with_sign(over_after, digits=2)} against {with_sign(over_before, digits=2)} points, its entropy "
        f"{significant(after.entropy.value)} against {significant(before.entropy.value)} nats.",
        tone,
    )


def _token_verdict(change: Estimate) -> tuple[str, Tone]:
    if change.value == 0:
        return "as good as the unaligned one, to the last digit", "even"
    direction = change.direction(0.0)
    if change.n < MIN_PAIRS or direction == "unknown":
        return "measured on **too few responses** to be held against the unaligned one", "even"
    match direction:
        case "above":
            return "**worse** than the unaligned one", "warn"
        case "below":
            return "**better** than the unaligned one", "good"
        case _:
            return "**not distinguishable** from the unaligned one", "even"


def _drift_sentence(drift: Drift) -> Sentence:
    return sentence(
        f"It moved **{significant(drift.divergence.value)} nats a token** from its starting point (KL on chosen "
        f"responses); the log-ratio is {with_sign(drift.log_ratio_chosen.value, digits=4)} nats a token on chosen and "
        f"{with_sign(drift.log_ratio_rejected.value, digits=4)} on rejected responses."
    )


def error_text(error: CalibrationError) -> str:
    """The calibration error beside what chance alone would show, where that is known."""
    text = f"Expected calibration error {number(error.ece, digits=3)}"
    if math.isnan(error.chance.mean):
        return text
    mean, limit = number(error.chance.mean, digits=3), number(error.chance.below95, digits=3)
    return f"{text} (chance alone: {mean}, up to {limit})"


# --- tables ----------------------------------------------------------------------------------------------------------


def gap_rows(sides: Sequence[GapNumbers]) -> list[list[str]]:
    """A column a side: before, where there is something to calibrate, and after."""
    return [
        ["pairs it gets right, %", *(estimate_text(side.accuracy.scaled(100)) for side in sides)],
        ["mean confidence, %", *(estimate_text(side.confidence.scaled(100)) for side in sides)],
        ["over-confidence, points", *(estimate_text(side.over_confidence.scaled(100)) for side in sides)],
        ["Brier score", *(estimate_text(side.brier, digits=4) for side in sides)],
        *_error_rows([side.error for side in sides]),
        ["mean reward gap, nats", *(estimate_text(side.reward_gap, digits=3) for side in sides)],
    ]


def token_rows(measures: Measures) -> list[list[str]]:
    """Three columns: before, after, their paired change."""
    before, after, change = measures.reference, measures.policy, measures.change

    def row(label: str, measure: Callable[[TokenMeans], Estimate], *, factor: float = 1, digits: int) -> list[str]:
        return [
            label,
            *(estimate_text(measure(side).scaled(factor), digits=digits) for side in (before, after, change)),
        ]

    perplexities = [estimate_text(side.perplexity, digits=3) for side in (before, after)]
    return [
        ["perplexity", *perplexities, f"× {estimate_text(change.perplexity, digits=4)}"],
        row("negative log-likelihood, nats a token", lambda side: side.nll, digits=4),
        row("entropy, nats a token", lambda side: side.entropy, digits=4),
        row("most likely token came, %", lambda side: side.accuracy, factor=100, digits=2),
        row("over-confidence, points", lambda side: side.over_confidence, factor=100, digits=3),
        row("Brier score of the most likely", lambda side: side.brier, digits=4),
        *([*cells, ""] for cells in _error_rows([measures.reference_error, measures.policy_error])),
    ]


def _error_rows(errors: Sequence[CalibrationError]) -> list[list[str]]:
    return [
        ["expected calibration error", *(number(error.ece, digits=4) for error in errors)],
        ["… by chance alone, mean", *(number(error.chance.mean, digits=4) for error in errors)],
        ["… by chance alone, 95 % below", *(number(error.chance.below95, digits=4) for error in errors)],
    ]


def drift_rows(drift: Drift) -> list[list[str]]:
    """One column, nats a token."""
    return [
        ["KL(aligned ‖ unaligned), chosen responses", estimate_text(drift.divergence, digits=5)],
        ["log-ratio, chosen responses", estimate_text(drift.log_ratio_chosen, digits=5)],
        ["log-ratio, rejected responses", estimate_text(drift.log_ratio_rejected, digits=5)],
    ]
