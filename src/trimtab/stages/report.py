"""Report: everything measured, in words first, as report.json, report.html and report.md.

One run and several seeds give the same three files with the same keys. With several seeds every interval speaks of a
new seed on new prompts (`analysis.seeds`); with one it speaks of new prompts only, and the report says so.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trimtab import store
from trimtab.config import Config, config_digest, to_json
from trimtab.config.flags import as_words
from trimtab.progress import Reporter
from trimtab.records import digest
from trimtab.reporting import inputs, render, words
from trimtab.reporting.compute_saved import saved_numbers
from trimtab.reporting.milestones import milestone_numbers
from trimtab.reporting.numbers import benchmark_numbers
from trimtab.reporting.page import page
from trimtab.reporting.samples import sample_groups
from trimtab.reporting.training import heldout_numbers, training_numbers
from trimtab.runtime.run_setup import RunSetup
from trimtab.version import __version__

FORMAT = 6  # raise when report.json's keys or the pages change, so that finished reports are made again
SUFFIXES = ("json", "html", "md")


def main(setup: RunSetup, *, reporter: Reporter) -> None:
    """Report a run: one seed, or several pooled into the folder that holds theirs."""
    target, singles = setup.folder, setup.each_seed()
    made_from = [
        store.file_digest(single.folder.intact(path))
        for single in singles
        for path in inputs.files(single.folder, single.config)
    ]
    identity = digest([FORMAT, __version__, config_digest(setup.config), made_from])
    if target.is_done("report", identity):
        reporter.say("report: nothing has changed")
        return
    runs = [inputs.read(single.folder, single.config) for single in singles]
    numbers = report_numbers(runs, setup)
    laid = page(numbers)
    store.write_json(target.report("json"), numbers)
    store.write_text(target.report("html"), render.html(laid))
    store.write_text(target.report("md"), render.md(laid))
    target.finish("report", identity, [target.report(suffix) for suffix in SUFFIXES])
    for sentence in (*numbers["headline"][:1], *numbers["regime"]):
        reporter.say(f"report: {sentence['text'].replace('**', '')}")


def report_numbers(runs: Sequence[inputs.Run], setup: RunSetup) -> dict[str, Any]:
    """The tree of report.json: every number, and the sentences made from them."""
    first, config, objective = runs[0], setup.config, setup.objective
    benchmark = benchmark_numbers(runs)
    judges = benchmark["judges"] if benchmark else []
    numbers: dict[str, Any] = {
        "format": FORMAT,
        "kind": "run" if len(runs) == 1 else "pooled",
        "trimtab": __version__,
        "seeds": [run.seed for run in runs],
        "objective": {
            "name": objective.name,
            "formula": objective.formula,
            "parameters": objective.parameters(),
            "dead_zone": objective.dead_zone,
            "source": objective.source,
        },
        "benchmark": benchmark,
        "training": training_numbers(runs, objective, config),
        "compute_saved": saved_numbers(runs),
        "heldout": heldout_numbers(runs),
        "milestones": milestone_numbers(runs),
        "edited": [{"seed": run.seed, "files": list(run.edited)} for run in runs if run.edited],
        "audit": first.audit,
        "samples": sample_groups(first, judge=judges[0]["judge"] if judges else None, unit=benchmark["lengths"]["unit"])
        if benchmark and benchmark["lengths"]
        else [],
        "plan": first.plan,
        "versions": first.versions,
        "config": to_json(config),
        "reproduce": reproduction(config),
    }
    return numbers | {
        "headline": words.headline(numbers),
        "regime": words.regime_sentences(numbers["training"]),
        "symptoms": words.symptom_sentences(numbers["training"]),
        "not_measured": words.not_measured(numbers),
    }


def reproduction(config: Config) -> dict[str, Any]:
    """The commands that repeat this run: from the folder's configuration, and from flags (None: they cannot say it)."""
    again, kept = f"{config.out}-again", Path(config.out) / "config.json"
    flags = as_words(config.model_copy(update={"out": again}))
    return {
        "from_file": f"trimtab run {shlex.quote(str(kept))} --out {shlex.quote(again)}",
        "from_flags": shlex.join(["trimtab", "run", *flags]) if flags else None,
        "note": "With the same versions on the same kind of machine the numbers repeat; elsewhere they agree within "
        "rounding and, after many steps, within the spread between seeds. Intervals are resampled with fixed seeds.",
    }
