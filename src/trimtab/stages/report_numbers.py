"""From artefacts to numbers: every figure of the benchmark side of a report, with its n, interval, judge and method.

An *estimate* is `{"value", "ci95", "n", "n_missing", "n_seeds", "method"}`; value and interval are in the unit that the
key beside it names, null where they could not be computed. One run or several seeds give the same tree.

Shapes: K seeds, N prompts (in the benchmark's order; NaN where a prompt has no value).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from trimtab.analysis import intervals, length_control, seeds, winrate
from trimtab.analysis.intervals import FloatArray, finite
from trimtab.records import Answer, Verdict
from trimtab.stages.report_inputs import TRUTH, Run

BOOTSTRAP = "bootstrap over prompts (percentile, 10,000 draws)"
BOOTSTRAP_REFIT = "bootstrap over prompts that refits the length model (percentile)"
EVEN = 50.0
HISTOGRAM_BINS = 18

Direction = Literal["above", "below", "not distinguishable", "unknown"]
Estimate = dict[str, Any]


def benchmark_numbers(runs: Sequence[Run]) -> dict[str, Any] | None:
    """Everything that was judged and counted on the benchmark; None when there are no answers of both models."""
    first = runs[0]
    prompts = [prompt for prompt in first.before if all(prompt in run.before and prompt in run.after for run in runs)]
    if not prompts:
        return None
    families = [first.after[prompt].dataset for prompt in prompts]
    names = [name for name in first.verdicts if all(name in run.verdicts for run in runs)]
    judges = [judge_numbers(name, runs, prompts) for name in names]
    return {
        "name": first.benchmark,
        "n_prompts": len(prompts),
        "judges": judges,
        "lengths": length_numbers(runs, prompts),
        "scores": score_numbers(runs),
        "families": family_numbers(runs, prompts, families, judges=names),
    }


# --- verdicts --------------------------------------------------------------------------------------------------------


def judge_numbers(name: str, runs: Sequence[Run], prompts: Sequence[str]) -> dict[str, Any]:
    """One judge's win rate of the aligned model (percent, ties half), raw and, unless it is the truth, length-controlled."""
    rates = [winrate.win_rate(v.preference for v in _of(run, name, prompts)) for run in runs]
    raw = _win_rate(_scores(name, runs, prompts))
    controlled = None if name == TRUTH else _length_controlled(name, runs, prompts)
    annotators = sorted({v.annotator for run in runs for v in run.verdicts[name] if v.annotator})
    return {
        "judge": name,
        "annotator": ", ".join(annotators) or name,
        "role": "truth" if name == TRUTH else "judge",
        "win_rate": raw,
        "direction": direction(raw, EVEN),
        "n_wins": sum(rate.n_wins for rate in rates),
        "n_losses": sum(rate.n_losses for rate in rates),
        "n_ties": sum(rate.n_ties for rate in rates),
        "standard_error": finite(rates[0].standard_error) if len(runs) == 1 else None,
        "sign_test_p": intervals.sign_test(rates[0].n_wins, rates[0].n_losses) if len(runs) == 1 else None,
        "length_controlled": controlled,
        "by_seed": [
            {"seed": run.seed, "win_rate": _percent_of(rate), "n_wins": rate.n_wins, "n_losses": rate.n_losses, "n_ties": rate.n_ties}
            for run, rate in zip(runs, rates, strict=True)
        ],
    }


def _length_controlled(name: str, runs: Sequence[Run], prompts: Sequence[str]) -> dict[str, Any]:
    fits = []
    for run in runs:
        rows = _of(run, name, prompts)
        fits.append(
            length_control.length_controlled(
                [v.preference for v in rows],
                lengths_1=[len(v.output_1) for v in rows],
                lengths_2=[len(v.output_2) for v in rows],
            )
        )
    first = fits[0]
    if len(fits) == 1:
        estimate = _estimate(first.length_controlled_winrate, first.lc_ci95, n=first.n_rows, method=BOOTSTRAP_REFIT)
    else:
        errors = [(fit.lc_ci95[1] - fit.lc_ci95[0]) / (2 * intervals.Z_95) for fit in fits]
        figures = [fit.length_controlled_winrate for fit in fits]
        pooled = seeds.pooled_figures(figures, standard_errors=errors, n_prompts=min(fit.n_rows for fit in fits))
        estimate = _pooled_estimate(pooled, method=seeds.METHOD_OF_FIGURES)
    return {
        "win_rate": estimate,
        "direction": direction(estimate, EVEN),
        "variant": first.variant,
        "by_seed": [{"seed": run.seed} | fit.to_json() for run, fit in zip(runs, fits, strict=True)],
    }


