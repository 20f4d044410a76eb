"""`trimtab compare A B`: is A better than B, on the prompts both were judged on?"""

from __future__ import annotations

from pathlib import Path

from trimtab import store
from trimtab.progress import Reporter
from trimtab.reporting import render
from trimtab.studies.comparison import numbers, read
from trimtab.studies.comparison.numbers import ComparisonNumbers
from trimtab.studies.comparison.page import page
from trimtab.version import __version__

FORMAT = 1  # raise when comparison.json's keys change


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


def write(comparison: ComparisonNumbers, folder: str, *, command: str, reporter: Reporter) -> None:
    """`comparison.html` and `comparison.json`, into `folder`, which is made."""
    root = Path(folder)
    with store.lock(root):
        tree = {"format": FORMAT, "kind": "comparison", "trimtab": __version__, "command": command}
        store.write_json(root / "comparison.json", tree | comparison.to_json())
        store.write_text(root / "comparison.html", render.page_html(page(comparison, command=command)))
    reporter.say(f"comparison: {root / 'comparison.html'}")
