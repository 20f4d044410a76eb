"""Length-controlled win rates: the logistic model of AlpacaEval 2 (arXiv 2404.04475), cross-validated as published.

    logit P(model preferred on row i) = a · tanh(d_i / sd(d)) + c · g_i + k · own_i

d_i = characters of the baseline's answer − characters of the model's; sd with ddof 1 over all rows; g_i = the
instruction's difficulty; own_i = 1 on the model's own rows and 0 on the regularising rows, so k is the model's
strength and there is no other intercept. The regularising rows (the baseline's verbose and concise selves against the
baseline) hold a near the judge's own length effect, at weight 0.1 each. The win rate is the mean prediction over the
model's rows with a = 0: what the judge would have said had both answers been equally long.

Shapes: N own rows, F features (length, then difficulty where there is one, then own).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.analysis.intervals import NO_INTERVAL, FloatArray, Interval, finite, student_t
from trimtab.analysis.l1_logistic import Rows, fit_exact, fit_liblinear, mean_log_loss, sigmoid
from trimtab.analysis.winrate import scores_from
from trimtab.errors import DataError

INVERSE_PENALTIES: tuple[float, ...] = tuple(float(c) for c in np.logspace(-4, 4, 10))
N_FOLDS = 5
MIN_ROWS = 10
REGULARISING_WEIGHT = 0.1
FULL = "length_controlled_v1"
WITHOUT_REGULARISERS = "length_controlled_noreg"
WITHOUT_DIFFICULTY = "length_controlled_minimal"


@dataclass(frozen=True, slots=True)
class LengthControlled:
    """Percent. `lc_c` is the inverse penalty that cross-validation chose, `lc_neighbours` the win rate at the grid's
    values next to it (and at it): where they differ, the choice matters and the figure is soft.

    `lc_ci95` is a bootstrap over instructions that refits the model without shrinking it (weakest penalty of the grid;
    t interval of the logit) and is widened to the estimate where that was shrunk out of it. AlpacaEval's
    `lc_standard_error` is another thing: the spread of predictions over instructions, which is no sampling error.
    `weights` are a, c, k. NaN and None where a number could not be computed; `notes` say why, in plain words.
    """

    length_controlled_winrate: float
    lc_c: float | None
    lc_neighbours: tuple[tuple[float, float], ...]
    lc_ci95: Interval
    variant: str
    weights: Mapping[str, float] = field(default_factory=dict)
    n_rows: int = 0
    n_regularising: int = 0
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "length_controlled_winrate": finite(self.length_controlled_winrate),
            "lc_c": self.lc_c,
            "lc_ci95": [finite(bound) for bound in self.lc_ci95],
            "lc_neighbours": {f"{c:.4g}": rate for c, rate in self.lc_neighbours},
            "lc_variant": self.variant,
            "lc_weights": dict(self.weights),
            "lc_notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True)
class Design:
    """Everything a fit needs before the length feature is standardised. Scores (NaN where there is no verdict), length
    gaps in characters and difficulties are of the own rows, each [N]; `regularisers` are the published rows.
    """

    scores: FloatArray
    length_gap: FloatArray
    difficulty: FloatArray | None
    regularisers: Rows

    def prediction_features(self) -> FloatArray:
        """Own rows with the length term at zero, [N, F]."""
        return self._features(np.zeros_like(self.length_gap))

    def training_rows(self, counts_N: FloatArray) -> Rows:
        """Regularising rows first (as upstream), then the own rows that were judged, weighted by `counts_N`: how often
        the bootstrap drew each, 1 outside it."""
        spread = _spread(self.length_gap, counts_N)
        length_N = np.tanh(self.length_gap / spread) if spread > 0 else np.zeros_like(self.length_gap)
        judged = ~np.isnan(self.scores)
        return Rows(
            np.vstack([self.regularisers.features, self._features(length_N)[judged]]),
            np.concatenate([self.regularisers.targets, self.scores[judged]]),
            np.concatenate([self.regularisers.weights, counts_N[judged]]),
        )

    def _features(self, length_N: FloatArray) -> FloatArray:
        own_N = np.ones_like(length_N)
        columns = [length_N, own_N] if self.difficulty is None else [length_N, self.difficulty, own_N]
        return np.column_stack(columns)


def length_controlled(
    preferences: Iterable[float | None],
    *,
    lengths_1: Sequence[int],
    lengths_2: Sequence[int],
    difficulty: Sequence[float] | None = None,
    gamed: Mapping[str, Sequence[float]] | None = None,
    is_baseline: bool = False,
    seed: int = 0,
    n_boot: int = 1000,
) -> LengthControlled:
    """Length-controlled win rate of the model (output_2) over the baseline (output_1).

    `lengths_*` are characters of the two answers, `difficulty` one number a row (see `summary.align_difficulty`),
    `gamed` the regularising rows as columns `preference` (already − 1), `std_delta_len`, `instruction_difficulty`.
    Rows without a preference shape sd and the prediction but not the fit, as upstream. `is_baseline`: the model is the
    baseline itself, which is 50 by definition. Below ten judged rows the rate is NaN and a note says so.
    Raises DataError when the columns disagree in length.
    """
    design = design_of(preferences, lengths_1=lengths_1, lengths_2=lengths_2, difficulty=difficulty, gamed=gamed)
    variant = WITHOUT_DIFFICULTY if difficulty is None else FULL if gamed is not None else WITHOUT_REGULARISERS
    n_judged = int((~np.isnan(design.scores)).sum())
    unfitted = LengthControlled(
        math.nan, None, (), NO_INTERVAL, variant, n_rows=n_judged, n_regularising=len(design.regularisers)
    )
    if is_baseline:
        note = "the model is the baseline: 50 by definition"
        return replace(unfitted, length_controlled_winrate=50.0, lc_ci95=(50.0, 50.0), notes=(note,))
    if n_judged < MIN_ROWS:
        note = f"{n_judged} judged rows are too few for length control (at least {MIN_ROWS})"
        return replace(unfitted, notes=(note,))
    return _estimate(design, unfitted, seed=seed, n_boot=n_boot)


def design_of(
    preferences: Iterable[float | None],
    *,
    lengths_1: Sequence[int],
    lengths_2: Sequence[int],
    difficulty: Sequence[float] | None,
    gamed: Mapping[str, Sequence[float]] | None,
) -> Design:
    """What `length_controlled` fits. Raises DataError when the columns disagree in length."""
    scores = scores_from(preferences)
    sizes = {"preferences": len(scores), "lengths_1": len(lengths_1), "lengths_2": len(lengths_2)}
    if difficulty is not None:
        sizes["difficulties"] = len(difficulty)
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{n} {name}" for name, n in sizes.items())
        raise DataError(f"length control got {told}", remedy="give one of each for every row")
    gap = np.asarray(lengths_1, dtype=np.float64) - np.asarray(lengths_2, dtype=np.float64)
    hardness = None if difficulty is None else np.asarray(difficulty, dtype=np.float64)
    return Design(scores, gap, hardness, _regularisers(gamed, with_difficulty=hardness is not None))


def _estimate(design: Design, unfitted: LengthControlled, *, seed: int, n_boot: int) -> LengthControlled:
    rows = design.training_rows(np.ones_like(design.scores))
    chosen = _choose_penalty(rows)
    near = [j for j in (chosen - 1, chosen, chosen + 1) if 0 <= j < len(INVERSE_PENALTIES)]
    fits = {j: fit_liblinear(rows, inverse_penalty=INVERSE_PENALTIES[j]) for j in near}
    target = design.prediction_features()
    names = ("length", "own") if design.difficulty is None else ("length", "difficulty", "own")
    estimate = _prediction(target, fits[chosen])
    low, high = _interval(design, bootstrap_rates(design, seed=seed, n_boot=n_boot))
    return replace(
        unfitted,
        length_controlled_winrate=estimate,
        lc_c=INVERSE_PENALTIES[chosen],
        lc_neighbours=tuple((INVERSE_PENALTIES[j], _prediction(target, fits[j])) for j in near),
        lc_ci95=(min(low, estimate), max(high, estimate)),
        weights=dict(zip(names, fits[chosen].tolist(), strict=True)),
        notes=_notes(design, strength=float(fits[chosen][-1])),
    )


def _notes(design: Design, *, strength: float) -> tuple[str, ...]:
    notes = []
    if strength == 0 and design.difficulty is None:
        notes.append("shrunk to exactly 50: cross-validation saw no strength worth its penalty; read the interval")
    if _spread(design.length_gap, np.ones_like(design.length_gap)) == 0:
        notes.append("every answer differs from the baseline's by the same length: no length effect can be estimated")
    if np.isnan(design.scores).any():
        notes.append(f"{int(np.isnan(design.scores).sum())} rows without a verdict are predicted but not fitted")
    return tuple(notes)


def _regularisers(gamed: Mapping[str, Sequence[float]] | None, *, with_difficulty: bool) -> Rows:
    n_features = 3 if with_difficulty else 2
    if gamed is None:
        return Rows(np.empty((0, n_features)), np.empty(0), np.empty(0))
    targets = np.asarray(gamed["preference"], dtype=np.float64)
    length = np.tanh(np.asarray(gamed["std_delta_len"], dtype=np.float64))
    own = np.zeros_like(length)
    hardness = np.asarray(gamed["instruction_difficulty"], dtype=np.float64)
    columns = [length, hardness, own] if with_difficulty else [length, own]
    return Rows(np.column_stack(columns), targets, np.full(len(targets), REGULARISING_WEIGHT))


def _choose_penalty(rows: Rows) -> int:
    """Index into `INVERSE_PENALTIES` with the best held-out log loss; the first (strongest penalty) on a tie.

    Five folds by row: both copies of a duplicated row stay together, which is what GroupKFold is for upstream.
    """
    losses = np.zeros(len(INVERSE_PENALTIES))
    for train, test in _folds(len(rows)):
        fitted, held_out = rows.take(train), rows.take(test)
        for j, inverse_penalty in enumerate(INVERSE_PENALTIES):
            losses[j] += mean_log_loss(held_out, fit_liblinear(fitted, inverse_penalty=inverse_penalty))
    return int(losses.argmin())


def _folds(n_rows: int) -> list[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    """Train and test rows of the five folds, as scikit-learn's GroupKFold deals them."""
    from sklearn.model_selection import GroupKFold

    rows = np.arange(n_rows)
    return list(GroupKFold(N_FOLDS).split(rows, groups=rows))


