"""L1-penalise_repetition logistic regression with continuous targets, solved twice: by liblinear and exactly.

Both minimise over w (no intercept)

    ‖w‖₁ + C · Σ_i s_i · [ log(1 + exp(x_i·w)) − y_i · x_i·w ],        y_i in [0, 1], s_i ≥ 0

which is scikit-learn's objective on rows duplicated with label 1 (weight s·y) and label 0 (weight s·(1 − y)).
`fit_liblinear` is what the published AlpacaEval numbers were made with (it stops at a tolerance of 1e-4, and so do
they). `fit_exact` is for the bootstrap, which needs a thousand small fits (it is eight times as fast), and for rows
that all went one way, which liblinear fits with the wrong sign: proximal Newton over two or three coefficients, to
1e-8. They agree as liblinear's tolerance goes to zero.

Shapes: N rows, F features.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trimtab.analysis.intervals import FloatArray

_NEWTON_STEPS = 100  # a bound against cycling, not a setting
_SWEEPS = 200  # of coordinate descent within one Newton step, at most
_STEP_TOLERANCE = 1e-8  # in coefficients; rates are compared to two decimals
_LOG_FLOOR = 1e-15  # AlpacaEval clips probabilities here before it takes their logarithm


@dataclass(frozen=True, slots=True)
class Rows:
    """What a fit reads: features [N, F], targets in [0, 1] [N], weights [N]."""

    features: FloatArray
    targets: FloatArray
    weights: FloatArray

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, index: npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> Rows:
        return Rows(self.features[index], self.targets[index], self.weights[index])

    @property
    def has_both_labels(self) -> bool:
        """Whether both outcomes carry weight."""
        weight_of_ones = float(self.weights @ self.targets)
        return 0 < weight_of_ones < float(self.weights.sum())


def sigmoid(z: FloatArray) -> FloatArray:
    """1 / (1 + e^−z), without overflow."""
    return np.asarray(np.exp(-np.logaddexp(0, -z)), dtype=np.float64)


def mean_log_loss(rows: Rows, coefficients_F: FloatArray) -> float:
    """Weighted log loss over the number of rows, not over their weight (AlpacaEval's cross-validation score)."""
    p = np.clip(sigmoid(rows.features @ coefficients_F), _LOG_FLOOR, 1 - _LOG_FLOOR)
    y = rows.targets
    return -float(np.mean(rows.weights * (y * np.log(p) + (1 - y) * np.log1p(-p))))


def fit_liblinear(rows: Rows, *, inverse_penalty: float, tolerance: float = 1e-4) -> FloatArray:
    """scikit-learn's liblinear fit, shape [F].

    Rows of one outcome only go to `fit_exact`, and so do rows on which liblinear does not arrive in its hundred steps.
    """
    if not rows.has_both_labels:
        return fit_exact(rows, inverse_penalty=inverse_penalty)
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(
        C=inverse_penalty,
        l1_ratio=1,
        solver="liblinear",
        fit_intercept=False,
        random_state=123,
        tol=tolerance,
    )
    n = len(rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(
            np.vstack([rows.features, rows.features]),
            np.repeat([1, 0], n),
            sample_weight=np.concatenate([rows.weights * rows.targets, rows.weights * (1 - rows.targets)]),
        )
    if int(np.max(model.n_iter_)) >= model.max_iter:
        return fit_exact(rows, inverse_penalty=inverse_penalty)
    return np.asarray(model.coef_[0], dtype=np.float64)


def fit_exact(rows: Rows, *, inverse_penalty: float, start_F: FloatArray | None = None) -> FloatArray:
    """The minimiser itself, shape [F], by proximal Newton with a halving line search."""
    X, y, s = rows.features, rows.targets, inverse_penalty * rows.weights
    w = np.zeros(X.shape[1]) if start_F is None else start_F.copy()
    value, p = _objective(X @ w, y, s, w)
    for _ in range(_NEWTON_STEPS):
        gradient = X.T @ (s * (p - y))
        curvature = (X * (s * p * (1 - p))[:, None]).T @ X
        direction = _quadratic_minimiser(gradient, curvature, w) - w
        if float(np.abs(direction).max()) < _STEP_TOLERANCE:
            break
        step = 1.0
        while True:
            w_next = w + step * direction
            value_next, p_next = _objective(X @ w_next, y, s, w_next)
            if value_next <= value or step < 1e-10:
                break
            step /= 2
        if value_next >= value:  # no descent left at this precision
            break
        w, p, value = w_next, p_next, value_next
    return w


def _objective(z_N: FloatArray, y_N: FloatArray, s_N: FloatArray, w_F: FloatArray) -> tuple[float, FloatArray]:
    """The objective and the probabilities σ(z), which share their one exponential."""
    e_N = np.exp(-np.abs(z_N))
    softplus_N = np.maximum(z_N, 0) + np.log1p(e_N)
    p_N = np.where(z_N >= 0, 1.0, e_N) / (1 + e_N)
    return float(s_N @ (softplus_N - y_N * z_N)) + float(np.abs(w_F).sum()), p_N


def _quadratic_minimiser(gradient_F: FloatArray, curvature_FF: FloatArray, w_F: FloatArray) -> FloatArray:
    """argmin_u gradient·(u − w) + ½(u − w)ᵀ·curvature·(u − w) + ‖u‖₁.

    If no coefficient is zero or changes its sign, one linear solve; otherwise coordinate descent on plain floats.
    """
    signs = np.sign(w_F)
    if signs.all():
        # collinear features (every length gap far beyond tanh's bend) make the curvature singular; a ridge far below
        # the tolerance keeps the step a descent direction, and the line search keeps it honest
        ridge = 1e-10 * float(np.trace(curvature_FF)) + 1e-12
        u_F = w_F - np.linalg.solve(curvature_FF + ridge * np.eye(len(w_F)), gradient_F + signs)
        if np.array_equal(np.sign(u_F), signs):
            return np.asarray(u_F, dtype=np.float64)
    w, g, H = w_F.tolist(), gradient_F.tolist(), curvature_FF.tolist()
    u = list(w)
    for _ in range(_SWEEPS):
        largest_change = 0.0
        for j, H_j in enumerate(H):
            h = H_j[j] + 1e-12
            slope = g[j] + sum(H_jk * (u_k - w_k) for H_jk, u_k, w_k in zip(H_j, u, w, strict=True))
            target = u[j] - slope / h
            new = max(abs(target) - 1 / h, 0.0) * (1.0 if target > 0 else -1.0)
            largest_change = max(largest_change, abs(new - u[j]))
            u[j] = new
        if largest_change < _STEP_TOLERANCE / 10:
            break
    return np.array(u)
