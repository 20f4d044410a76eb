"""All sentences of a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trimtab.reporting.numbers.report import Report
from trimtab.reporting.sections import Sentence
from trimtab.reporting.words import headline, not_measured, training


@dataclass(frozen=True, slots=True)
class ReportWords:
    """As report.json has them beside the numbers. The first sentence of the headline answers "did it help?"."""

    headline: Sequence[Sentence]
    regime: Sequence[Sentence]
    symptoms: Sequence[Sentence]
    not_measured: Sequence[str]


def report_words(report: Report) -> ReportWords:
    return ReportWords(
        headline.headline(report),
        training.regime(report.training),
        training.symptoms(report.training),
        not_measured.not_measured(report),
    )
