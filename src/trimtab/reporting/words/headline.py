"""The sentences at the top of the report. The first is the answer to "did it help?"."""

from __future__ import annotations

from typing import assert_never

from trimtab.reporting.numbers.answers import LengthNumbers, ScoreNumbers
from trimtab.reporting.numbers.benchmark import BenchmarkNumbers
from trimtab.reporting.numbers.report import EditedFiles, Report
from trimtab.reporting.sections import Sentence, sentence
from trimtab.reporting.text import interval, number, with_sign
from trimtab.reporting.words import judges, training

NO_BENCHMARK = (
    "**Whether the answers got better was not measured**: no benchmark was asked. "
    "Add --benchmark with a file of prompts (or windtunnel) to find out."
)
NO_JUDGE = (
    "**Whether the answers got better was not judged**: the answers before and after are below, unjudged. "
    "Lengths and samples are all that can be said."
)


def headline(report: Report) -> list[Sentence]:
    """The verdict first, then what qualifies it."""
    benchmark = report.benchmark
    if benchmark is None:
        sentences = [sentence(NO_BENCHMARK, "warn")]
    else:
        first, *details = _verdict(benchmark)
        sentences = [first, *judges.canaries(benchmark), *judges.constant_answers(benchmark), *details]
        sentences += _scores(benchmark.scores) + _lengths(benchmark)
    sentences += training.milestones(report.milestones) + training.heldout(report.heldout)
    return sentences + [_edit_warning(entry) for entry in report.edited]


def _edit_warning(entry: EditedFiles) -> Sentence:
    text = (
        f"**Edited after it was made** (seed {entry.seed}): {', '.join(entry.files)}. "
        "The numbers are of what stands there now."
    )
    return sentence(text, "warn")


def _verdict(benchmark: BenchmarkNumbers) -> list[Sentence]:
    """The answer to "did it help?", and what else the judges say; a refusal where too many verdicts are missing."""
    record, baseline = benchmark.identity, benchmark.published_baseline
    missing = judges.missing(record)
    if record is not None and record.refused:
        return missing
    if benchmark.marks is not None:
        return [judges.marks(benchmark.marks), *missing]
    if not benchmark.judges:
        return [sentence(NO_JUDGE, "warn")]
    length_control = judges.length_controlled(benchmark.judges)
    first = benchmark.judges[0]
    if baseline is None:
        return [judges.win_rate(first), *length_control, *missing]
    return [judges.against_baseline(first, baseline), *missing, *length_control]


def _scores(scores: ScoreNumbers | None) -> list[Sentence]:
    if scores is None:
        return []
    change = scores.change
    text = (
        f"The true mean score went from {number(change.before.value, digits=3)} to "
        f"**{number(change.after.value, digits=3)}** of 1 (change {with_sign(change.difference.value, digits=3)}, 95 % "
        f"CI {interval(change.difference.ci95, digits=3)}, {number(change.difference.n)} prompts, judge: oracle)"
    )
    match change.direction:
        case "above":
            return [sentence(f"{text}.", "good")]
        case "below":
            return [sentence(f"{text}.", "bad")]
        case "not distinguishable" | "unknown":
            return [sentence(f"{text}: not distinguishable from no change.", "even")]
        case _:
            assert_never(change.direction)


def _lengths(benchmark: BenchmarkNumbers) -> list[Sentence]:
    if benchmark.lengths is None:
        return []
    if benchmark.before == "baseline" and benchmark.baseline is not None:
        return [_lengths_beside(benchmark.lengths, benchmark.baseline.name)]
    unit, change = benchmark.lengths.unit, benchmark.lengths.change
    ratio = "" if change.relative is None else f"{with_sign(100 * change.relative, digits=0)} %, "
    text = (
        f"from {number(change.before.value)} to **{number(change.after.value)} {unit}** a prompt "
        f"({ratio}change {with_sign(change.difference.value)}, 95 % CI {interval(change.difference.ci95)}, "
        f"{number(change.difference.n)} prompts)"
    )
    match change.direction:
        case "above":
            warning = "Judges that like long answers overrate them; length control corrects for that."
            return [sentence(f"**Answers grew longer**, {text}. {warning}", "warn")]
        case "below":
            return [sentence(f"Answers became shorter, {text}.")]
        case "not distinguishable" | "unknown":
            return [sentence(f"Answers kept their length: {text}; no change that can be told from none.")]
        case _:
            assert_never(change.direction)


def _lengths_beside(lengths: LengthNumbers, baseline: str) -> Sentence:
    """Where the unaligned model did not answer: the aligned model's lengths and the baseline's."""
    change = lengths.change
    return sentence(
        f"The aligned model's answers have {number(change.after.value)} {lengths.unit}, {baseline}'s "
        f"{number(change.before.value)} (difference {with_sign(change.difference.value)}, 95 % CI "
        f"{interval(change.difference.ci95)}, {number(change.difference.n)} prompts). What alignment did to length "
        "was not measured: the unaligned model did not answer."
    )
