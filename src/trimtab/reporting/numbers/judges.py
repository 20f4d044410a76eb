"""Win rates by judge, raw and length-controlled, by seed and by difference in length.

Shapes: K seeds, N prompts (in the benchmark's order; NaN where a prompt has no value).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from trimtab.analysis import comparison, estimates, intervals, length_control, seeds, winrate
from trimtab.analysis.intervals import FloatArray, finite
from trimtab.analysis.length_control import LengthControlled
from trimtab.analysis.lengths import equal_share_bins
from trimtab.analysis.winrate import WinRate
from trimtab.records import Direction, Estimate, Verdict
from trimtab.reporting.forest import EVEN
from trimtab.reporting.judges import LABELS, is_calibrated
from trimtab.reporting.numbers.common_prompts import CommonPrompts
from trimtab.reporting.numbers.paired_change import PairedChange, win_rate_change
from trimtab.reporting.read import TRUTH, Run
from trimtab.runtime.judges.judge_record import JudgeRecord

SCORE_INTERVAL = "score interval of the length model, the length effect refitted at every candidate rate"
N_BINS = 5  # of AlpacaEval's 805 prompts 161 each, so intervals of ±8 points


@dataclass(frozen=True, slots=True)
class SeedWinRate:
    seed: int
    win_rate: Estimate
    n_wins: int
    n_losses: int
    n_ties: int


@dataclass(frozen=True, slots=True)
class UnalignedNumbers:
    """The unaligned model against the same published baseline. `change`: aligned less unaligned, points, paired."""

    generator: str
    win_rate: Estimate
    change: PairedChange


@dataclass(frozen=True, slots=True)
class SeedFit:
    """The length model fitted to one seed's verdicts."""

    seed: int
    fit: LengthControlled

    def to_json(self) -> dict[str, object]:
        return {"seed": self.seed} | self.fit.to_json()


@dataclass(frozen=True, slots=True)
class LengthControlNumbers:
    """Win rate in percent with length controlled. `calibrated`: None where nobody recorded who judged."""

    win_rate: Estimate
    direction: Direction
    variant: str
    calibrated: bool | None
    notes: tuple[str, ...]
    by_seed: tuple[SeedFit, ...]


@dataclass(frozen=True, slots=True)
class JudgeNumbers:
    """One judge's win rate in percent, ties as half; wins, losses and ties are of all seeds together.

    `standard_error`, the p-values and `detectable` are of one run only: `p_value` of a rate of 50 by the test that the
    interval inverts, `sign_test_p` of the counts alone, which readers of `report.json` know; `detectable` is the
    distance from 50 that as many prompts with this spread show four times in five. `unaligned` is there against a
    published baseline. `direction` is unknown below `comparison.MIN_COMMON` prompts.
    """

    judge: str
    annotator: str
    label: str
    unaligned: UnalignedNumbers | None
    role: Literal["truth", "judge"]
    win_rate: Estimate
    direction: Direction
    n_wins: int
    n_losses: int
    n_ties: int
    standard_error: float | None
    p_value: float | None
    sign_test_p: float | None
    detectable: float | None
    length_controlled: LengthControlNumbers | None
    by_seed: tuple[SeedWinRate, ...]

    @property
    def is_truth(self) -> bool:
        return self.role == "truth"


@dataclass(frozen=True, slots=True)
class LengthBin:
    """Win rates, percent, by judge where the aligned answer is `gap` (smallest, largest) characters longer."""

    gap: tuple[float, float]
    n_prompts: int
    judges: Mapping[str, Estimate]


def judge_numbers(judge: str, common: CommonPrompts, record: JudgeRecord | None) -> JudgeNumbers:
    """One judge's numbers; the truth is not length-controlled."""
    scores_KN = common.scores_KN(judge)
    win_rate = estimates.percent(scores_KN)
    by_seed = [_seed_win_rate(run.seed, scores_N) for run, scores_N in zip(common.runs, scores_KN, strict=True)]
    single = winrate.win_rate(scores_KN[0] + 1) if len(common.runs) == 1 else None
    annotator = _annotator(judge, common)
    return JudgeNumbers(
        judge=judge,
        annotator=annotator,
        label=LABELS.get(annotator, annotator) if record is None else record.identity.label,
        unaligned=_unaligned(common, scores_KN),
        role="truth" if judge == TRUTH else "judge",
        win_rate=win_rate,
        direction="unknown" if win_rate.n < comparison.MIN_COMMON else win_rate.direction(EVEN),
        n_wins=sum(seed.n_wins for seed in by_seed),
        n_losses=sum(seed.n_losses for seed in by_seed),
        n_ties=sum(seed.n_ties for seed in by_seed),
        standard_error=finite(single.standard_error) if single else None,
        p_value=finite(intervals.rate_p_value(scores_KN[0][~np.isnan(scores_KN[0])])) if single else None,
        sign_test_p=intervals.sign_test(single.n_wins, single.n_losses) if single else None,
        detectable=_detectable(single) if single else None,
        length_controlled=None if judge == TRUTH else _length_controlled(judge, common, record),
        by_seed=tuple(by_seed),
    )


