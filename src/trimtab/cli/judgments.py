"""Commands that make numbers of judgments, and judgments of people."""

from __future__ import annotations

from trimtab.cli.app import AsJson, app
from trimtab.cli.words import reporter, show


@app.command
def winrate(
    file: str,
    *,
    kind: str = "alpaca_eval",
    difficulty: str | None = None,
    gamed: str | None = None,
    questions: str | None = None,
    benchmark_dir: str | None = None,
    allow_missing: bool = False,
    offline: bool = False,
    as_json: AsJson = False,
) -> None:
    """Win rate, raw and length-controlled, of any AlpacaEval annotations file; mean marks with --kind mt_bench."""
    from trimtab.studies.winrate import command, words

    numbers = command.main(
        file,
        kind=kind,
        difficulty=difficulty,
        gamed=gamed,
        questions=questions,
        benchmark_dir=benchmark_dir,
        allow_missing=allow_missing,
        offline=offline,
    )
    show(numbers, as_json, words.lines)


@app.command
def compare(
    a: str,
    b: str,
    *,
    benchmark: str | None = None,
    judge: str | None = None,
    questions: str | None = None,
    as_json: AsJson = False,
) -> None:
    """Is A better than B? Runs (RUN, RUN:unaligned) or files of judgments (FILE, FILE:MODEL), paired by prompt."""
    from trimtab.studies.comparison import command, words

    show(command.main(a, b, benchmark=benchmark, judge=judge, questions=questions), as_json, words.lines)


@app.command
def arena(
    a: str,
    b: str,
    *,
    benchmark: str | None = None,
    benchmark_dir: str | None = None,
    out: str | None = None,
    port: int = 0,
    limit: int | None = None,
    seed: int = 0,
    name: str = "anonymous",
    browser: bool = True,
    as_json: AsJson = False,
) -> None:
    """Judge two runs by eye, blind, on a local page. A, B: RUN, RUN:baseline, RUN:unaligned or a file of answers.

    Every choice is kept at once; the same command goes on. --limit N judges a random N of the prompts, --name WHO says
    who judged, --out FILE where the verdicts are written.
    """
    from trimtab.studies.arena import command, words

    numbers = command.main(
        a,
        b,
        benchmark=benchmark,
        benchmark_dir=benchmark_dir,
        out=out,
        port=port,
        limit=limit,
        seed=seed,
        name=name,
        browser=browser,
        reporter=reporter(quiet=False),
    )
    show(numbers, as_json, words.lines)


@app.command
def power(*, n: int, delta: float, as_json: AsJson = False) -> None:
    """What a number of prompts can show: --n 805 --delta 2.0 (points of win rate)."""
    from trimtab.analysis.comparison import power
    from trimtab.studies.comparison.words import lines

    show(power(n, delta=delta), as_json, lines)