def direction(estimate: Mapping[str, Any], even: float) -> Direction:
    """On which side of `even` the whole 95 % interval lies."""
    bounds = estimate["ci95"]
    if estimate["value"] is None or bounds is None:
        return "unknown"
    low, high = bounds
    return "above" if low > even else "below" if high < even else "not distinguishable"


def _of(run: Run, judge: str, prompts: Sequence[str]) -> list[Verdict]:
    """One judge's verdicts in the benchmark's order; prompts without a row are left out (and counted as missing)."""
    by_prompt = {verdict.prompt_id: verdict for verdict in run.verdicts[judge]}
    return [by_prompt[prompt] for prompt in prompts if prompt in by_prompt]


def _scores(judge: str, runs: Sequence[Run], prompts: Sequence[str]) -> FloatArray:
    """Scores in [0, 1] of the aligned model, [K, N]."""
    rows = []
    for run in runs:
        by_prompt = {verdict.prompt_id: verdict.preference for verdict in run.verdicts[judge]}
        rows.append(winrate.scores_from(by_prompt.get(prompt) for prompt in prompts))
    return np.stack(rows)


# --- lengths, true scores, families ----------------------------------------------------------------------------------


def length_numbers(runs: Sequence[Run], prompts: Sequence[str]) -> dict[str, Any]:
    """Answer lengths before and after, the paired change, what was cut off at the limit and what did not change at all."""
    counted = all(a.n_tokens > 0 for run in runs for a in (*run.before.values(), *run.after.values()) if a.output)
    measures: dict[str, Callable[[Answer], float]] = {"characters": lambda answer: len(answer.output)}
    if counted:
        measures = {"tokens": lambda answer: answer.n_tokens} | measures
    told: dict[str, Any] = {
        unit: _change(_table(runs, prompts, measure, "before"), _table(runs, prompts, measure, "after"))
        for unit, measure in measures.items()
    }
    unit = next(iter(measures))
    return told | {
        "unit": unit,
        "histogram": _histogram(runs, prompts, measures[unit]),
        "cut_off": {
            when: _rate(_table(runs, prompts, lambda answer: float(not answer.finished), when)) for when in ("before", "after")
        },
        "empty": {when: _rate(_table(runs, prompts, lambda a: float(not a.output.strip()), when)) for when in ("before", "after")},
        "n_identical": sum(run.before[p].output == run.after[p].output for run in runs for p in prompts),
        "n_compared": len(runs) * len(prompts),
    }


def score_numbers(runs: Sequence[Run]) -> dict[str, Any] | None:
    """True mean score before and after, in [0, 1], where the world knows it."""
    known = [run.scores for run in runs if run.scores is not None]
    if len(known) < len(runs) or len({len(scores.model) for scores in known}) != 1 or not known[0].model:
        return None
    before = np.array([scores.baseline for scores in known], dtype=np.float64)
    after = np.array([scores.model for scores in known], dtype=np.float64)
    families = known[0].families
    return _change(before, after) | {
        "families": [
            {"family": family} | _change(before[:, of], after[:, of])
            for family in dict.fromkeys(families)
            if (of := [i for i, name in enumerate(families) if name == family])
        ]
    }


def family_numbers(
    runs: Sequence[Run], prompts: Sequence[str], families: Sequence[str], *, judges: Sequence[str]
) -> list[dict[str, Any]]:
    """Win rate by every judge and length change, family by family; empty when the benchmark has no families."""
    named = [name for name in dict.fromkeys(families) if name]
    if len(named) < 2:
        return []
    scores = {judge: _scores(judge, runs, prompts) for judge in judges}
    rows = []
    for name in named:
        of = [i for i, family in enumerate(families) if family == name]
        members = [prompts[i] for i in of]
        lengths = [
            _table(runs, members, lambda answer: float(len(answer.output)), when) for when in ("before", "after")
        ]
        rows.append(
            {
                "family": name,
                "n_prompts": len(of),
                "judges": {judge: _win_rate(table[:, of]) for judge, table in scores.items()},
                "characters": _change(*lengths),
            }
        )
    return rows