def bootstrap_rates(design: Design, *, seed: int, n_boot: int) -> FloatArray:
    """Win rates (percent) of resampled own rows, [B]; the regularising rows are published once and stay as they are.

    Every resample re-estimates sd and weights at the weakest penalty of the grid. The chosen penalty would not do: with
    it, a model close to its baseline is often shrunk to exactly 50 in nearly every resample, an interval of no width.
    The same seed draws the same rows of any design of as many rows, which is what makes a difference paired.
    """
    rng = np.random.default_rng(seed)
    n = len(design.scores)
    target = design.prediction_features()
    weights_F: FloatArray | None = None
    rates_B = np.empty(n_boot)
    for b in range(n_boot):
        counts_N = np.bincount(rng.integers(0, n, size=n), minlength=n).astype(np.float64)
        rows = design.training_rows(counts_N)
        weights_F = fit_exact(rows, inverse_penalty=INVERSE_PENALTIES[-1], start_F=weights_F)
        rates_B[b] = _prediction(target, weights_F, counts_N)
    return rates_B


def _interval(design: Design, rates_B: FloatArray) -> Interval:
    """Percent: the unshrunk estimate and t times the bootstrap's deviation, both as logits.

    On that scale the estimate is nearly normal, and the interval stays in bounds. Percentiles of the rates themselves
    hold the truth too seldom at a hundred rows (88 to 93 %, tests/analysis/test_coverage.py). A resample of one
    outcome only has an endless logit: rates count as at least half a row from either end.
    """
    if len(rates_B) < 2:
        return NO_INTERVAL
    n, n_features = len(design.scores), 2 if design.difficulty is None else 3
    centre, *logits_B = _logits(np.concatenate([[unshrunk(design)], rates_B]) / 100, floor=0.5 / n)
    reach = student_t(n - n_features) * float(np.std(logits_B, ddof=1))
    low, high = sigmoid(np.array([centre - reach, centre + reach]))
    return 100 * float(low), 100 * float(high)


def unshrunk(design: Design) -> float:
    """Percent: the win rate at the weakest penalty of the grid."""
    rows = design.training_rows(np.ones_like(design.scores))
    return _prediction(design.prediction_features(), fit_exact(rows, inverse_penalty=INVERSE_PENALTIES[-1]))


def _logits(rates: FloatArray, *, floor: float) -> FloatArray:
    kept = np.clip(rates, floor, 1 - floor)
    return np.log(kept / (1 - kept))


def _prediction(features_NF: FloatArray, coefficients_F: FloatArray, counts_N: FloatArray | None = None) -> float:
    return 100 * float(np.average(sigmoid(features_NF @ coefficients_F), weights=counts_N))


def _spread(values_N: FloatArray, counts_N: FloatArray) -> float:
    """Standard deviation with ddof 1 of values drawn `counts_N` times each; 0 for a constant."""
    total = float(counts_N.sum())
    centred = values_N - float(np.average(values_N, weights=counts_N))
    spread = math.sqrt(float(counts_N @ centred**2) / (total - 1))
    return spread if spread > 1e-9 * (1 + float(np.abs(values_N).max())) else 0.0
