"""What a reader would look for and will not find, and how to get it."""

from __future__ import annotations

from trimtab.reporting.numbers.benchmark import BenchmarkNumbers
from trimtab.reporting.numbers.report import Report


def not_measured(report: Report) -> list[str]:
    gaps = _benchmark_gaps(report.benchmark)
    if report.training is None:
        gaps.append("Training curves: metrics.jsonl is not in the run folder.")
    if report.heldout is None:
        gaps.append("Held-out pairs: none were kept out of training, or they were not evaluated (--data.holdout).")
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


def _benchmark_gaps(benchmark: BenchmarkNumbers | None) -> list[str]:
    if benchmark is None:
        return ["Answers: no benchmark was asked, so there are no win rates, lengths or samples (--benchmark)."]
    gaps: list[str] = []
    judges, marks = benchmark.judges, benchmark.marks
    if not judges and marks is None:
        gaps.append("Win rates: the answers were not judged (--judge).")
    elif marks is not None or not judges[0].is_truth:
        gaps.append("The truth: only a judge's opinion is known here, with that judge's biases.")
    if not benchmark.families and marks is None:
        gaps.append("Families: the benchmark's prompts carry no family, so there is no breakdown.")
    if (judges or marks) and not benchmark.canaries:
        gaps.append("Canaries: the judge was not shown answers that must lose or tie (--judge.canaries).")
    if benchmark.scores is None:
        gaps.append("True scores: known only in the wind tunnel.")
    return gaps
