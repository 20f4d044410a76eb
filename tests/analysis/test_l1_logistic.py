"""Two solvers of one objective: hand-worked optima, agreement, and the case in which liblinear is wrong."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.analysis.l1_logistic import Rows, fit_exact, fit_liblinear, mean_log_loss, sigmoid


def rows_of(targets: list[float]) -> Rows:
    n = len(targets)
    return Rows(np.ones((n, 1)), np.array(targets), np.ones(n))


def random_rows(seed: int, *, n: int = 120, features: int = 3) -> Rows:
    rng = np.random.default_rng(seed)
    X = np.column_stack([np.tanh(rng.normal(size=n)), rng.normal(size=n), np.ones(n)])[:, -features:]
    y = sigmoid(X @ rng.normal(size=features) + rng.normal(size=n))
    return Rows(X, y, rng.choice([0.1, 1.0, 2.0], size=n))


def objective(rows: Rows, w: np.ndarray, c: float) -> float:  # type: ignore[type-arg]
    z = rows.features @ w
    return float(np.abs(w).sum() + c * rows.weights @ (np.logaddexp(0, z) - rows.targets * z))


def test_one_coefficient_by_hand() -> None:
    # 4 rows of 1, targets 1 1 1 0, C = 2. For w > 0: 1 + 2·(4σ(w) − 3) = 0, σ(w) = 5/8, w = ln(5/3).
    assert fit_exact(rows_of([1, 1, 1, 0]), inverse_penalty=2.0)[0] == pytest.approx(np.log(5 / 3), abs=1e-9)
    # At C = ½ the pull at w = 0 is ½·|4·½ − 3| = ½ < 1: the penalty wins and w is exactly 0.
    assert fit_exact(rows_of([1, 1, 1, 0]), inverse_penalty=0.5)[0] == 0.0


def test_one_outcome_only_by_hand() -> None:
    # All lost, C = 1, n = 4: −1 + 4σ(w) = 0 for w < 0, σ(w) = 1/4, w = −ln 3. liblinear answers with the other sign.
    rows = rows_of([0, 0, 0, 0])
    assert not rows.has_both_labels
    assert fit_exact(rows, inverse_penalty=1.0)[0] == pytest.approx(-np.log(3), abs=1e-9)
    assert fit_liblinear(rows, inverse_penalty=1.0)[0] == pytest.approx(-np.log(3), abs=1e-9)


def test_mean_log_loss_divides_by_rows() -> None:
    rows = Rows(np.ones((2, 1)), np.array([1.0, 0.25]), np.array([1.0, 0.1]))
    p = 1 / (1 + np.exp(-0.3))
    by_hand = -(np.log(p) + 0.1 * (0.25 * np.log(p) + 0.75 * np.log(1 - p))) / 2
    assert mean_log_loss(rows, np.array([0.3])) == pytest.approx(by_hand)


@pytest.mark.parametrize("inverse_penalty", [1e-4, 0.05, 0.36, 2.8, 170.0, 1e4])
@pytest.mark.parametrize("seed", range(3))
def test_both_solvers_agree_as_the_tolerance_goes_to_zero(seed: int, inverse_penalty: float) -> None:
    rows = random_rows(seed)
    exact = fit_exact(rows, inverse_penalty=inverse_penalty)
    assert fit_liblinear(rows, inverse_penalty=inverse_penalty, tolerance=1e-9) == pytest.approx(exact, abs=2e-5)


@given(
    seed=st.integers(0, 10_000),
    inverse_penalty=st.sampled_from([1e-3, 0.1, 1.0, 30.0, 1e4]),
    features=st.integers(1, 3),
)
@settings(max_examples=40, deadline=None)
def test_the_exact_solution_cannot_be_improved(seed: int, inverse_penalty: float, features: int) -> None:
    rows = random_rows(seed, n=40, features=features)
    best = fit_exact(rows, inverse_penalty=inverse_penalty)
    value = objective(rows, best, inverse_penalty)
    slack = 1e-12 * (1 + abs(value))
    for j in range(features):
        for step in (-1e-3, 1e-3):
            moved = best.copy()
            moved[j] += step
            assert objective(rows, moved, inverse_penalty) >= value - slack
    started_elsewhere = fit_exact(rows, inverse_penalty=inverse_penalty, start_F=np.full(features, 3.0))
    assert objective(rows, started_elsewhere, inverse_penalty) == pytest.approx(value, rel=1e-9)


def test_separable_rows_stay_finite() -> None:
    rows = Rows(np.array([[-1.0, 1.0], [-0.5, 1.0], [0.5, 1.0], [1.0, 1.0]]), np.array([0.0, 0, 1, 1]), np.ones(4))
    assert np.isfinite(fit_exact(rows, inverse_penalty=1e4)).all()


def test_a_feature_without_spread_gets_no_weight() -> None:
    rows = Rows(np.column_stack([np.zeros(6), np.ones(6)]), np.array([1.0, 1, 1, 1, 0, 0]), np.ones(6))
    assert fit_exact(rows, inverse_penalty=100.0)[0] == 0.0


def test_sigmoid_does_not_overflow() -> None:
    assert sigmoid(np.array([-1000.0, 0.0, 1000.0])).tolist() == [0.0, 0.5, 1.0]


def test_collinear_features_are_fitted_all_the_same() -> None:
    """Every length gap far beyond tanh's bend: the length column is a constant, the same as the intercept's."""
    targets = np.array([0.3, 0.9, 0.6, 0.1] * 10)
    rows = Rows(np.ones((40, 2)), targets, np.ones(40))
    weights = fit_exact(rows, inverse_penalty=1e4)
    assert float(sigmoid(np.array([weights.sum()]))[0]) == pytest.approx(targets.mean(), abs=1e-4)


def test_rows_that_liblinear_does_not_finish_are_fitted_exactly() -> None:
    """Lengths that separate nothing and a weak penalty: liblinear stops after its hundred steps, far from done."""
    rng = np.random.default_rng(0)
    gap = rng.integers(16, 36, 40).astype(float)
    own = np.ones(40)
    targets = (rng.random(40) < 0.6).astype(float)
    rows = Rows(np.column_stack([np.tanh(gap / gap.std(ddof=1)), own]), targets, np.ones(40))
    for inverse_penalty in np.logspace(-4, 4, 10):
        exact = fit_exact(rows, inverse_penalty=inverse_penalty)
        assert fit_liblinear(rows, inverse_penalty=inverse_penalty) == pytest.approx(exact, abs=0.02)
