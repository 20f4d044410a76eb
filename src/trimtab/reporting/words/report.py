"""All sentences of a report: the answer to "did it help?" first, what qualifies it, and what was not measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from trimtab.analysis.comparison import MIN_COMMON
from trimtab.reporting.numbers.answers import ScoreNumbers
from trimtab.reporting.numbers.benchmark import BenchmarkNumbers
from trimtab.reporting.numbers.report import EditedFiles, Report
from trimtab.reporting.sections import Sentence, SummaryEntry, sentence
from trimtab.reporting.text import interval, number, with_sign
from trimtab.reporting.words import check, judges, lengths, reward, training
from trimtab.reporting.words.next_steps import next_steps
from trimtab.reporting.words.summary import summary

NO_BENCHMARK = (
    "**Whether the answers got better was not measured**: no benchmark was asked. "
    "Add --benchmark with a file of prompts (or windtunnel) to find out."
)
NO_ANSWERS = (
    "**Whether the answers got better is not known**: a benchmark was asked, and its answers are not in the run "
    "folder. `trimtab generate` makes them."
)
NO_JUDGE = (
    "**Whether the answers got better was not judged**: the answers before and after are below, unjudged. "
    "Lengths and samples are all that can be said."
)


@dataclass(frozen=True, slots=True)
class ReportWords:
    """As report.json has them beside the numbers."""

    summary: Sequence[SummaryEntry]
    headline: Sequence[Sentence]
    regime: Sequence[Sentence]
    symptoms: Sequence[Sentence]
    not_measured: Sequence[str]
    next_steps: Sequence[str]


def report_words(report: Report) -> ReportWords:
    symptoms = training.symptoms(report.training)
    if report.objective.on_scores:
        sentences = [*reward.reward(report.heldout, report.reward), *training.milestones(report.milestones)]
        length = reward.length(report.heldout, report.reward)
        regimes: list[Sentence] = []
        first_screen = summary(
            report, benefit=sentences[:1], harm=length, length=[], conclusions=[*sentences, *symptoms]
        )
        gaps = _training_gaps(report)
    else:
        sentences = headline(report)
        regimes = training.regime(report.training) + training.outlook(report.training)
        benchmark = report.benchmark
        first_screen = summary(
            report,
            benefit=sentences[:1] + ([] if benchmark else training.heldout(report.heldout)),
            harm=check.check(report.check)[:1],
            length=lengths.lengths(benchmark)[:1] if benchmark else [],
            conclusions=[*sentences, *regimes, *symptoms],
        )
        gaps = not_measured(report)
    return ReportWords(first_screen, sentences, regimes, symptoms, gaps, next_steps(report))


def headline(report: Report) -> list[Sentence]:
    """The verdict first, then what qualifies it."""
    benchmark = report.benchmark
    if benchmark is None:
        sentences = [sentence(NO_ANSWERS if _names_benchmark(report) else NO_BENCHMARK, "warn")]
    else:
        first, *details = _verdict(benchmark)
        sentences = [
            judges.qualify(first, benchmark),
            *judges.canaries(benchmark),
            *judges.constant_answers(benchmark),
            *details,
        ]
        sentences += _scores(benchmark.scores) + lengths.lengths(benchmark)
    sentences += check.check(report.check)
    sentences += training.milestones(report.milestones) + training.heldout(report.heldout)
    return sentences + _unpacked(report) + [_edit_warning(entry) for entry in report.edited]


def _unpacked(report: Report) -> list[Sentence]:
    """Where the unaligned model came from a GGUF file: its weights are rounded, before and after alike."""
    gguf = (report.plan or {}).get("gguf")
    if gguf is None:
        return []
    return [sentence(f"The model before training was dequantised from {gguf['file']} ({gguf['quantization']}).")]


def _names_benchmark(report: Report) -> bool:
    return bool(report.config["benchmark"]["name"] != "none")


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
    match change.direction if change.difference.n >= MIN_COMMON else "unknown":
        case "above":
            return [sentence(f"{text}.", "good")]
        case "below":
            return [sentence(f"{text}.", "bad")]
        case "not distinguishable":
            return [sentence(f"{text}: not distinguishable from no change.", "even")]
        case "unknown":
            return [sentence(f"{text}: too few prompts to say more.", "warn")]
        case _:
            assert_never(change.direction)


# --- what was not measured --------------------------------------------------------------------------------------------


def not_measured(report: Report) -> list[str]:
    """What a reader would look for and will not find, and how to get it."""
    return _benchmark_gaps(report) + _training_gaps(report)


def _training_gaps(report: Report) -> list[str]:
    gaps: list[str] = []
    if report.training is None:
        gaps.append("Training curves: metrics.jsonl is not in the run folder.")
    if report.heldout is None:
        gaps.append(
            "Held-out pairs: none were kept out of training, or they were not evaluated (--data.holdout, --data.eval)."
        )
    if report.audit is None:
        gaps.append("Data audit: data/audit.json is not in the run folder.")
    if len(report.seeds) == 1:
        gaps.append(
            "Seeds: one training run only. The intervals say what other prompts would give, not what another seed "
            "would (--seeds 3)."
        )
    elif len(report.seeds) == 2:
        gaps.append("Seeds: two say little about a third, so the intervals are wide; three narrow them (--seeds 3).")
    return gaps


def _benchmark_gaps(report: Report) -> list[str]:
    benchmark = report.benchmark
    if benchmark is None and _names_benchmark(report):
        return [
            "Answers: those to the benchmark are not in the run folder, so there are no win rates, lengths or samples."
        ]
    if benchmark is None:
        return ["Answers: no benchmark was asked, so there are no win rates, lengths or samples (--benchmark)."]
    gaps: list[str] = []
    judges, marks = benchmark.judges, benchmark.marks
    if not judges and marks is None:
        gaps.append("Win rates: the answers were not judged (--judge).")
    elif marks is not None or not judges[0].is_truth:
        gaps.append("The truth: only a judge's opinion is known here, with that judge's biases.")
    if not benchmark.families and marks is None:
        gaps.append("Families: the prompts name fewer than two, so there is no breakdown.")
    if (judges or marks) and not benchmark.canaries:
        gaps.append("Canaries: the judge was not shown answers that must lose or tie (--judge.canaries).")
    if benchmark.scores is None:
        in_tunnel = benchmark.name == "windtunnel"
        gaps.append(f"True scores: {'not in the run folder' if in_tunnel else 'known only in the wind tunnel'}.")
    return gaps
