"""The benchmark side of a report: every figure with its n, interval, judge and method.

Shapes: K seeds, N prompts (in the benchmark's order; NaN where a prompt has no value).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from trimtab.analysis import canaries, comparison, intervals, seeds, winrate
from trimtab.analysis.intervals import FloatArray, finite
from trimtab.records import Answer, Verdict
from trimtab.reporting import estimates, judged, marked
from trimtab.reporting.inputs import TRUTH, Run

BOOTSTRAP_REFIT = "bootstrap over prompts that refits the length model (t interval of the logit)"
EVEN = 50.0
MOST_BINS = 18

When = Literal["before", "after"]


def benchmark_numbers(runs: Sequence[Run]) -> dict[str, Any] | None:
    """Everything that was judged and counted on the benchmark; None when there are no answers of both sides.

    Marks need no other side: where only the aligned model answered, `lengths` is null.
    """
    first = runs[0]
    prompts = [prompt for prompt in first.before if all(prompt in run.before and prompt in run.after for run in runs)]
    record = judged.identity(runs)
    marks = marked.mark_numbers(runs, record)
    if not prompts and marks is None:
        return None
    families = [first.after[prompt].dataset or first.before[prompt].dataset for prompt in prompts]
    names = [name for name in first.verdicts if all(name in run.verdicts for run in runs)]
    return {
        "name": first.benchmark,
        "n_prompts": len(prompts) or len(first.after),
        "baseline": _baseline(first),
        "before": "before" if first.unaligned else "baseline",
        "identity": record,
        "judges": [judge_numbers(name, runs, prompts, record=record) for name in names],
        "constant_answers": _constant_answers(runs),
        "canaries": judged.canary_numbers(runs),
        "length_bins": judged.length_bins(runs, prompts, names) if names else [],
        "marks": marks,
        "lengths": length_numbers(runs, prompts) if prompts else None,
        "scores": score_numbers(runs),
        "families": family_numbers(runs, prompts, families, judges=names),
    }


def _constant_answers(runs: Sequence[Run]) -> list[str]:
    """A warning for every seed's rows in which one side answers most prompts alike."""
    rows = [next(iter(run.verdicts.values()), ()) for run in runs]
    return list(dict.fromkeys(told.sentence for some in rows if (told := canaries.constant_answer(some)) is not None))


def _baseline(run: Run) -> dict[str, Any] | None:
    """What the win rates are against; None where nothing is compared with anything."""
    if not run.baseline:
        return None
    return {"name": next(iter(run.baseline.values())).generator, "published": run.published}


# --- verdicts --------------------------------------------------------------------------------------------------------


