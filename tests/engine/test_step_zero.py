"""The guard before the first update compares with the noise that was measured, not with a fixed tolerance."""

from __future__ import annotations

import math

import pytest
import torch

from trimtab import objectives
from trimtab.engine.evaluation import log_ratios, step_zero_guard
from trimtab.engine.noise import Noise
from trimtab.errors import NumericsError
from trimtab.objectives import LogRatios
from trimtab.records import TokenPair

DPO = objectives.make("dpo", beta=0.1)
PAIRS = [TokenPair("first", (1,), (2,) * 100, (3,) * 100), TokenPair("second", (1,), (4,) * 100, (5,) * 100)]
NOISE = Noise(0.01)  # .01 · √(2 · 100) = .1414 nats a log-ratio; six of them .8485


def ratios(chosen: float, rejected: float = 0.0) -> LogRatios:
    """The second pair's; those of the first are 0."""
    reference_R = torch.tensor([-150.0, -160.0, -170.0, -180.0])
    return log_ratios(reference_R + torch.tensor([0.0, 0.0, chosen, rejected]), reference_R, PAIRS)


def guard(of: LogRatios, noise: Noise, *, loss: float | None = None) -> None:
    loss = float(DPO.loss(of).mean()) if loss is None else loss
    step_zero_guard(DPO, of, loss=loss, pairs=PAIRS, noise=noise)


def test_a_log_ratio_within_six_standard_deviations_passes_and_no_other() -> None:
    guard(ratios(0.84, -0.84), NOISE)
    with pytest.raises(NumericsError, match=r"chosen response of second has a log-ratio of 0.86 nats.*explains 0.85"):
        guard(ratios(0.86), NOISE)
    with pytest.raises(NumericsError, match="rejected response of second"):
        guard(ratios(0.0, -0.86), NOISE)


def test_arithmetic_without_noise_leaves_thousandths() -> None:
    guard(ratios(0.002), Noise(0.0))
    with pytest.raises(NumericsError, match=r"of 0\.0030\d* nats"):
        guard(ratios(0.003), Noise(0.0))


def test_the_loss_may_move_as_far_as_noise_moves_it() -> None:
    """The slope of DPO's loss at 0 is β/2 a log-ratio, over two pairs β/4: .025 · 4 responses · .8485 = .0849."""
    guard(ratios(0.0), NOISE, loss=math.log(2) + 0.084)
    with pytest.raises(NumericsError, match=r"the loss of dpo should be 0\.693147"):
        guard(ratios(0.0), NOISE, loss=math.log(2) + 0.09)
    with pytest.raises(NumericsError, match="the loss of dpo"):
        guard(ratios(0.0), Noise(0.0), loss=math.log(2) + 0.002)
