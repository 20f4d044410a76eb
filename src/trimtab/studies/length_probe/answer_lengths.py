"""The same question asked of outputs: aligned against baseline answers, binned by how much longer they are.

Shapes: K seeds, N prompts. Which prompt falls into which bin differs from seed to seed, so a bin's figures are made a
seed at a time and then pooled.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from trimtab.analysis import comparison, estimates, intervals, seeds
from trimtab.analysis.intervals import FloatArray
from trimtab.analysis.length_probe import BoolArray, quantile_bins
from trimtab.analysis.rank_correlation import Correlation, pool_seeds, rank_correlation
from trimtab.records import Answer, Estimate
from trimtab.reporting import read as report_read
from trimtab.reporting.judges import LABELS
from trimtab.studies.length_probe.read import TrainedRun

_N_BINS = 5  # as in the report's win rates by length


@dataclass(frozen=True, slots=True)
class AnswerBin:
    """How many answers, of all seeds, are longer than the baseline's by `label`, and their share in percent."""

    label: str
    n: int
    share: Estimate


@dataclass(frozen=True, slots=True)
class JudgeNumbers:
    """One judge: win rates in percent, over all and by bin, and their correlation with the difference of lengths."""

    judge: str
    label: str
    n_missing: int
    win_rate: Estimate
    bins: tuple[Estimate, ...]
    correlation: Correlation


@dataclass(frozen=True, slots=True)
class AnswerNumbers:
    """`change` is the mean difference of lengths in `unit`, aligned less baseline."""

    benchmark: str | None
    baseline: str
    unit: str
    n_prompts: int
    change: Estimate
    bins: tuple[AnswerBin, ...]
    judges: tuple[JudgeNumbers, ...]


def answer_numbers(trained_run: TrainedRun) -> AnswerNumbers | None:
    """None where the seeds do not have at least two answered prompts and one judge in common."""
    runs = [report_read.read(setup.folder, setup) for setup in trained_run.setups]
    first = runs[0]
    ids = _common([answers for run in runs for answers in (run.after, run.baseline)])
    judges = _common([run.verdicts for run in runs])
    if len(ids) < 2 or not judges:
        return None
    unit, longer_KN = _length_differences(runs, ids)
    bins = quantile_bins(longer_KN.ravel(), n_bins=_N_BINS, min_count=max(10, longer_KN.size // 50))
    bin_KN = bins.of(longer_KN)
    members = [(bin_KN == at, label) for at, label in enumerate(bins.labels)]
    return AnswerNumbers(
        benchmark=first.benchmark,
        baseline=next(iter(first.baseline.values())).generator if first.published else "the unaligned model",
        unit=unit,
        n_prompts=len(ids),
        change=estimates.paired(longer_KN),
        bins=tuple(AnswerBin(label, int(m.sum()), estimates.percent(m.astype(np.float64))) for m, label in members),
        judges=tuple(_judge(judge, runs, ids, longer_KN, [m for m, _ in members]) for judge in judges),
    )


def _common(names: Sequence[Collection[str]]) -> list[str]:
    """Those that are in all of them, in the order of the first."""
    return [name for name in names[0] if all(name in collection for collection in names)]


def _length_differences(runs: Sequence[report_read.Run], ids: Sequence[str]) -> tuple[str, FloatArray]:
    """The unit, and aligned less baseline [K, N]: in tokens where every answer's were counted, else in characters."""
    after = [[run.after[id] for id in ids] for run in runs]
    baseline = [[run.baseline[id] for id in ids] for run in runs]
    in_tokens = all(answer.n_tokens > 0 for answers in (*after, *baseline) for answer in answers)

    def lengths_KN(sides: Sequence[Sequence[Answer]]) -> FloatArray:
        return np.array([[float(a.n_tokens if in_tokens else len(a.output)) for a in answers] for answers in sides])

    return "tokens" if in_tokens else "characters", lengths_KN(after) - lengths_KN(baseline)


def _judge(
    judge: str, runs: Sequence[report_read.Run], ids: Sequence[str], longer_KN: FloatArray, members: Sequence[BoolArray]
) -> JudgeNumbers:
    scores = [comparison.scores_by_prompt(run.verdicts[judge]) for run in runs]
    scores_KN = np.array([[seed_scores.get(id) for id in ids] for seed_scores in scores], dtype=np.float64)
    has_score_KN = ~np.isnan(scores_KN)
    by_seed = [
        rank_correlation(longer_N[has_score_N], scores_N[has_score_N], groups_N=np.flatnonzero(has_score_N).tolist())
        for longer_N, scores_N, has_score_N in zip(longer_KN, scores_KN, has_score_KN, strict=True)
    ]
    return JudgeNumbers(
        judge=judge,
        label=LABELS.get(judge, judge),
        n_missing=int((~has_score_KN).sum()),
        win_rate=_win_rate(scores_KN, has_score_KN),
        bins=tuple(_win_rate(scores_KN, has_score_KN & members_KN) for members_KN in members),
        correlation=pool_seeds(by_seed),
    )


def _win_rate(scores_KN: FloatArray, members_KN: BoolArray) -> Estimate:
    """Over the members, percent: a seed at a time, then pooled with the errors within a seed."""
    by_seed = [scores_N[members_N] for scores_N, members_N in zip(scores_KN, members_KN, strict=True)]
    n, n_fewest = sum(map(len, by_seed)), min(map(len, by_seed))
    if len(by_seed) == 1:
        return estimates.percent(by_seed[0][None, :])
    if n_fewest < 2:
        mean = float(np.concatenate(by_seed).mean()) if n else math.nan
        estimate = estimates.estimate(mean, intervals.NO_INTERVAL, n=n, method="too few a seed", n_seeds=len(by_seed))
        return estimate.scaled(100)
    figures = seeds.pooled_figures(
        [float(scores.mean()) for scores in by_seed],
        standard_errors=[float(scores.std(ddof=1)) / math.sqrt(len(scores)) for scores in by_seed],
        n_prompts=n_fewest,
        limits=(0.0, 1.0),
    )
    return replace(estimates.of_seeds(figures, method=seeds.METHOD_OF_FIGURES).scaled(100), n=n)
