"""β, batch, epochs and schedule on a real instruct model: from the JSON files that `experiments.real.settings` leaves.

Each run is held against the one that differs from it in this setting alone, held-out pair by held-out pair.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.measurement import Measurement, mean
from experiments.question import Answer, Numbers, Question, Sweeps
from experiments.questions.real_origin import made_on
from experiments.questions.real_rates import accuracy, correct
from experiments.real import rates
from experiments.real.settings import RATE, Variant, missing_variants, read_results, variants
from experiments.words import join_words, number, text_of
from trimtab.reporting.sections import Table

COMMAND = "python -m experiments.real.settings --model SMOLLM2_FOLDER --shared DIR --work WORK"
WORDS = {
    "objective.beta": "β", "train.epochs": "epochs", "train.batch-pairs": "pairs a batch", "train.schedule": "schedule",
}  # fmt: skip
BASE = "β 0.1, 1 epoch, 8 pairs a batch, schedule linear"
Result = Mapping[str, Any]


def less_base(result: Result, base: Result) -> Measurement:
    """Points of held-out accuracy, pair by pair."""
    return mean((correct(result) - correct(base))[None, :], unit="points")


def answer(_sweeps: Sweeps, numbers: Numbers) -> Answer:
    results, bases = read_results(), rates.read_results()
    pairs = {
        variant: (results[variant], bases[variant.base])
        for variant in variants()
        if variant in results and variant.base in bases
    }
    if not pairs:
        return Answer([f"Not run yet: `{COMMAND}`."], short="Not run yet.")
    gaps = {variant: less_base(*both) for variant, both in pairs.items()}
    left = [variant.name for variant in missing_variants(results)]
    return Answer(
        sentences=[_apart(gaps)],
        table=Table(
            ("set", "setting", "sum of rates", "held-out accuracy, %", "less the base's, points",
             "drift, nats a token", "… of the base", "unrelated text, nats a token more"),
            [_row(variant, *both, gaps[variant], numbers) for variant, both in pairs.items()],
        ),
        meaning=[made_on(results.values())],
        limits=[
            "One model of 135M parameters, one seed, 96 held-out pairs a set, under eight prompts on "
            "ukp-convarg1-strict; one rate: a setting that wants another is not given it. "
            + (f"Not run yet: {join_words(left)}." if left else "")
        ],
    )  # fmt: skip


def _apart(gaps: Mapping[Variant, Measurement]) -> str:
    apart = {variant: gap for variant, gap in gaps.items() if gap.ci95 and (gap.ci95[0] > 0 or gap.ci95[1] < 0)}
    if not apart:
        return f"Of {len(gaps)} settings none changes held-out accuracy distinguishably, even one by one."
    each = join_words([f"{_setting(v)} on {v.source} ({text_of(gap, with_sign=True)})" for v, gap in apart.items()])
    return f"Of {len(gaps)} settings, held-out accuracy is another than the base's, points, one by one, for {each}."


def _setting(variant: Variant) -> str:
    return f"{WORDS[variant.key]} {variant.value}"


def _row(variant: Variant, result: Result, base: Result, gap: Measurement, numbers: Numbers) -> list[str]:
    revision = result["about"]["revision"]
    name = f"real-settings/{variant.source}/{variant.key}/{variant.value}"
    right = numbers.put(f"{name}/accuracy", accuracy(result), command=COMMAND, revision=revision)
    numbers.put(f"{name}/less-base", gap, command=COMMAND, revision=revision)
    before, after = result["unrelated_nll"]
    return [
        variant.source, _setting(variant), f"{result['sum_of_rates']:.2g}", text_of(right),
        text_of(gap, with_sign=True), number(result["drift"], 3), number(base["drift"], 3),
        number(after - before, 3, with_sign=True),
    ]  # fmt: skip


QUESTION = Question(
    title="Other settings on a real model",
    text=(
        f"The same runs at a rate of {RATE:g}, LoRA: what does each other setting change alone, from the base ({BASE})?"
    ),
    needs=(),
    answer=answer,
    prefix="real-settings/",
)
