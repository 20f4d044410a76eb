"""`trimtab compare A B`: is A better than B, on the prompts both were judged on?"""

from __future__ import annotations

from trimtab.studies.comparison import numbers, read
from trimtab.studies.comparison.numbers import ComparisonNumbers


def main(
    a: str, b: str, *, benchmark: str | None = None, judge: str | None = None, questions: str | None = None
) -> ComparisonNumbers:
    """Points of win rate, or marks, that A is ahead of B, paired by prompt.

    A and B are run folders (of one seed or several; RUN:unaligned is its unaligned model), annotations files, or
    FastChat judgments (FILE:MODEL names one of several models). Raises ConfigError for words that name nothing,
    DataError for judgments that cannot be compared.
    """
    side_a, side_b = (read.read(word, benchmark=benchmark, judge=judge) for word in (a, b))
    return numbers.compare(side_a, side_b, questions=questions)
