"""Next tokens of held-out responses: how sure a model is of its first choice, and means over tokens.

Tokens of one response hang together, so responses are what is resampled, and a table of sums by response is all that is
kept. The mean of a value over all tokens is a ratio of two sums over responses, Σ S_p / Σ n_p; `per_token` gives values
whose plain mean is that ratio and whose spread is its own (the linearised ratio, Cochran 1977, Sampling Techniques,
section 6.3), so that every interval made for means serves. Shapes: P responses, N tokens of one, B bins, M measures, D
draws.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np

from trimtab.analysis.calibration import Bin, Chance
from trimtab.analysis.intervals import FloatArray
from trimtab.errors import DataError

N_BINS = 10  # the usual number of a reliability diagram


@dataclass(frozen=True, slots=True)
class Predictions:
    """One model along one response, each [N]: log p of the token that came and entropy (nats), probability of the most
    likely token, and whether that one came (0 or 1)."""

    logp_N: FloatArray
    confidence_N: FloatArray
    right_N: FloatArray
    entropy_N: FloatArray


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

    @property
    def sums_MP(self) -> FloatArray:
        """The measures below each other: nll, entropy, right, over-confidence, brier."""
        return np.stack([self.nll_P, self.entropy_P, self.right_P, self.over_P, self.brier_P])


def tabulate(responses: Iterable[Predictions], *, n_bins: int = N_BINS) -> TokenTable:
    """Sums by response. Raises DataError where there is none."""
    rows = []
    for response in responses:
        bin_N = np.clip((response.confidence_N * n_bins).astype(np.int64), 0, n_bins - 1)
        rows.append(
            (
                len(response.logp_N),
                -response.logp_N.sum(),
                response.entropy_N.sum(),
                response.right_N.sum(),
                ((response.confidence_N - response.right_N) ** 2).sum(),
                np.bincount(bin_N, minlength=n_bins),
                np.bincount(bin_N, weights=response.confidence_N, minlength=n_bins),
                np.bincount(bin_N, weights=response.right_N, minlength=n_bins),
            )
        )
    if not rows:
        raise DataError("there is no response to measure", remedy="hold some pairs out")
    return TokenTable(*(np.array(column, dtype=np.float64) for column in zip(*rows, strict=True)))


def join(tables: Sequence[TokenTable]) -> TokenTable:
    """The responses of all tables in one."""
    columns = ([getattr(table, field.name) for table in tables] for field in fields(TokenTable))
    return TokenTable(*map(np.concatenate, columns))


def per_token(sums: FloatArray, tokens_P: FloatArray) -> FloatArray:
    """[…, P] values whose mean is Σ sums / Σ tokens and whose deviations are S_p − ratio · n_p, in tokens of the
    mean."""
    ratio = sums.sum(axis=-1, keepdims=True) / tokens_P.sum()
    values: FloatArray = ratio + (sums - ratio * tokens_P) / tokens_P.mean()
    return values


def token_bins(table: TokenTable) -> tuple[Bin, ...]:
    """Bins of the most likely token's probability over all tokens: how often it was the one that came."""
    tokens_B = table.tokens_PB.sum(axis=0)
    confidence_B, right_B = table.confidence_PB.sum(axis=0), table.right_PB.sum(axis=0)
    n_bins = len(tokens_B)
    return tuple(
        Bin(b / n_bins, (b + 1) / n_bins, int(n), float(confidence_B[b] / n), float(right_B[b] / n))
        for b, n in enumerate(tokens_B)
        if n
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