def _annotator(judge: str, common: CommonPrompts) -> str:
    """What the verdicts call their judge; its name where they do not say."""
    names = {verdict.annotator for run in common.runs for verdict in run.verdicts[judge]}
    return ", ".join(sorted(names - {""})) or judge


def _seed_win_rate(seed: int, scores_N: FloatArray) -> SeedWinRate:
    rate = winrate.win_rate(scores_N + 1)
    return SeedWinRate(seed, estimates.percent(scores_N[None, :]), rate.n_wins, rate.n_losses, rate.n_ties)


def _unaligned(common: CommonPrompts, aligned_KN: FloatArray) -> UnalignedNumbers | None:
    unaligned_KN = common.unaligned_scores_KN()
    if unaligned_KN is None:
        return None
    generator = common.first.unaligned_verdicts[0].generator_2
    return UnalignedNumbers(generator, estimates.percent(unaligned_KN), win_rate_change(aligned_KN, unaligned_KN))


def _detectable(rate: WinRate) -> float | None:
    spread = rate.standard_error * math.sqrt(rate.n_total)
    if not spread > 0:
        return None
    return comparison.power(rate.n_total, delta=1.0, sd=spread).detectable


def _length_controlled(judge: str, common: CommonPrompts, record: JudgeRecord | None) -> LengthControlNumbers:
    fits = [_length_fit(run, _verdicts_in_order(run, judge, common.prompts)) for run in common.runs]
    first = fits[0]
    if len(fits) == 1:
        estimate = estimates.estimate(
            first.length_controlled_winrate, first.lc_ci95, n=first.n_rows, method=SCORE_INTERVAL
        )
    else:
        over_seeds = seeds.pooled_figures(
            [fit.length_controlled_winrate for fit in fits],
            standard_errors=[(fit.lc_ci95[1] - fit.lc_ci95[0]) / (2 * intervals.Z_95) for fit in fits],
            n_prompts=min(fit.n_rows for fit in fits),
            limits=(0.0, 100.0),
        )
        estimate = estimates.of_seeds(over_seeds, method=seeds.METHOD_OF_FIGURES)
    tables = common.first.length_tables
    return LengthControlNumbers(
        win_rate=estimate,
        direction=estimate.direction(EVEN),
        variant=first.variant,
        calibrated=None if record is None else is_calibrated(common.first.benchmark, record),
        notes=() if tables is None else tuple(tables.notes),
        by_seed=tuple(SeedFit(run.seed, fit) for run, fit in zip(common.runs, fits, strict=True)),
    )


def _verdicts_in_order(run: Run, judge: str, prompts: Sequence[str]) -> list[Verdict]:
    by_prompt = {verdict.prompt_id: verdict for verdict in run.verdicts[judge]}
    return [by_prompt[prompt] for prompt in prompts if prompt in by_prompt]


def _length_fit(run: Run, rows: Sequence[Verdict]) -> LengthControlled:
    """The length model on one run's rows, with the official tables where they are known for every row."""
    tables = run.length_tables
    difficulty = None
    if tables is not None and tables.difficulty is not None:
        by_prompt = dict(zip(run.baseline, tables.difficulty, strict=False))  # the baseline is in the official order
        if all(row.prompt_id in by_prompt for row in rows):
            difficulty = [by_prompt[row.prompt_id] for row in rows]
    return length_control.length_controlled(
        [row.preference for row in rows],
        lengths_1=[len(row.output_1) for row in rows],
        lengths_2=[len(row.output_2) for row in rows],
        difficulty=difficulty,
        regularisers=None if tables is None else tables.gamed,
    )


def length_bins(common: CommonPrompts, judges: Sequence[str]) -> list[LengthBin]:
    """Bins of equal share of (the aligned answer's length − the baseline's), characters.

    With several seeds a prompt's gap is the mean over them, so that every seed fills the same bins.
    """
    gaps_KN = np.array(
        [[len(run.after[p].output) - len(run.baseline[p].output) for p in common.prompts] for run in common.runs]
    )
    gap_N = gaps_KN.mean(axis=0)
    bin_N = equal_share_bins(gap_N, n_bins=N_BINS)
    scores = {judge: common.scores_KN(judge) for judge in judges}
    return [
        LengthBin(
            (float(gap_N[bin_N == k].min()), float(gap_N[bin_N == k].max())),
            int((bin_N == k).sum()),
            {judge: estimates.percent(scores_KN[:, bin_N == k]) for judge, scores_KN in scores.items()},
        )
        for k in sorted(set(bin_N.tolist()))
    ]
