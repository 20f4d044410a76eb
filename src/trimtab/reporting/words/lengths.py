"""The sentences about lengths. An answer cut at the limit is at least as long as it was sampled: how long it would have
been is not known."""

from __future__ import annotations

from typing import assert_never

from trimtab.analysis.comparison import MIN_COMMON
from trimtab.reporting.numbers.answers import LengthNumbers
from trimtab.reporting.numbers.benchmark import BenchmarkNumbers
from trimtab.reporting.sections import Sentence, sentence
from trimtab.reporting.text import interval, number, with_sign

MANY_CUT = 0.1  # share of one side's answers: from here on a figure may be the limit's as well as the model's


def lengths(benchmark: BenchmarkNumbers) -> list[Sentence]:
    """What alignment did to the length of answers, as far as cut ones let it be known."""
    numbers = benchmark.lengths
    if numbers is None:
        return []
    if benchmark.before == "baseline" and benchmark.baseline is not None:
        return [_beside(numbers, benchmark.baseline.name)]
    is_controlled = any(
        judge.length_controlled is not None and judge.length_controlled.win_rate.ci95 is not None
        for judge in benchmark.judges
    )
    return [_change(numbers, is_controlled=is_controlled)]


def _change(numbers: LengthNumbers, *, is_controlled: bool) -> Sentence:
    change = numbers.change
    direction = change.direction if change.difference.n >= MIN_COMMON else "unknown"
    cut_before, cut_after = numbers.cut_off.before.value or 0.0, numbers.cut_off.after.value or 0.0
    ratio = "" if change.relative is None else f"{with_sign(100 * change.relative, digits=0)} %, "
    cut = f"; cut at the limit: {_percent(cut_before)} before, {_percent(cut_after)} after" * (
        cut_before + cut_after > 0
    )
    text = (
        f"from {number(change.before.value)} to **{number(change.after.value)} {numbers.unit}** a prompt "
        f"({ratio}change {with_sign(change.difference.value)}, 95 % CI {interval(change.difference.ci95)}, "
        f"{number(change.difference.n)} prompts{cut})"
    )
    # whole answers on the longer side would be longer still, so a few cut ones on the shorter side alone decide
    doubt = max(cut_before if direction != "below" else 0.0, cut_after if direction != "above" else 0.0)
    if doubt >= MANY_CUT:
        return sentence(
            f"**Whether answers kept their length is not known**: {_percent(cut_before)} before and "
            f"{_percent(cut_after)} after were cut at the limit, and would have been longer. As sampled they went "
            f"{text}.",
            "warn",
        )
    match direction:
        case "above":
            remedy = "; length control corrects for that" if is_controlled else ""
            return sentence(
                f"**Answers grew longer**, {text}. Judges that like long answers overrate them{remedy}.", "warn"
            )
        case "below":
            return sentence(f"Answers became shorter, {text}.")
        case "not distinguishable":
            return sentence(f"Answers kept their length, as far as these prompts can tell: {text}.")
        case "unknown":
            is_equal = change.difference.value == 0
            lead = (
                "Answers are as long as they were" if is_equal else "Too few answers to say what became of their length"
            )
            return sentence(f"{lead}: {text}.")
        case _:
            assert_never(direction)


def _beside(numbers: LengthNumbers, baseline: str) -> Sentence:
    """Where the unaligned model did not answer: the aligned model's lengths and the baseline's."""
    change, cut = numbers.change, numbers.cut_off.after.value
    lower_bound = f"; {_percent(cut)} of the aligned model's were cut at the limit" if cut else ""
    return sentence(
        f"The aligned model's answers have {number(change.after.value)} {numbers.unit}, {baseline}'s "
        f"{number(change.before.value)} (difference {with_sign(change.difference.value)}, 95 % CI "
        f"{interval(change.difference.ci95)}, {number(change.difference.n)} prompts{lower_bound}). What alignment did "
        "to length was not measured: the unaligned model did not answer."
    )


def _percent(share: float) -> str:
    return f"{number(100 * share)} %"
