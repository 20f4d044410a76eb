"""Commands that make numbers of judgments, and judgments of people."""

from __future__ import annotations

import shlex
from typing import Annotated

from cyclopts import Parameter

from trimtab.cli.app import AsJson
from trimtab.cli.terminal import reporter, show


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


def compare(
    a: str,
    b: str,
    *,
    benchmark: str | None = None,
    judge: str | None = None,
    questions: str | None = None,
    allow_missing: Annotated[bool, Parameter(help="do not warn of prompts that lack a verdict on one side")] = False,
    out: Annotated[str | None, Parameter(help="a folder for comparison.html and comparison.json")] = None,
    as_json: AsJson = False,
    words: Annotated[tuple[str, ...], Parameter(parse=False)] = (),
) -> None:
    from trimtab.studies.comparison import command
    from trimtab.studies.comparison.words import lines

    numbers = command.main(a, b, benchmark=benchmark, judge=judge, questions=questions, allow_missing=allow_missing)
    if out is not None:
        command.write(numbers, out, command=shlex.join(["trimtab", *words]), reporter=reporter())
    show(numbers, as_json, lines)


def arena(
    a: str,
    b: str,
    *,
    benchmark: str | None = None,
    benchmark_dir: str | None = None,
    out: Annotated[str | None, Parameter(help="where the verdicts are written")] = None,
    port: int = 0,
    limit: Annotated[int | None, Parameter(help="judge a random N of the prompts")] = None,
    seed: int = 0,
    name: Annotated[str, Parameter(help="who judges")] = "anonymous",
    browser: bool = True,
    as_json: AsJson = False,
) -> None:
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
        reporter=reporter(),
    )
    show(numbers, as_json, words.lines)


def power(*, n: int, delta: float, as_json: AsJson = False) -> None:
    from trimtab.analysis import comparison
    from trimtab.studies.comparison.words import lines

    show(comparison.power(n, delta=delta), as_json, lines)