def judge_numbers(
    name: str, runs: Sequence[Run], prompts: Sequence[str], *, record: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """One judge's win rate (percent, ties half), raw and, unless the judge is the truth, length-controlled.

    Against a published baseline `unaligned` is the same judge's on the unaligned model, and what alignment changed.

    `detectable` is the distance from 50 that as many prompts with this spread show four times in five (one run only).
    """
    scores = _scores(name, runs, prompts)
    rates = [winrate.win_rate(row + 1) for row in scores]
    raw = estimates.percent(scores)
    single = rates[0] if len(runs) == 1 else None
    return {
        "judge": name,
        "annotator": _annotator(name, runs),
        "label": judged.LABELS.get(_annotator(name, runs), _annotator(name, runs))
        if record is None
        else judged.label(record),
        "unaligned": judged.unaligned_numbers(runs, prompts, scores) if runs[0].published else None,
        "role": "truth" if name == TRUTH else "judge",
        "win_rate": raw,
        "direction": estimates.direction(raw, EVEN),
        "n_wins": sum(rate.n_wins for rate in rates),
        "n_losses": sum(rate.n_losses for rate in rates),
        "n_ties": sum(rate.n_ties for rate in rates),
        "standard_error": finite(single.standard_error) if single else None,
        "sign_test_p": intervals.sign_test(single.n_wins, single.n_losses) if single else None,
        "detectable": _detectable(single) if single else None,
        "length_controlled": None if name == TRUTH else _length_controlled(name, runs, prompts, record=record),
        "by_seed": [
            {"seed": run.seed, "win_rate": estimates.percent(scores[k : k + 1])}
            | {key: getattr(rates[k], key) for key in ("n_wins", "n_losses", "n_ties")}
            for k, run in enumerate(runs)
        ],
    }


def _annotator(name: str, runs: Sequence[Run]) -> str:
    return ", ".join(sorted({v.annotator for run in runs for v in run.verdicts[name] if v.annotator})) or name


def _detectable(rate: winrate.WinRate) -> float | None:
    spread = rate.standard_error * math.sqrt(rate.n_total)
    if not spread > 0:
        return None
    return comparison.power(rate.n_total, delta=1.0, sd=spread).detectable


def _length_controlled(
    name: str, runs: Sequence[Run], prompts: Sequence[str], *, record: Mapping[str, Any] | None
) -> dict[str, Any]:
    fits = [judged.length_fit(run, _of(run, name, prompts), judge=name) for run in runs]
    first = fits[0]
    if len(fits) == 1:
        method = BOOTSTRAP_REFIT
        found = estimates.estimate(first.length_controlled_winrate, first.lc_ci95, n=first.n_rows, method=method)
    else:
        errors = [(fit.lc_ci95[1] - fit.lc_ci95[0]) / (2 * intervals.Z_95) for fit in fits]
        figures = [fit.length_controlled_winrate for fit in fits]
        pooled = seeds.pooled_figures(figures, standard_errors=errors, n_prompts=min(fit.n_rows for fit in fits))
        found = estimates.of_seeds(pooled, method=seeds.METHOD_OF_FIGURES)
    return {
        "win_rate": found,
        "direction": estimates.direction(found, EVEN),
        "variant": first.variant,
        "calibrated": None if record is None else judged.is_calibrated(runs[0].benchmark, record),
        "notes": [] if runs[0].length_tables is None else list(runs[0].length_tables.notes),
        "by_seed": [{"seed": run.seed} | fit.to_json() for run, fit in zip(runs, fits, strict=True)],
    }


def _of(run: Run, judge: str, prompts: Sequence[str]) -> list[Verdict]:
    """One judge's verdicts in the benchmark's order, where there are any."""
    by_prompt = {verdict.prompt_id: verdict for verdict in run.verdicts[judge]}
    return [by_prompt[prompt] for prompt in prompts if prompt in by_prompt]


def _scores(judge: str, runs: Sequence[Run], prompts: Sequence[str]) -> FloatArray:
    """Scores in [0, 1] of the aligned model, [K, N]."""
    return np.stack([judged.scores_of(run.verdicts[judge], prompts) for run in runs])


# --- lengths, true scores, families ----------------------------------------------------------------------------------


def length_numbers(runs: Sequence[Run], prompts: Sequence[str]) -> dict[str, Any]:
    """Answer lengths before and after, the paired change, what was cut off at the limit and what did not change.

    `unit` is the one to speak of: tokens where every answer was counted, else characters.
    """
    measures: dict[str, Callable[[Answer], float]] = {"characters": lambda answer: len(answer.output)}
    if all(a.n_tokens > 0 for run in runs for a in (*run.before.values(), *run.after.values()) if a.output):
        measures = {"tokens": lambda answer: answer.n_tokens} | measures
    unit = next(iter(measures))

    def shares(measure: Callable[[Answer], bool]) -> dict[str, Any]:
        return {when: estimates.rate(_table(runs, prompts, measure, when)) for when in ("before", "after")}

    return {
        "unit": unit,
        **{name: _changed(runs, prompts, measure) for name, measure in measures.items()},
        "histogram": _histogram(runs, prompts, measures[unit]),
        "cut_off": shares(lambda answer: not answer.finished),
        "empty": shares(lambda answer: not answer.output.strip()),
        "n_identical": sum(run.before[p].output == run.after[p].output for run in runs for p in prompts),
        "n_compared": len(runs) * len(prompts),
    }


def score_numbers(runs: Sequence[Run]) -> dict[str, Any] | None:
    """True mean score before and after, in [0, 1], where the world knows it."""
    known = [run.scores for run in runs if run.scores is not None]
    if len(known) < len(runs) or len({scores.families for scores in known}) != 1 or not known[0].model:
        return None
    before = np.array([scores.baseline for scores in known], dtype=np.float64)
    after = np.array([scores.model for scores in known], dtype=np.float64)
    families = known[0].families
    places = {name: [i for i, family in enumerate(families) if family == name] for name in dict.fromkeys(families)}
    return estimates.change(before, after, in_unit_interval=True) | {
        "families": [
            {"family": name} | estimates.change(before[:, of], after[:, of], in_unit_interval=True)
            for name, of in places.items()
            if name
        ]
    }


def family_numbers(
    runs: Sequence[Run], prompts: Sequence[str], families: Sequence[str], *, judges: Sequence[str]
) -> list[dict[str, Any]]:
    """Win rate by every judge and length change, family by family; empty below two families."""
    named = [name for name in dict.fromkeys(families) if name]
    if len(named) < 2:
        return []
    scores = {judge: _scores(judge, runs, prompts) for judge in judges}
    rows = []
    for name in named:
        of = [i for i, family in enumerate(families) if family == name]
        rows.append(
            {
                "family": name,
                "n_prompts": len(of),
                "judges": {judge: estimates.percent(table[:, of]) for judge, table in scores.items()},
                "changes": _changes(runs, [prompts[i] for i in of], scores, of),
                "characters": _changed(runs, [prompts[i] for i in of], lambda answer: len(answer.output)),
            }
        )
    return rows


def _changes(
    runs: Sequence[Run], prompts: Sequence[str], scores: Mapping[str, FloatArray], of: Sequence[int]
) -> dict[str, Any]:
    """What alignment changed in one family against a published baseline, by judge; empty elsewhere."""
    if not runs[0].published or not all(run.unaligned_verdicts for run in runs):
        return {}
    unaligned = np.stack([judged.scores_of(run.unaligned_verdicts, prompts) for run in runs])
    return {judge: judged.change(table[:, of], unaligned, prompts) for judge, table in scores.items()}


def _changed(runs: Sequence[Run], prompts: Sequence[str], measure: Callable[[Answer], float]) -> dict[str, Any]:
    return estimates.change(_table(runs, prompts, measure, "before"), _table(runs, prompts, measure, "after"))


def _table(runs: Sequence[Run], prompts: Sequence[str], measure: Callable[[Answer], float], when: When) -> FloatArray:
    """`measure` of every answer before or after training, [K, N]."""
    answers = [run.before if when == "before" else run.after for run in runs]
    return np.array([[measure(of[prompt]) for prompt in prompts] for of in answers], dtype=np.float64)


def _histogram(runs: Sequence[Run], prompts: Sequence[str], measure: Callable[[Answer], float]) -> dict[str, Any]:
    """Shares of answers by length, before and after on the same bins; the last bin holds all that is longer."""
    before, after = _table(runs, prompts, measure, "before").ravel(), _table(runs, prompts, measure, "after").ravel()
    top = float(np.percentile(np.concatenate([before, after]), 99))
    width = max(1, math.ceil((top + 1) / MOST_BINS))
    edges = [width * i for i in range(max(1, math.ceil((top + 1) / width)) + 1)]
    counts = [np.histogram(np.minimum(values, edges[-1] - 1), bins=edges)[0] for values in (before, after)]
    return {
        "edges": edges,
        "before": [float(count) / len(before) for count in counts[0]],
        "after": [float(count) / len(after) for count in counts[1]],
    }
