"""Learning rates on a real instruct model: from the JSON files that `experiments.real.rates` and `.runs` leave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.measurement import Measurement, mean
from experiments.question import Answer, Numbers, Question, Sweeps
from experiments.questions.real_origin import made_on
from experiments.real.rates import FULL, LORA, Trial, missing_trials, read_results
from experiments.real.runs import SETS
from experiments.words import join_words, number, text_of
from trimtab.analysis.intervals import FloatArray
from trimtab.reporting.sections import Table
from trimtab.runtime.run_setup import ADAPTER_RATE, FULL_RATE

COMMAND = "python -m experiments.real.rates --model SMOLLM2_FOLDER --shared DIR --work WORK"
KINDS = {LORA: "LoRA", FULL: "all weights"}
DEFAULTS = {LORA: ADAPTER_RATE, FULL: FULL_RATE}
Results = Mapping[Trial, Mapping[str, Any]]


def correct(result: Mapping[str, Any]) -> FloatArray:
    """Percent a held-out pair: 100 where its log-ratios are in order, 50 for a tie."""
    ratios = np.array(result["log_ratios"], dtype=np.float64)
    return 50.0 * (1.0 + np.sign(ratios[:, 0] - ratios[:, 1]))


def accuracy(result: Mapping[str, Any]) -> Measurement:
    """Percent of held-out pairs in order, over the pairs."""
    return mean(correct(result)[None, :], unit="%")


def heldout_loss(result: Mapping[str, Any]) -> float:
    """DPO's mean loss of the held-out pairs, nats; ln 2 before training. It counts how sure the model is, too."""
    ratios = np.array(result["log_ratios"], dtype=np.float64)
    return float(np.logaddexp(0.0, -result["beta"] * (ratios[:, 0] - ratios[:, 1])).mean())


def answer(_sweeps: Sweeps, numbers: Numbers) -> Answer:
    results = read_results()
    if not results:
        return Answer([f"Not run yet: `{COMMAND}`."], short="Not run yet.")
    order = sorted(results, key=lambda trial: (list(SETS).index(trial.source), trial.adapter != LORA, trial.rate))
    rows = [_row(trial, results[trial], numbers) for trial in order]
    left = [trial.name for trial in missing_trials(results)]
    return Answer(
        sentences=[_best(results), *_defaults(results)],
        table=Table(
            ("set", "what is trained", "rate", "sum of rates", "held-out accuracy, %", "held-out loss",
             "drift, nats a token", "unrelated text, nats a token more"),
            rows,
        ),
        meaning=[
            "AdamW moves a weight by about its rate a step, and in the embedded world log-ratios grow with the sum of "
            "the rates over the steps (LOG.md). By that, not measured here, a run of ten times as many steps gets as "
            "far at a tenth of the rate.",
            made_on(results.values()),
        ],
        limits=[
            "One model of 135M parameters, one seed, 96 held-out pairs a set, under eight prompts on "
            "ukp-convarg1-strict: neighbours in the table are mostly not distinguishable, and the best of several "
            "flatters itself. " + (f"Not run yet: {join_words(left)}." if left else "")
        ],
    )  # fmt: skip


def _row(trial: Trial, result: Mapping[str, Any], numbers: Numbers) -> list[str]:
    name = f"real-rates/{trial.source}/{trial.adapter}/{trial.rate:g}/accuracy"
    right = numbers.put(name, accuracy(result), command=COMMAND, revision=result["about"]["revision"])
    before, after = result["unrelated_nll"]
    return [
        trial.source, KINDS[trial.adapter], f"{trial.rate:g}", f"{result['sum_of_rates']:.2g}", text_of(right),
        f"{heldout_loss(result):.3f}", number(result["drift"], 3), number(after - before, 3, with_sign=True),
    ]  # fmt: skip


def _best(results: Results) -> str:
    """The rate of the lowest held-out loss, by what is trained and set."""
    texts = []
    for adapter, words in KINDS.items():
        for source in SETS:
            trials = [trial for trial in results if (trial.source, trial.adapter) == (source, adapter)]
            if len(trials) > 1:
                best = min(trials, key=lambda trial: heldout_loss(results[trial]))
                texts.append(f"{words} on {source} {best.rate:g} ({heldout_loss(results[best]):.3f})")
    return f"Lowest held-out loss of the rates tried (before training {np.log(2):.3f}): {join_words(texts)}."


def _defaults(results: Results) -> list[str]:
    """What the defaults of today do, where they were run."""
    texts = [
        f"{KINDS[trial.adapter]} on {trial.source} {heldout_loss(results[trial]):.3f}"
        for trial in results
        if trial.rate == DEFAULTS[trial.adapter]
    ]
    rates = join_words([f"{rate:g} for {KINDS[adapter]}" for adapter, rate in DEFAULTS.items()])
    return [f"At the default rates ({rates}): {join_words(texts)}."] if texts else []


QUESTION = Question(
    title="Learning rates on a real model",
    text=(
        "SmolLM2-135M-Instruct, DPO, one epoch over 128 real pairs in batches of 8: which rate for an adapter, which "
        "for all weights?"
    ),
    needs=(),
    answer=answer,
    prefix="real-rates/",
)
