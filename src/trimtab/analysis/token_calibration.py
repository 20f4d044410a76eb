"""Next tokens of held-out responses: calibration of a model's first choice, and means over tokens.

Tokens of one response hang together, so responses are what is resampled, and a table of sums by response is all that is
kept. The mean of a value over all tokens is a ratio of two sums over responses, Σ S_p / Σ n_p; `per_token` gives values
whose plain mean is that ratio and whose spread is its own (the linearised ratio, Cochran 1977, Sampling Techniques,
section 6.3), so that every interval made for means serves. Shapes: P responses, N tokens of one, B bins, D draws.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.analysis.calibration import Bin, Calibration, Chance, expected_calibration_error
from trimtab.analysis.intervals import FloatArray, rate_interval
from trimtab.errors import DataError

N_BINS = 10
Values = npt.ArrayLike


@dataclass(frozen=True, slots=True)
class TokenTable:
    """One model on P responses, summed by response: tokens, negative log-likelihood and entropy (nats), tokens whose
    most likely candidate came, squared error of its probability; then, by bin of that probability, tokens, the sum of
    the probabilities and how many were right."""

    tokens_P: FloatArray
    nll_P: FloatArray
    entropy_P: FloatArray
    right_P: FloatArray
    brier_P: FloatArray
    tokens_PB: FloatArray
    confidence_PB: FloatArray
    right_PB: FloatArray

    @property
    def over_P(self) -> FloatArray:
        """Over-confidence: the sum of the probabilities less how many came true."""
        over_P: FloatArray = self.confidence_PB.sum(axis=1) - self.right_P
        return over_P


def tabulate(responses: Iterable[tuple[Values, Values, Values, Values]], *, n_bins: int = N_BINS) -> TokenTable:
    """From (log p of the token that came, probability of the most likely one, whether that came, entropy), each [N]."""
    rows = [_row(response, n_bins) for response in responses]
    if not rows:
        raise DataError("there is no response to measure", remedy="hold some pairs out")
    columns = [np.array(column, dtype=np.float64) for column in zip(*rows, strict=True)]
    return TokenTable(*columns)


def _row(response: tuple[Values, Values, Values, Values], n_bins: int) -> tuple[Any, ...]:
    logp_N, confidence_N, right_N, entropy_N = (np.asarray(values, dtype=np.float64) for values in response)
    which_N = np.clip((confidence_N * n_bins).astype(np.int64), 0, n_bins - 1)
    return (
        float(len(logp_N)),
        float(-logp_N.sum()),
        float(entropy_N.sum()),
        float(right_N.sum()),
        float(((confidence_N - right_N) ** 2).sum()),
        np.bincount(which_N, minlength=n_bins).astype(np.float64),
        np.bincount(which_N, weights=confidence_N, minlength=n_bins),
        np.bincount(which_N, weights=right_N, minlength=n_bins),
    )


def per_token(sums_P: FloatArray, tokens_P: FloatArray) -> FloatArray:
    """[P] values whose mean is Σ sums / Σ tokens and whose deviations are S_p − ratio · n_p, in tokens of the mean."""
    ratio = sums_P.sum() / tokens_P.sum()
    values_P: FloatArray = ratio + (sums_P - ratio * tokens_P) / tokens_P.mean()
    return values_P


def token_calibration(table: TokenTable) -> Calibration:
    """Calibration of the most likely token's probability over all tokens; `accuracy` is how often it came.

    The interval of the accuracy counts responses, not tokens: it is Wilson's at what their spread is worth.
    """
    n_bins = table.tokens_PB.shape[1]
    tokens_B, confidence_B, right_B = (
        values.sum(axis=0) for values in (table.tokens_PB, table.confidence_PB, table.right_PB)
    )
    bins = tuple(
        Bin(b / n_bins, (b + 1) / n_bins, int(n), float(confidence_B[b] / n), float(right_B[b] / n))
        for b, n in enumerate(tokens_B)
        if n
    )
    n_tokens = float(table.tokens_P.sum())
    return Calibration(
        n=int(n_tokens),
        accuracy=float(table.right_P.sum() / n_tokens),
        accuracy_ci95=rate_interval(per_token(table.right_P, table.tokens_P)),
        ece=expected_calibration_error(bins),
        brier=float(table.brier_P.sum() / n_tokens),
        bins=bins,
    )


def chance_error_of_tokens(table: TokenTable, *, seed: int = 0, n_draws: int = 2000) -> Chance:
    """The calibration error that the noise of these responses makes on its own, were the model calibrated.

    Each response's misses by bin, less their mean, are added up under random signs (the wild bootstrap by cluster,
    Cameron, Gelbach and Miller 2008, Review of Economics and Statistics 90:414). The error itself gets no interval:
    next to 0, where models are, bootstrap intervals of an absolute value hold the truth in 30 to 90 of 100 trials.
    Brier score and over-confidence are means and have theirs. NaN below two responses.
    """
    n = len(table.tokens_P)
    if n < 2:
        return Chance(math.nan, math.nan)
    share_P = table.tokens_P / table.tokens_P.sum()
    miss_PB = table.right_PB - table.confidence_PB
    noise_PB = (miss_PB - share_P[:, None] * miss_PB.sum(axis=0)) * math.sqrt(n / (n - 1))
    signs_DP = np.random.default_rng(seed).choice([-1.0, 1.0], size=(n_draws, n))
    errors_D = np.abs(signs_DP @ noise_PB).sum(axis=1) / table.tokens_P.sum()
    return Chance(float(errors_D.mean()), float(np.quantile(errors_D, 0.95)))
