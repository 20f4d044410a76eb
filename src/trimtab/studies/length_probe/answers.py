"""The same question asked of outputs: aligned against baseline answers, binned by how much longer they are.

Shapes: K seeds, N prompts. Which prompt falls into which bin differs from seed to seed, so a bin's figures are made a
seed at a time and then pooled.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trimtab.analysis import comparison, intervals, seeds
from trimtab.analysis.intervals import FloatArray
from trimtab.analysis.length_probe import Bins, quantile_bins
from trimtab.analysis.rank_correlation import rank_correlation
from trimtab.records import Answer
from trimtab.reporting import estimates, read
from trimtab.reporting.estimates import Estimate
from trimtab.reporting.judge_record import LABELS
from trimtab.runtime.folder import Folder
from trimtab.runtime.run_setup import set_up
from trimtab.studies.length_probe.numbers import pooled
from trimtab.studies.length_probe.read import Probed

N_BINS = 5


def answer_numbers(probed: Probed) -> dict[str, Any] | None:
    """Win rate of every judge and number of answers in each bin; None where no seed has answers and verdicts."""
    runs = [read.read(Folder(one.root), set_up(one.single)) for one in probed.seeds]
    if any(not run.after or not run.baseline or not run.verdicts for run in runs):
        return None
    common = [id for id in runs[0].after if all(id in run.after and id in run.baseline for run in runs)]
    judges = [judge for judge in runs[0].verdicts if all(judge in run.verdicts for run in runs)]
    if len(common) < 2 or not judges:
        return None
    sides = [(_of(run.baseline, common), _of(run.after, common)) for run in runs]
    in_tokens = all(answer.n_tokens > 0 for both in sides for answers in both for answer in answers)
    longer_KN = np.array([_lengths(new, in_tokens) - _lengths(old, in_tokens) for old, new in sides])
    bins = quantile_bins(longer_KN.ravel(), n_bins=N_BINS, least=max(10, longer_KN.size // 50))
    bin_KN = np.array([bins.of(row) for row in longer_KN])
    return {
        "benchmark": runs[0].benchmark,
        "baseline": next(iter(runs[0].baseline.values())).generator if runs[0].published else "the unaligned model",
        "unit": "tokens" if in_tokens else "characters",
        "n_prompts": len(common),
        "change": estimates.paired(longer_KN),
        "bins": [
            {
                "label": label,
                "n": int((bin_KN == at).sum()),
                "share": estimates.percent((bin_KN == at).astype(np.float64)),
            }
            for at, label in enumerate(bins.labels)
        ],
        "judges": [
            _judge(judge, [comparison.scores_by_prompt(run.verdicts[judge]) for run in runs], common, longer_KN, bins)
            for judge in judges
        ],
    }


def _judge(
    judge: str, scores: Sequence[Mapping[str, float | None]], common: Sequence[str], longer_KN: FloatArray, bins: Bins
) -> dict[str, Any]:
    found_KN = np.array([[_known(told.get(id)) for id in common] for told in scores])
    bin_KN = np.array([bins.of(row) for row in longer_KN])
    known_KN = ~np.isnan(found_KN)
    by_seed = [
        rank_correlation(longer_N[known_N], score_N[known_N], groups_N=np.flatnonzero(known_N).tolist())
        for longer_N, score_N, known_N in zip(longer_KN, found_KN, known_KN, strict=True)
    ]
    return {
        "judge": judge,
        "label": LABELS.get(judge, judge),
        "n_missing": int((~known_KN).sum()),
        "win_rate": _percent(found_KN, known_KN),
        "bins": [_percent(found_KN, known_KN & (bin_KN == at)) for at in range(len(bins.labels))],
        "correlation": pooled(by_seed),
    }


def _percent(scores_KN: FloatArray, members_KN: Any) -> Estimate:
    """Win rate over the members, percent: a seed at a time, then pooled with the errors within a seed."""
    rows = [scores_N[members_N] for scores_N, members_N in zip(scores_KN, members_KN, strict=True)]
    n = sum(map(len, rows))
    if len(rows) == 1:
        return estimates.percent(rows[0][None, :])
    if min(map(len, rows)) < 2:
        mean = float(np.concatenate(rows).mean()) if n else math.nan
        told = estimates.estimate(mean, intervals.NO_INTERVAL, n=n, method="too few a seed", n_seeds=len(rows))
        return estimates.scaled(told, 100)
    over = seeds.pooled_figures(
        [float(row.mean()) for row in rows],
        standard_errors=[float(row.std(ddof=1)) / math.sqrt(len(row)) for row in rows],
        n_prompts=min(map(len, rows)),
    )
    told = estimates.scaled(estimates.of_seeds(over, method=seeds.METHOD_OF_FIGURES), 100)
    bounds = told["ci95"]
    return told | {"n": n, "ci95": None if bounds is None else [max(0.0, bounds[0]), min(100.0, bounds[1])]}


def _of(answers: Mapping[str, Answer], ids: Sequence[str]) -> list[Answer]:
    return [answers[id] for id in ids]


def _lengths(answers: Sequence[Answer], in_tokens: bool) -> FloatArray:
    return np.array([answer.n_tokens if in_tokens else len(answer.output) for answer in answers], dtype=np.float64)


def _known(score: float | None) -> float:
    return math.nan if score is None else score
