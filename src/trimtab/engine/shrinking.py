"""Responses so far inside the dead zone that they are not even looked at for some visits. Approximate, and measured.

The idea is the shrinking of SVM solvers (Joachims 1999, LIBSVM): leave out what will very probably stay out, check it
again, and count how often that was wrong. A response may be passed over while it would stay in the dead zone even if it
had moved towards activity, in each visit since its last look, by the mean of such moves plus `DEVIATIONS` of their
standard deviation; and never more than `MOST_SKIPS` visits in a row. The look that follows is its re-check: one that is
active by then may have been active unseen, and counts as missed. Too many of them and the allowance doubles. What is
still unchecked after the last step is checked then (`pending`), so that the report's rate is of every skip.

Sums are in nats, weighted as the objective weighs tokens. Dims: P pairs of a batch, R = 2P responses.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from trimtab.objectives import LogRatios, Objective

MOST_SKIPS = 3  # visits in a row: a response is looked at in one epoch of four at least
DEVIATIONS = 2.0  # beyond the mean move: one in forty would have moved further, were moves normal
LEAST_MOVES = 32  # observed moves of a side before anything is passed over
MOST_MISSED = 0.05  # of the latest `WINDOW` re-checks, above which the allowance doubles
WINDOW = 40  # re-checks: 5 % of them are two


class Shrinking:
    """What is known of every response of a training set between its visits.

    `state`: what `state()` gave. Plain JSON; a sum that is not known is None.
    """

    def __init__(self, n_pairs: int, *, state: Mapping[str, Any] | None = None) -> None:
        self._sums = [math.nan] * (2 * n_pairs)
        self._skips = [0] * (2 * n_pairs)
        self._inactive = [False] * (2 * n_pairs)
        self._moves = [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]  # of a side: count, sum, sum of squares
        self._allowance = 1.0
        self._latest: list[bool] = []
        self.skipped = self.rechecked = self.missed = 0
        if state is not None:
            self._sums = [math.nan if value is None else value for value in state["sums"]]
            self._skips, self._inactive = list(state["skips"]), list(state["inactive"])
            self._moves, self._allowance = [list(of) for of in state["moves"]], state["allowance"]
            self._latest = list(state["latest"])
            self.skipped, self.rechecked, self.missed = state["skipped"], state["rechecked"], state["missed"]
            assert len(self._sums) == 2 * n_pairs, "the state of another training set"

    def stale_sums_R(self, indices: Sequence[int], ratios: LogRatios, *, objective: Objective) -> Tensor | None:
        """Last known sums [2P] of responses that are passed over in this visit, NaN for all others; None for no such.

        `ratios` gives the reference and the lengths of these pairs; its policy side is not read.
        """
        keys = [2 * i + side for i in indices for side in (0, 1)]
        reach = self._reach(0), self._reach(1)
        free = torch.tensor(
            [self._inactive[k] and self._skips[k] < MOST_SKIPS and reach[k % 2] < math.inf for k in keys]
        )
        free &= _lengths(ratios) > 0
        if not free.any():
            return None
        sums_R = torch.tensor([self._sums[k] for k in keys])
        drift_R = torch.tensor([reach[k % 2] * (self._skips[k] + 1) for k in keys])
        worst_R = sums_R + torch.where(torch.arange(len(keys)) % 2 == 0, -drift_R, drift_R)
        free &= ~active(objective, _with_policy(ratios, worst_R)) & ~active(objective, _with_policy(ratios, sums_R))
        return torch.where(free, sums_R, torch.nan) if free.any() else None

    def record(self, indices: Sequence[int], ratios: LogRatios, *, active_R: Tensor, stale_R: Tensor) -> None:
        """What a visit of these pairs found; `stale_R` is True where a response was passed over."""
        sums_R = torch.stack([ratios.policy_chosen, ratios.policy_rejected], 1).flatten().tolist()
        sides = zip(itertools.product(indices, (0, 1)), _lengths(ratios).tolist(), strict=True)
        rows = zip(sides, sums_R, active_R.tolist(), stale_R.tolist(), strict=True)
        for ((i, side), length), weighted_sum, is_active, is_stale in rows:
            key = 2 * i + side
            if not length:
                continue
            if is_stale:
                self._skips[key] += 1
                self.skipped += 1
            else:
                self._look(key, weighted_sum, is_active=is_active)

    def _look(self, key: int, weighted_sum: float, *, is_active: bool) -> None:
        if self._inactive[key]:
            step = (weighted_sum - self._sums[key]) / (self._skips[key] + 1)
            move = step if key % 2 else -step  # towards activity
            of = self._moves[key % 2]
            of[0], of[1], of[2] = of[0] + 1, of[1] + move, of[2] + move * move
        if self._skips[key]:
            self._recheck(is_missed=is_active)
        self._sums[key], self._inactive[key], self._skips[key] = weighted_sum, not is_active, 0

    def _recheck(self, *, is_missed: bool) -> None:
        self.rechecked += 1
        self.missed += is_missed
        self._latest = [*self._latest, is_missed][-WINDOW:]
        if sum(self._latest) > MOST_MISSED * WINDOW:
            self._allowance *= 2
            self._latest = []

    def _reach(self, side: int) -> float:
        """How far (nats) a response of this side may have moved towards activity between two visits."""
        n, total, squares = self._moves[side]
        if n < LEAST_MOVES:
            return math.inf
        mean = total / n
        return self._allowance * max(0.0, mean + DEVIATIONS * math.sqrt(max(0.0, squares / n - mean * mean)))

    @property
    def pending(self) -> list[int]:
        """Pairs with a response that was passed over at its last visit."""
        return sorted({key // 2 for key, skips in enumerate(self._skips) if skips})

    def recheck(self, indices: Sequence[int], active_R: Tensor) -> None:
        """The last look at pending responses: whether each response [2P] of these pairs is active now."""
        for (i, side), is_active in zip(itertools.product(indices, (0, 1)), active_R.tolist(), strict=True):
            if self._skips[2 * i + side]:
                self._recheck(is_missed=is_active)
                self._skips[2 * i + side] = 0

    def state(self) -> dict[str, Any]:
        return {
            "sums": [None if math.isnan(value) else value for value in self._sums],
            "skips": self._skips,
            "inactive": self._inactive,
            "moves": self._moves,
            "allowance": self._allowance,
            "latest": self._latest,
            "skipped": self.skipped,
            "rechecked": self.rechecked,
            "missed": self.missed,
        }


def active(objective: Objective, ratios: LogRatios) -> Tensor:
    """True [2P] where the loss of the pair has a gradient with respect to the response's log-probability."""
    leaf_R = torch.stack([ratios.policy_chosen, ratios.policy_rejected], 1).flatten().detach().requires_grad_()
    loss_P = objective.loss(_with_policy(ratios, leaf_R))
    if not loss_P.requires_grad:
        return torch.zeros(len(leaf_R), dtype=torch.bool)
    (slope_R,) = torch.autograd.grad(loss_P.sum(), leaf_R)
    return slope_R != 0


def _lengths(ratios: LogRatios) -> Tensor:
    """[2P], tokens; 0 for a side that is absent."""
    return torch.stack([ratios.chosen_lengths, ratios.rejected_lengths], 1).flatten()


def _with_policy(ratios: LogRatios, policy_R: Tensor) -> LogRatios:
    return replace(ratios, policy_chosen=policy_R[0::2], policy_rejected=policy_R[1::2])
