"""Products of float16 numbers in fp32 tensors: what scaling saves, and what is refused. No GPU has run it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from engine_families import MIXED, build, groups
from torch import nn

from stage_runs import make_config
from trimtab.engine import scoring
from trimtab.engine.half import Operand, half_linears, product
from trimtab.engine.scoring import Scorer
from trimtab.errors import ConfigError
from trimtab.runtime import set_up


def test_an_operand_is_scaled_by_a_power_of_two() -> None:
    """The largest, 3e-9, lies below 2^-28; times 2^(10 + 28) it is 824.6, and no number is lost."""
    operand = Operand.of(torch.tensor([3e-9, -1.5e-9, 0.0]))
    assert float(operand.scale) == 2.0**38
    assert operand.numbers.dtype == torch.float16
    torch.testing.assert_close(
        operand.numbers.double() / operand.scale, torch.tensor([3e-9, -1.5e-9, 0.0]).double(), rtol=1e-3, atol=0
    )


@pytest.mark.parametrize("size", [0.0, 1e-30, 1.0, 1e30])
def test_products_of_any_size_are_right(size: float) -> None:
    torch.manual_seed(0)
    a, b = size * torch.randn(5, 7), torch.randn(7, 3)
    torch.testing.assert_close(product(Operand.of(a), Operand.of(b)), a @ b, rtol=2e-2, atol=2e-3 * size)


def test_what_is_not_finite_stays_so() -> None:
    assert not product(Operand.of(torch.tensor([[torch.inf, 1.0]])), Operand.of(torch.ones(2, 1))).isfinite().all()


def test_gradients_that_float16_alone_would_lose() -> None:
    """A gradient of 1e-9 is zero in float16, whose least number is 6e-8."""
    torch.manual_seed(0)
    layer, x = nn.Linear(8, 8), torch.randn(4, 8, requires_grad=True)
    with half_linears(least_width=1):
        (1e-9 * layer(x).sum()).backward()
    truth, x_truth = nn.Linear(8, 8), x.detach().clone().requires_grad_()
    truth.load_state_dict(layer.state_dict())
    (1e-9 * truth(x_truth).sum()).backward()
    for ours, theirs in (
        (x.grad, x_truth.grad),
        (layer.weight.grad, truth.weight.grad),
        (layer.bias.grad, truth.bias.grad),
    ):
        assert ours is not None
        assert theirs is not None
        assert float((ours - theirs).norm() / theirs.norm()) < 2e-3


def test_a_model_is_proved_in_exact_products_and_its_noise_is_that_of_half_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scoring, "half_linears", partial(half_linears, least_width=1))
    exact, half = Scorer(build("Qwen2")), Scorer(build("Qwen2"), half=True)
    for scorer in (exact, half):
        assert scorer.prepare(groups(MIXED)) == "packed"
        assert scorer.shares_prompts
    assert exact.noise.per_root_token < 1e-5
    assert 1e-4 < half.noise.per_root_token < 0.1


def test_a_cpu_has_no_units_for_it(tmp_path: Path) -> None:
    setup = set_up(make_config(tmp_path, tmp_path, engine={"dtype": "float16"}))
    with pytest.raises(ConfigError, match="this cpu has no units that multiply float16 numbers"):
        _ = setup.precision
