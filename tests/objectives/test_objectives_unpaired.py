"""Objectives on single responses: arithmetic by hand, TRL 1.16's own numbers, gradients, step zero.

Rows: a good response with r = −10 + 15 = 5 nats and a bad one with r = −60 + 50 = −10, each alone in its row. At β = .1
the rewards are 0.5 and −1. σ(0.5) = 0.622459, σ(1) = 0.731059, σ(0.2) = 0.549834, σ(1.3) = 0.785835.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from trimtab.errors import ConfigError
from trimtab.objectives import LogRatios, Mixture, make
from trimtab.objectives.pull import coefficients, pull

NAMES = ("kto", "apo_zero_unpaired", "apo_hinge_zero_unpaired")
GOLDEN = json.loads((Path(__file__).parent / "golden_kto_trl_1_16.json").read_text(encoding="utf-8"))


def rows(policy: list[float], reference: list[float], labels: list[bool]) -> LogRatios:
    """Single responses of 4 tokens; the side that a row lacks is 0 throughout."""
    good = torch.tensor(labels)
    p, r = (torch.tensor(values, dtype=torch.float64) for values in (policy, reference))
    zero = torch.zeros_like(p)
    lengths = torch.full((len(labels),), 4)
    return LogRatios(
        policy_chosen=torch.where(good, p, zero),
        policy_rejected=torch.where(good, zero, p),
        reference_chosen=torch.where(good, r, zero),
        reference_rejected=torch.where(good, zero, r),
        chosen_lengths=torch.where(good, lengths, 0),
        rejected_lengths=torch.where(good, 0, lengths),
    )


BY_HAND = [
    # 1 − σ(0.5); 1 − σ(1)
    ("apo_zero_unpaired", {}, 0.0, (0.377541, 0.268941)),
    ("apo_zero_unpaired", {"desirable_weight": 2.0, "undesirable_weight": 0.5}, 0.0, (0.755082, 0.134471)),
    # [1 − 0.5]+; [1 − 1]+
    ("apo_hinge_zero_unpaired", {}, 0.0, (0.5, 0.0)),
    ("apo_hinge_zero_unpaired", {"margin": 2.0, "undesirable_weight": 3.0}, 0.0, (1.5, 3.0)),
    # z₀ = 3 nats: 1 − σ(0.5 − 0.3) and 1 − σ(0.3 + 1)
    ("kto", {}, 3.0, (0.450166, 0.214165)),
    # a KL below 0 counts as 0
    ("kto", {}, -3.0, (0.377541, 0.268941)),
]


@pytest.mark.parametrize(("name", "parameters", "kl", "losses"), BY_HAND)
def test_losses_by_hand(name: str, parameters: dict[str, float], kl: float, losses: tuple[float, float]) -> None:
    ratios = rows([-10.0, -60.0], [-15.0, -50.0], [True, False])
    assert make(name, **parameters).with_kl(kl).loss(ratios).tolist() == pytest.approx(losses, abs=1e-6)


def test_a_good_and_a_bad_row_are_the_pair_of_both() -> None:
    """Σ over the two rows of a pair is the paired objective's loss of it."""
    alone = rows([-10.0, -60.0], [-15.0, -50.0], [True, False])
    pair = LogRatios(*(torch.tensor([x]) for x in (-10.0, -60.0, -15.0, -50.0)), torch.tensor([4]), torch.tensor([4]))
    for unpaired, paired in (("apo_zero_unpaired", "apo_zero"), ("apo_hinge_zero_unpaired", "apo_hinge_zero")):
        assert make(unpaired).loss(alone).sum().item() == pytest.approx(make(paired).loss(pair).item(), abs=1e-6)


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: f"{case['objective']}-{case['seeds'][0]}")
def test_losses_are_those_of_trl(case: dict[str, Any]) -> None:
    """Also z₀: the mean over all mismatched rows of TRL's batch, cut off at 0."""
    objective = make(case["objective"], **case["parameters"])
    if objective.needs_kl:
        columns = zip(case["policy_mismatched"], case["reference_mismatched"], strict=True)
        kl = sum(p - r for p, r in columns) / len(case["labels"])
        assert max(0.0, kl) == pytest.approx(case["kl"], abs=1e-5)
        objective = objective.with_kl(kl)
    loss = objective.loss(rows(case["policy"], case["reference"], case["labels"])).mean().item()
    assert loss == pytest.approx(case["loss"], abs=1e-6)


def test_trl_has_a_kl_on_both_sides_of_zero() -> None:
    kls = [case["kl"] for case in GOLDEN["cases"] if "kl" in case]
    assert min(kls) == 0.0
    assert max(kls) > 1.0


