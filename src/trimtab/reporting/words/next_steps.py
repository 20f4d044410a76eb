"""What to try next, where a number of the run asks for it."""

from __future__ import annotations

from collections.abc import Iterator

from trimtab.analysis.selection import MIN_PAIRS
from trimtab.reporting.numbers.report import Report
from trimtab.reporting.numbers.training import SeedTrainingNumbers
from trimtab.reporting.text import interval, number
from trimtab.runtime.outlook_words import remedy

NOTHING = "Nothing: no number of this run asks for another setting."


def next_steps(report: Report) -> list[str]:
    """One entry a piece of evidence, the most consequential first."""
    several = len(report.seeds) > 1
    entries = () if report.training is None else report.training.seeds
    steps = [
        (f"Seed {entry.seed}. " if several else "") + step for entry in entries for step in _of_training(entry, report)
    ]
    return [*steps, *_of_milestones(report), *_of_heldout(report), *_of_judging(report)] or [NOTHING]


def _of_training(entry: SeedTrainingNumbers, report: Report) -> Iterator[str]:
    for symptom in entry.symptoms:
        yield f"{symptom.remedy} ({symptom.kind} at step {number(symptom.step)})."
    final = None if entry.outlooks is None else entry.outlooks.final
    if final is None or final.remedy is None or entry.regime.name != final.regime:
        return
    peak = max(rate for rate in entry.curves["learning_rate"] if rate is not None)
    pull, words = (
        entry.regime.share_at_end,
        remedy(final.remedy, final.regime, beta=report.objective.parameters.get("beta"), learning_rate=peak),
    )
    yield f"{words}. {'' if pull is None else f'At the end {number(100 * pull, digits=0)} % still pulled, and '}" + (
        f"these would bring that to about {number(100 * final.remedy.pull, digits=0)} %."
    )


def _of_milestones(report: Report) -> Iterator[str]:
    for entry in () if report.milestones is None else report.milestones.seeds:
        picked, last = entry.selection.picked, entry.selection.last
        if picked < last:
            yield (
                f"Train less long: the model of step {number(picked)} of {number(last)} is distinguishably better on "
                "the held-out pairs than that of the last step (train.epochs)."
            )


def _of_heldout(report: Report) -> Iterator[str]:
    audit, heldout = report.audit or {}, report.heldout
    if heldout is None or not heldout.after.accuracy.n:
        if audit.get("heldout") == 0 and report.config["data"]["holdout"]:
            yield (
                f"Bring more prompts, raise data.holdout, or hold pairs of your own out (--data.eval): of "
                f"{number(audit.get('train_prompts'))} prompts none was held out."
            )
        return
    accuracy = heldout.after.auc or heldout.after.accuracy
    if accuracy.n < MIN_PAIRS:
        yield f"Hold more pairs out (--data.holdout, --data.eval): {number(accuracy.n)} say next to nothing."
    elif accuracy.ci95 is not None and accuracy.ci95[0] <= 0.5 <= accuracy.ci95[1]:
        yield (
            f"Look at the labels, or train on more of them: on {number(accuracy.n)} held-out pairs the model ranks no "
            f"better than chance (95 % CI {interval(accuracy.scaled(100).ci95)} %)."
        )


def _of_judging(report: Report) -> Iterator[str]:
    benchmark = report.benchmark
    first = None if benchmark is None or not benchmark.judges else benchmark.judges[0]
    if first is not None and first.direction == "not distinguishable":
        yield (
            f"Ask more prompts: {number(first.win_rate.n)} leave the win rate at {interval(first.win_rate.ci95)} %, "
            "which holds 50 (`trimtab power` says what more can show)."
        )
