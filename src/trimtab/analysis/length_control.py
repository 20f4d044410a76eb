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

from trimtab.analysis.intervals import NO_INTERVAL, FloatArray, Interval, finite, rate_interval
from trimtab.analysis.l1_logistic import Rows, fit_liblinear, mean_log_loss, sigmoid
from trimtab.analysis.logistic_score import RateModel, influence, score_interval, share_identified
from trimtab.analysis.winrate import scores_from
from trimtab.errors import DataError

INVERSE_PENALTIES: tuple[float, ...] = tuple(float(c) for c in np.logspace(-4, 4, 10))
N_FOLDS = 5  # as AlpacaEval 0.6.6, like the grid above and the weight below
MIN_ROWS = 10  # two a fold
REGULARISING_WEIGHT = 0.1  # of one of AlpacaEval's 1,610 regularising rows
FULL = "length_controlled_v1"
WITHOUT_REGULARISERS = "length_controlled_noreg"
WITHOUT_DIFFICULTY = "length_controlled_minimal"
LEAST_IDENTIFIED = 1e-6  # of the strength's information; below, a fit's own tolerance decides between it and length
NOT_IDENTIFIED = (
    "the model's answers differ from the baseline's in length nearly alike, so that the effect of length cannot be "
    "told from the model's strength: the length-controlled rate is not identified and has no interval"
)


@dataclass(frozen=True, slots=True)
class LengthControlled:
    """Percent. `lc_c` is the inverse penalty that cross-validation chose, `lc_neighbours` the win rate at the grid's
    values next to it (and at it): where they differ, the choice matters and the figure is soft.

    `lc_ci95` is Rao's score interval of the model without shrinking, which refits the effects of length and difficulty
    at every candidate rate (`logistic_score`); it is widened to the estimate where that was shrunk out of it. Wilson's
    where all scores are equal; NaN where the rate is not identified. AlpacaEval's `lc_standard_error` is another thing:
    the spread of predictions over instructions, which is no sampling error.
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
            "lc_ci95": [finite(end) for end in self.lc_ci95],
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

    def length_feature(self) -> FloatArray:
        """tanh(gap/sd) of every own row; 0 where all gaps are equal."""
        if not self.gaps_differ:
            return np.zeros_like(self.length_gap)
        return np.asarray(np.tanh(self.length_gap / self.length_gap.std(ddof=1)), dtype=np.float64)

    @property
    def gaps_differ(self) -> bool:
        return float(self.length_gap.std(ddof=1)) > 1e-9 * (1 + float(np.abs(self.length_gap).max()))

    def training_rows(self) -> Rows:
        """Regularising rows first (as upstream), then the own rows that were judged."""
        has_score = ~np.isnan(self.scores)
        own = self._features(self.length_feature())[has_score]
        return Rows(
            np.vstack([self.regularisers.features, own]),
            np.concatenate([self.regularisers.targets, self.scores[has_score]]),
            np.concatenate([self.regularisers.weights, np.ones(len(own))]),
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
    regularisers: Mapping[str, Sequence[float]] | None = None,
    is_baseline: bool = False,
) -> LengthControlled:
    """Length-controlled win rate of the model (output_2) over the baseline (output_1).

    `lengths_*` are characters of the two answers, `difficulty` one number a row (see `summary.align_difficulty`),
    `regularisers` the regularising rows as columns `preference` (already − 1), `std_delta_len`,
    `instruction_difficulty`.
    Rows without a preference shape sd and the prediction but not the fit, as upstream. `is_baseline`: the model is the
    baseline itself, which is 50 by definition. Below ten judged rows the rate is NaN and a note says so.
    Raises DataError when the columns disagree in length.
    """
    design = design_of(
        preferences, lengths_1=lengths_1, lengths_2=lengths_2, difficulty=difficulty, regularisers=regularisers
    )
    variant = WITHOUT_DIFFICULTY if difficulty is None else FULL if regularisers is not None else WITHOUT_REGULARISERS
    n_judged = int((~np.isnan(design.scores)).sum())
    without_fit = LengthControlled(
        math.nan, None, (), NO_INTERVAL, variant, n_rows=n_judged, n_regularising=len(design.regularisers)
    )
    if is_baseline:
        note = "the model's answers are the baseline's: 50 by definition"
        return replace(without_fit, length_controlled_winrate=50.0, notes=(note,))
    if n_judged < MIN_ROWS:
        note = f"{n_judged} judged rows are too few for length control (at least {MIN_ROWS})"
        return replace(without_fit, notes=(note,))
    return _estimate(design, without_fit)


def design_of(
    preferences: Iterable[float | None],
    *,
    lengths_1: Sequence[int],
    lengths_2: Sequence[int],
    difficulty: Sequence[float] | None,
    regularisers: Mapping[str, Sequence[float]] | None,
) -> Design:
    """What `length_controlled` fits. Raises DataError when the columns disagree in length."""
    scores = scores_from(preferences)
    sizes = {"preferences": len(scores), "lengths_1": len(lengths_1), "lengths_2": len(lengths_2)}
    if difficulty is not None:
        sizes["difficulties"] = len(difficulty)
    if len(set(sizes.values())) > 1:
        counts = ", ".join(f"{n} {name}" for name, n in sizes.items())
        raise DataError(f"length control got {counts}", remedy="give one of each for every row")
    gap = np.asarray(lengths_1, dtype=np.float64) - np.asarray(lengths_2, dtype=np.float64)
    difficulty_N = None if difficulty is None else np.asarray(difficulty, dtype=np.float64)
    return Design(scores, gap, difficulty_N, _regularisers(regularisers, with_difficulty=difficulty_N is not None))


def _estimate(design: Design, without_fit: LengthControlled) -> LengthControlled:
    rows = design.training_rows()
    chosen = _choose_penalty(rows)
    near = [j for j in (chosen - 1, chosen, chosen + 1) if 0 <= j < len(INVERSE_PENALTIES)]
    fits = {j: fit_liblinear(rows, inverse_penalty=INVERSE_PENALTIES[j]) for j in near}
    target = design.prediction_features()
    names = ("length", "own") if design.difficulty is None else ("length", "difficulty", "own")
    estimate = _prediction(target, fits[chosen])
    low, high = _interval(design, rows)
    return replace(
        without_fit,
        length_controlled_winrate=estimate,
        lc_c=INVERSE_PENALTIES[chosen],
        lc_neighbours=tuple((INVERSE_PENALTIES[j], _prediction(target, fits[j])) for j in near),
        lc_ci95=NO_INTERVAL if math.isnan(low) else (min(low, estimate), max(high, estimate)),
        weights=dict(zip(names, fits[chosen].tolist(), strict=True)),
        notes=_notes(design, strength=float(fits[chosen][-1]), has_interval=not math.isnan(low)),
    )


def _notes(design: Design, *, strength: float, has_interval: bool) -> tuple[str, ...]:
    notes = []
    if not has_interval:
        notes.append(NOT_IDENTIFIED)
    if strength == 0 and design.difficulty is None:
        notes.append("shrunk to exactly 50: cross-validation saw no strength worth its penalty; read the interval")
    if not design.length_gap.any():
        notes.append("every answer is as long as the baseline's: no length effect can be estimated, nor is there one")
    if np.isnan(design.scores).any():
        notes.append(f"{int(np.isnan(design.scores).sum())} rows without a verdict are predicted but not fitted")
    return tuple(notes)


def _regularisers(regularisers: Mapping[str, Sequence[float]] | None, *, with_difficulty: bool) -> Rows:
    n_features = 3 if with_difficulty else 2
    if regularisers is None:
        return Rows(np.empty((0, n_features)), np.empty(0), np.empty(0))
    targets = np.asarray(regularisers["preference"], dtype=np.float64)
    length = np.tanh(np.asarray(regularisers["std_delta_len"], dtype=np.float64))
    own = np.zeros_like(length)
    difficulty_N = np.asarray(regularisers["instruction_difficulty"], dtype=np.float64)
    columns = [length, difficulty_N, own] if with_difficulty else [length, own]
    return Rows(np.column_stack(columns), targets, np.full(len(targets), REGULARISING_WEIGHT))


def _choose_penalty(rows: Rows) -> int:
    """Index into `INVERSE_PENALTIES` with the best held-out log loss; the first (strongest penalty) on a tie.

    Five folds by row: both copies of a duplicated row stay together, which is what GroupKFold is for upstream.
    """
    losses = np.zeros(len(INVERSE_PENALTIES))
    for train, test in _folds(len(rows)):
        train_rows, test_rows = rows.take(train), rows.take(test)
        for j, inverse_penalty in enumerate(INVERSE_PENALTIES):
            losses[j] += mean_log_loss(test_rows, fit_liblinear(train_rows, inverse_penalty=inverse_penalty))
    return int(losses.argmin())


def _folds(n_rows: int) -> list[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    """Train and test rows of the five folds, as scikit-learn's GroupKFold deals them."""
    from sklearn.model_selection import GroupKFold

    rows = np.arange(n_rows)
    return list(GroupKFold(N_FOLDS).split(rows, groups=rows))