@pytest.mark.parametrize("name", NAMES)
def test_gradient_agrees_with_finite_differences(name: str) -> None:
    objective = make(name, desirable_weight=1.3, undesirable_weight=0.6).with_kl(2.0)
    labels, n = [True, False, True, False, False], 5
    generator = torch.Generator().manual_seed(3)
    policy = (12 * torch.randn(n, generator=generator, dtype=torch.float64)).requires_grad_()
    good = torch.tensor(labels)
    zero, lengths = torch.zeros(n, dtype=torch.float64), torch.full((n,), 4)

    def loss(policy: torch.Tensor) -> torch.Tensor:
        sides = torch.where(good, policy, 0.0), torch.where(good, 0.0, policy)
        return objective.loss(
            LogRatios(*sides, zero, zero, torch.where(good, lengths, 0), torch.where(good, 0, lengths))
        )

    assert torch.autograd.gradcheck(loss, (policy,))


@pytest.mark.parametrize("name", NAMES)
def test_a_side_that_is_absent_has_no_coefficient(name: str) -> None:
    slope_R = coefficients(make(name), rows([-10.0, -60.0], [-15.0, -50.0], [True, False]))
    assert slope_R[1] == slope_R[2] == 0  # the rejected side of row 0, the chosen side of row 1
    assert slope_R[0] < 0 <= slope_R[3]


def test_the_hinge_lets_go_of_each_row_at_its_margin() -> None:
    """m/β = 10 nats: r = 10 and more for a good response, −10 and less for a bad one."""
    reference = [-50.0] * 6
    policy = [-40.0, -40.001, -30.0, -60.0, -59.999, -70.0]
    slope_R = coefficients(make("apo_hinge_zero_unpaired"), rows(policy, reference, [True] * 3 + [False] * 3))
    assert (slope_R[0:6:2] != 0).tolist() == [False, True, False]
    assert (slope_R[7:12:2] != 0).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("name", "constant"), [("kto", 0.5), ("apo_zero_unpaired", 0.5), ("apo_hinge_zero_unpaired", 1)]
)
def test_the_step_zero_constant(name: str, constant: float) -> None:
    at_start = rows([-15.0, -50.0, -9.0], [-15.0, -50.0, -9.0], [True, False, False])
    assert make(name).loss(at_start).tolist() == pytest.approx([constant] * 3)
    assert make(name).step_zero() == constant
    assert make(name, desirable_weight=2, undesirable_weight=2).step_zero() == 2 * constant
    assert make(name, desirable_weight=2).step_zero() is None


def test_pull_is_against_the_first_pull_where_the_kl_was_zero() -> None:
    """At the reference and z₀ = 0, σ' = ¼. At z₀ = 20, β = 0.1: σ'(2) = 0.104994, a share of 0.419974."""
    objective = make("kto").with_kl(20.0)
    ratios = rows([-15.0, -50.0], [-15.0, -50.0], [True, False])
    pull_R = pull(objective, ratios, coefficients(objective, ratios))
    assert [pull_R[0].item(), pull_R[3].item()] == pytest.approx([0.419974] * 2, abs=1e-6)


def test_the_kl_is_no_parameter() -> None:
    assert "kl" not in make("kto").with_kl(2.0).parameters()
    assert make("kto", **make("kto", beta=0.3).parameters()) == make("kto", beta=0.3)
    with pytest.raises(ConfigError, match="no objective has a parameter 'kl'"):
        make("kto", kl=1.0)


def test_a_mixture_hands_the_kl_on_and_goes_with_sft() -> None:
    mixture = make("kto:1,sft:0.5")
    assert mixture.needs_kl
    assert mixture.is_unpaired
    ratios = rows([-10.0, -60.0], [-15.0, -50.0], [True, False])
    # sft: 10 nats over the 4 tokens of good responses, here spread over two rows
    expected = make("kto").with_kl(3.0).loss(ratios).mean().item() + 0.5 * 10 / 4
    assert mixture.with_kl(3.0).loss(ratios).mean().item() == pytest.approx(expected)
    assert not isinstance(make("kto", sft_weight=0.1), Mixture)
    assert make("kto", sft_weight=0.1).loss(ratios).isfinite().all()


@pytest.mark.parametrize(
    ("name", "parameters", "words"),
    [
        ("kto:1,dpo:0.5", {}, "some read pairs"),
        ("kto", {"ld_alpha": 0.5}, "no partner"),
        ("kto", {"length_normalize": True}, "KL is of whole responses"),
        ("apo_hinge_zero_unpaired", {"undesirable_weight": 0.0}, "above 0"),
        ("apo_hinge_zero", {"desirable_weight": 2.0}, "belongs to kto, apo_zero_unpaired, apo_hinge_zero_unpaired"),
    ],
)
def test_what_has_no_meaning_is_refused(name: str, parameters: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make(name, **parameters)
    assert words in str(caught.value)


def test_length_normalised_rows_are_finite_on_the_absent_side() -> None:
    ratios = rows([-10.0, -60.0], [-14.0, -50.0], [True, False])
    loss_P = make("apo_hinge_zero_unpaired", length_normalize=True, beta=0.5).loss(ratios)
    assert loss_P.tolist() == pytest.approx([1 - 0.5 * 1.0, max(0.0, 1 - 0.5 * 2.5)])  # 4 and −10 nats over 4 tokens
