"""`trimtab compare A B`: is A better than B, on the prompts both were judged on?"""

from __future__ import annotations

from trimtab.studies.comparison import numbers, read
from trimtab.studies.comparison.numbers import ComparisonNumbers


def main(
    a: str,
    b: str,
    *,
    benchmark: str | None = None,
    judge: str | None = None,
    questions: str | None = None,
    allow_missing: bool = False,
) -> ComparisonNumbers:
    """Points of win rate, or marks, that A is ahead of B, paired by prompt.

    A and B are run folders (of one seed or several; RUN:unaligned is its unaligned model), annotations files, or
    FastChat judgments (FILE:MODEL names one of several models). `allow_missing`: that prompts without a verdict on one
    side are left out is known, and no note says so; they are counted all the same.
    Raises ConfigError for words that name nothing, DataError for judgments that cannot be compared.
    """
    side_a, side_b = (read.read(word, benchmark=benchmark, judge=judge) for word in (a, b))
    return numbers.compare(side_a, side_b, questions=questions, allow_missing=allow_missing)
