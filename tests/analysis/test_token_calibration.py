"""Calibration of next tokens, by hand and on worlds whose calibration is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from trimtab.analysis.calibration import calibration, expected_calibration_error
from trimtab.analysis.intervals import mean_test
from trimtab.analysis.token_calibration import (
    Predictions,
    TokenTable,
    chance_error_of_tokens,
    join,
    per_token,
    tabulate,
    token_bins,
)
from trimtab.errors import DataError


def predictions(*columns: list[float]) -> Predictions:
    return Predictions(*(np.array(column, dtype=float) for column in columns))


def world(n: int, *, over: float, rng: np.random.Generator, spread: float = 0.05) -> TokenTable:
    """Responses of 5 to 39 tokens, right less often than said by `over`; some responses are luckier than others."""

    def response() -> Predictions:
        confidence = rng.uniform(0.2, 0.9, rng.integers(5, 40))
        truth = np.clip(confidence - over + rng.normal(0, spread), 0, 1)
        return Predictions(
            np.log(confidence), confidence, (rng.random(len(confidence)) < truth).astype(float), confidence
        )

    return tabulate(response() for _ in range(n))


def test_by_hand() -> None:
    # Response 1: confidences .9 right, .9 wrong; response 2: .6 right. Bins: .9 → 2 tokens, half right; .6 → 1 of 1.
    responses = [
        predictions([-1.0, -3.0], [0.9, 0.9], [1, 0], [0.5, 0.7]),
        predictions([-2.0], [0.6], [1], [0.9]),
    ]
    table = tabulate(responses)
    bins = token_bins(table)
    assert [(b.low, b.count, b.accuracy) for b in bins] == [(0.6, 1, 1.0), (0.9, 2, 0.5)]
    # (2·|.9 − .5| + 1·|1 − .6|)/3; .1² + .9² and .4²
    assert expected_calibration_error(bins) == pytest.approx((2 * 0.4 + 0.4) / 3)
    assert table.brier_P == pytest.approx([0.01 + 0.81, 0.16])
    assert token_bins(join([tabulate(responses[:1]), tabulate(responses[1:])])) == bins
    assert table.nll_P.tolist() == [4.0, 2.0]
    assert table.entropy_P == pytest.approx([1.2, 0.9])
    assert table.over_P == pytest.approx([0.8, -0.4])  # 1.8 expected, 1 came; .6 expected, 1 came


def test_a_sure_token_belongs_to_the_last_bin() -> None:
    bins = token_bins(tabulate([predictions([0.0], [1.0], [1], [0.0])]))
    assert [(b.low, b.high) for b in bins] == [(0.9, 1.0)]
    assert expected_calibration_error(bins) == 0.0


def test_the_mean_over_tokens_is_a_ratio_of_sums() -> None:
    values = per_token(np.array([4.0, 2.0, 6.0]), np.array([2.0, 1.0, 3.0]))
    assert values.tolist() == [2.0, 2.0, 2.0]  # 2 nats a token everywhere: long responses are no spread
    values = per_token(np.array([1.0, 9.0]), np.array([1.0, 3.0]))
    # ratio 10/4 = 2.5; deviations (1 − 2.5)/2 and (9 − 7.5)/2
    assert values.tolist() == [2.5 - 0.75, 2.5 + 0.75]


def test_intervals_over_responses_hold_the_ratio() -> None:
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(60):
        tokens = rng.integers(5, 40, 50).astype(float)
        sums = tokens * rng.normal(0.3, 0.2, 50) + rng.normal(0, 1, 50) * np.sqrt(tokens)
        low, high = mean_test(per_token(sums, tokens)).ci95
        held += low <= 0.3 <= high
    assert held >= 52


def test_chance_knows_noise_from_error() -> None:
    rng = np.random.default_rng(0)
    within = {0.0: 0, 0.15: 0}
    for over in within:
        for _ in range(60):
            table = world(40, over=over, rng=rng)
            error = expected_calibration_error(token_bins(table))
            within[over] += error < chance_error_of_tokens(table, n_draws=300).below95
    assert within[0.0] >= 52
    assert within[0.15] <= 3


def test_one_response_shows_no_noise() -> None:
    table = tabulate([predictions([-1.0], [0.5], [1], [0.7])])
    assert math.isnan(chance_error_of_tokens(table).mean)
    assert chance_error_of_tokens(table).to_json() == {"mean": None, "below95": None}


def test_nothing_to_measure_is_refused() -> None:
    with pytest.raises(DataError, match="no response"):
        tabulate([])


def test_tokens_and_gaps_agree_where_they_are_the_same_thing() -> None:
    # A coin's two sides: confidence σ(|gap|), right where the gap is positive.
    gaps = np.random.default_rng(2).normal(0.3, 1.0, 500)
    confidence = 1 / (1 + np.exp(-np.abs(gaps)))
    response = Predictions(np.log(confidence), confidence, (gaps > 0).astype(float), confidence)
    table = tabulate([response], n_bins=20)
    by_gap = calibration(gaps, n_bins=10)
    assert expected_calibration_error(token_bins(table)) == pytest.approx(by_gap.ece)
    assert table.right_P / table.tokens_P == pytest.approx(by_gap.accuracy)
    assert table.brier_P / table.tokens_P == pytest.approx(by_gap.brier)