def _interval(design: Design, rows: Rows) -> Interval:
    """Percent: Rao's score interval of the rate, `logistic_score.score_interval`; Wilson's where all scores are equal
    on both sides of equal length, and none where the rate is not identified or the interval says nothing."""
    scores = design.scores[~np.isnan(design.scores)]
    if not _is_identified(design, rows):
        return NO_INTERVAL
    if scores.max() == scores.min() and design.length_gap.min() <= 0 <= design.length_gap.max():
        low, high = rate_interval(scores)  # equal lengths are among those that were seen, so nothing is extrapolated
    else:
        model = RateModel(rows, _target(design))
        low, high = score_interval(model, rows.features[:, -1])
    return NO_INTERVAL if (low, high) == (0.0, 1.0) else (100 * low, 100 * high)


def _is_identified(design: Design, rows: Rows) -> bool:
    """Whether the rate at equal lengths can be told from the effect of length: not where tanh(gap/sd) is constant,
    unless all lengths are equal."""
    if not design.gaps_differ:
        return not design.length_gap.any()
    return share_identified(rows) > LEAST_IDENTIFIED


def _target(design: Design) -> FloatArray:
    """The rows whose mean prediction is the rate; one stands for all where they are equal."""
    features_NF = design.prediction_features()
    return features_NF[:1] if design.difficulty is None else features_NF


def rate_influence(design: Design) -> FloatArray:
    """How much each row moves the rate, up to a factor, [N]; 0 for a row without a verdict."""
    rows = design.training_rows()
    has_score = ~np.isnan(design.scores)
    influence_N = np.zeros(len(design.scores))
    if np.ptp(design.scores[has_score]) == 0:  # residuals would be those of the fit's own rounding
        return influence_N
    own = rows.take(rows.features[:, -1] == 1)
    model = RateModel(rows, _target(design))
    influence_N[has_score] = influence(model, own.features, own.targets)
    return influence_N


def _prediction(features_NF: FloatArray, weights_F: FloatArray) -> float:
    return 100 * float(sigmoid(features_NF @ weights_F).mean())