def _table(
    runs: Sequence[Run], prompts: Sequence[str], measure: Callable[[Answer], float], when: Literal["before", "after"] | str
) -> FloatArray:
    """`measure` of every answer before or after training, [K, N]."""
    answers = [run.before if when == "before" else run.after for run in runs]
    return np.array([[measure(of[prompt]) for prompt in prompts] for of in answers], dtype=np.float64)


def _histogram(runs: Sequence[Run], prompts: Sequence[str], measure: Callable[[Answer], float]) -> dict[str, Any]:
    """Shares of answers by length, before and after on the same bins; the last bin holds all that is longer."""
    before, after = (_table(runs, prompts, measure, when).ravel() for when in ("before", "after"))
    top = float(np.percentile(np.concatenate([before, after]), 99))
    width = max(1, math.ceil((top + 1) / HISTOGRAM_BINS))
    edges = [width * i for i in range(HISTOGRAM_BINS + 1)]
    inside = [np.histogram(np.minimum(values, edges[-1] - 1), bins=edges)[0] for values in (before, after)]
    return {
        "edges": edges,
        "before": [float(count) / len(before) for count in inside[0]],
        "after": [float(count) / len(after) for count in inside[1]],
    }


# --- estimates -------------------------------------------------------------------------------------------------------


def _win_rate(scores_KN: FloatArray) -> Estimate:
    """Percent, ties half."""
    return _scaled(_rate(scores_KN), 100)


def _rate(scores_KN: FloatArray) -> Estimate:
    """Mean of values in [0, 1]."""
    if len(scores_KN) > 1:
        return _pooled_estimate(seeds.pooled_rate(scores_KN), method=seeds.METHOD)
    known = scores_KN[0][~np.isnan(scores_KN[0])]
    mean = float(known.mean()) if len(known) else math.nan
    missing = scores_KN.shape[1] - len(known)
    return _estimate(mean, intervals.rate_interval(known), n=len(known), n_missing=missing, method=BOOTSTRAP)


def _mean(values_KN: FloatArray) -> Estimate:
    if len(values_KN) > 1:
        return _pooled_estimate(seeds.pooled_mean(values_KN), method=seeds.METHOD)
    mean = float(values_KN[0].mean()) if values_KN.size else math.nan
    return _estimate(mean, intervals.bootstrap_interval(values_KN[0]), n=values_KN.shape[1], method=BOOTSTRAP)


def _change(before_KN: FloatArray, after_KN: FloatArray) -> dict[str, Any]:
    """Before, after and their paired difference; `relative` is the difference as a share of before."""
    before, difference = _mean(before_KN), _mean(after_KN - before_KN)
    relative = difference["value"] / before["value"] if before["value"] and difference["value"] is not None else None
    return {
        "before": before,
        "after": _mean(after_KN),
        "difference": difference,
        "relative": relative,
        "direction": direction(difference, 0.0),
    }


def _estimate(
    value: float, ci95: tuple[float, float], *, n: int, method: str, n_missing: int = 0, n_seeds: int = 1
) -> Estimate:
    bounds = [finite(bound) for bound in ci95]
    return {
        "value": finite(value),
        "ci95": None if None in bounds else bounds,
        "n": n,
        "n_missing": n_missing,
        "n_seeds": n_seeds,
        "method": method,
    }


def _pooled_estimate(pooled: seeds.Pooled, *, method: str) -> Estimate:
    told = _estimate(
        pooled.mean, pooled.ci95, n=pooled.n_prompts, n_missing=pooled.n_left_out, n_seeds=pooled.n_seeds, method=method
    )
    return told | {"seed_deviation": finite(pooled.seed_deviation)}


def _scaled(estimate: Estimate, factor: float) -> Estimate:
    scaled = dict(estimate)
    for key in ("value", "seed_deviation"):
        if scaled.get(key) is not None:
            scaled[key] = factor * scaled[key]
    if scaled["ci95"] is not None:
        scaled["ci95"] = [factor * bound for bound in scaled["ci95"]]
    return scaled


def _percent_of(rate: winrate.WinRate) -> Estimate:
    return _estimate(rate.win_rate, rate.ci95, n=rate.n_total, n_missing=rate.n_missing, method=BOOTSTRAP)
