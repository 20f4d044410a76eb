"""Every objective against arithmetic worked by hand on one pair (two for the batch-coupled).

Pair A: policy −10 and −60, reference −15 and −50 nats, lengths 5 and 20 tokens. So r_w = 5, r_l = −10; at β = 0.1
βr_w = 0.5, βr_l = −1, z = 1.5; a token r_w = 1, r_l = −0.5; mean log-probs −2 and −3, M = 1.

Used below (six digits):  σ(0.5) = 0.622459   σ(1) = 0.731059    σ(1.5) = 0.817574
    −ln σ(0.5) = 0.474077    −ln σ(−0.5) = 0.974077    −ln σ(1) = 0.313262
    −ln σ(1.5) = 0.201413    −ln σ(−1.5) = 1.701413
"""

from __future__ import annotations

import math

import pytest
import torch

from trimtab import objectives
from trimtab.objectives import LogRatios, make

PAIR_A = LogRatios(
    policy_chosen=torch.tensor([-10.0], dtype=torch.float64),
    policy_rejected=torch.tensor([-60.0], dtype=torch.float64),
    reference_chosen=torch.tensor([-15.0], dtype=torch.float64),
    reference_rejected=torch.tensor([-50.0], dtype=torch.float64),
    chosen_lengths=torch.tensor([5]),
    rejected_lengths=torch.tensor([20]),
)

BY_HAND = [
    # −ln σ(1.5)
    ("dpo", {}, 0.201413),
    # 0.9·0.201413 + 0.1·1.701413 = 0.181272 + 0.170141
    ("dpo", {"label_smoothing": 0.1}, 0.351413),
    # z = 1.5 is past m = 1 and 0.5 short of m = 2
    ("dpo_hinge", {}, 0.0),
    ("dpo_hinge", {"margin": 2.0}, 0.5),
    # 1 − 0.622459 + σ(−1) = 0.377541 + 0.268941
    ("apo_zero", {}, 0.646482),
    # 0.622459 + 1 − 0.817574
    ("apo_down", {}, 0.804885),
    # [1 − 0.5] + [1 − 1] and [2 − 0.5] + [2 − 1]
    ("apo_hinge_zero", {}, 0.5),
    ("apo_hinge_zero", {"margin": 2.0}, 2.5),
    # softplus(0.5) + softplus(0) = 0.974077 + 0.693147
    ("apo_hinge_softplus", {}, 1.667224),
    # ½·softplus(1) + ½·softplus(0) = 0.656631 + 0.346574
    ("apo_hinge_softplus", {"temperature": 0.5}, 1.003204),
    # 0.201413 − 0.2
    ("margin_sigmoid", {}, 0.001413),
    # 0.9·0.001413 + 0.1·(1.701413 − 0.2) = 0.001272 + 0.150141
    ("margin_sigmoid", {"label_smoothing": 0.1}, 0.151413),
    # softplus(0.001413) = ln 2 + 0.001413/2
    ("margin_sigmoid", {"temperature": 1.0}, 0.693854),
    # 0.8175745·(−0.2014133 + 0.0010005) + 0.1824255·(−1.7014133 + 6.9077553) = −0.1638524 + 0.9497696
    ("exo_pair", {}, 0.785917),
    # a batch of one: the sort changes nothing, so these are DPO
    ("aot", {}, 0.201413),
    ("aot_unpaired", {"label_smoothing": 0.1}, 0.351413),
    # (1 + 0.5 − 1/0.2)² = 3.5²
    ("ipo", {}, 12.25),
    # (0.9·0.201413 − 0.1·1.701413) / 0.8 = (0.181272 − 0.170141) / 0.8
    ("robust", {}, 0.013913),
    # 0.474077 + ½·0.974077 + ½·0.313262
    ("nca_pair", {}, 1.117746),
    # 0.474077 + 0.313262
    ("bco_pair", {}, 0.787339),
    # (5 − 5)² + (−10 + 5)²
    ("sppo_hard", {}, 25.0),
    # s = σ(30) is 1 to 13 digits, so e^−1.5 is left
    ("discopop", {}, 0.223130),
    # 0.182426·0.201413 + 0.817574·0.223130 = 0.036743 + 0.182425
    ("discopop", {"temperature": 1.0}, 0.219168),
    # 10 nats over 5 tokens
    ("sft", {}, 2.0),
    # −ln σ(0.1·1.5) = ln 2 − 0.075 + ln cosh 0.075 = 0.693147 − 0.075 + 0.002810
    ("sigmoid_norm", {}, 0.620957),
    # −ln σ(2·1 − 0.5)
    ("simpo", {}, 0.201413),
    # M = 1 is past γ = 0.6 and 0.5 short of γ = 1.5
    ("repo", {}, 0.0),
    ("repo", {"gamma": 1.5}, 0.5),
    # the chosen response is above its reference, so nothing is added to DPO
    ("dpop", {}, 0.201413),
    # without scores there is no offset
    ("odpo", {}, 0.201413),
    # without log weights the weight is 1
    ("wpo", {}, 0.201413),
    # ln odds: −2 − ln(1 − e^−2) = −2 + 0.145413 and −3 − ln(1 − e^−3) = −3 + 0.051069; 2 + 0.1·−ln σ(1.094344)
    ("orpo", {}, 2.028875),
    # 2·0.201413 + 0.5·0.646482
    ("dpo:2,apo_zero:0.5", {}, 0.726067),
    # 0.646482 + 0.2·10/5, a batch of one
    ("apo_zero:1,sft:0.2", {}, 1.046482),
    # −ln σ(2·1.5) = ln(1 + 0.049787)
    ("dpo", {"beta": 2.0, "length_normalize": True}, 0.048587),
    # 0.201413 + 0.25·10/5
    ("dpo", {"sft_weight": 0.25}, 0.701413),
    # [1 − 2·1] + [1 − 2·0.5] + 0.1·2: the likelihood is that of the response, normalised once
    ("apo_hinge_zero", {"beta": 2.0, "length_normalize": True, "sft_weight": 0.1}, 0.2),
]


@pytest.mark.parametrize(("name", "parameters", "expected"), BY_HAND)
def test_loss_of_pair_a(name: str, parameters: dict[str, float], expected: float) -> None:
    assert make(name, **parameters).loss(PAIR_A).tolist() == pytest.approx([expected], abs=2e-6)


def test_every_objective_is_worked_by_hand() -> None:
    """Those of single responses in test_objectives_unpaired.py."""
    assert {name for name, _, _ in BY_HAND if ":" not in name} == {
        n for n in objectives.NAMES if not make(n).is_unpaired
    }


def test_odpo_wants_more_of_a_wider_score_gap() -> None:
    """z = 1.5. Score gaps e, 1 and 1/e: offsets α, 0 and −α; at α = 1 softplus(−0.5), softplus(−1.5), softplus(−2.5);
    at α = 0.5 softplus(−1), softplus(−1.5), softplus(−2). softplus(−2.5) = 0.078889, softplus(−2) = 0.126928."""
    sums = [side.repeat(3) for side in (PAIR_A.policy_chosen, PAIR_A.policy_rejected)]
    references = [side.repeat(3) for side in (PAIR_A.reference_chosen, PAIR_A.reference_rejected)]
    lengths = [side.repeat(3) for side in (PAIR_A.chosen_lengths, PAIR_A.rejected_lengths)]
    ratios = LogRatios(*sums, *references, *lengths, score_gaps=torch.tensor([math.e, 1.0, 1 / math.e]))
    assert make("odpo").loss(ratios).tolist() == pytest.approx([0.474077, 0.201413, 0.078889], abs=2e-6)
    assert make("odpo", alpha=0.5).loss(ratios).tolist() == pytest.approx([0.313262, 0.201413, 0.126928], abs=2e-6)
    assert make("odpo", alpha=0).loss(ratios).tolist() == pytest.approx([0.201413] * 3, abs=2e-6)
    assert ratios.per_token().score_gaps is ratios.score_gaps


def test_wpo_weighs_a_pair_by_both_responses() -> None:
    """−ln σ(1.5) = 0.201413, d/dr_w = −β·σ(−1.5) = −0.0182426. Log weights (−0.5, −1.5), (0, 0) and (1, −0.5): weights
    e^−2 = 0.135335, 1 and e^0.5 = 1.648721, which a cap of 1 makes 1."""
    sums = [side.repeat(3).requires_grad_() for side in (PAIR_A.policy_chosen, PAIR_A.policy_rejected)]
    references = [side.repeat(3) for side in (PAIR_A.reference_chosen, PAIR_A.reference_rejected)]
    lengths = [side.repeat(3) for side in (PAIR_A.chosen_lengths, PAIR_A.rejected_lengths)]
    ratios = LogRatios(
        *(*sums, *references, *lengths),
        chosen_log_weights=torch.tensor([-0.5, 0.0, 1.0], requires_grad=True),
        rejected_log_weights=torch.tensor([-1.5, 0.0, -0.5]),
    )
    loss_P = make("wpo").loss(ratios)
    assert loss_P.tolist() == pytest.approx([0.027258, 0.201413, 0.332074], abs=2e-6)
    slopes = torch.autograd.grad(loss_P.sum(), sums)
    assert slopes[0].tolist() == pytest.approx([-0.0024689, -0.0182426, -0.0300769], abs=1e-7)
    assert slopes[1].tolist() == pytest.approx([0.0024689, 0.0182426, 0.0300769], abs=1e-7)
    assert make("wpo", weight_cap=1).loss(ratios).tolist() == pytest.approx([0.027258, 0.201413, 0.201413], abs=2e-6)
    # z = 2·1.5 from log-ratios a token; the weight is of tokens already
    normalised_P = make("wpo", beta=2.0, length_normalize=True).loss(ratios)
    assert normalised_P.tolist() == pytest.approx([0.006576, 0.048587, 0.080107], abs=2e-6)
    mixed_P = make("wpo:1,dpo:0.5").loss(ratios)  # the weight is of its own part alone
    assert mixed_P.tolist() == pytest.approx([0.127965, 0.302120, 0.432781], abs=2e-6)
    assert make("wpo:1,dpo:0.5").needs_log_weights
    assert make("wpo", sft_weight=0.1).needs_log_weights


def test_wpo_makes_no_gradient_of_its_weight() -> None:
    chosen = torch.zeros(1, requires_grad=True)
    zero, count = torch.zeros(1), torch.ones(1)
    ratios = LogRatios(zero, zero, zero, zero, count, count, chosen_log_weights=chosen, rejected_log_weights=2 * chosen)
    assert not make("wpo").loss(ratios).requires_grad


def test_dpop_lifts_a_chosen_response_that_fell() -> None:
    """r_w = −2, r_l = −3, β = 0.1: z = 0.1; with λ = 50 softplus(50·0.2 − 0.1), with λ = 1 softplus(0.2 − 0.1).

    d/dr_w at λ = 1 is −β(1 + λ)·σ(0.1) = −0.2·0.524979, at λ = 0 DPO's −0.1·σ(−0.1) = −0.1·0.475021.
    """
    r_w = torch.tensor([-2.0], dtype=torch.float64, requires_grad=True)
    zero, count = torch.zeros(1, dtype=torch.float64), torch.ones(1)
    ratios = LogRatios(r_w, zero - 3, zero, zero, count, count)
    losses = [make("dpop", penalty=penalty).loss(ratios) for penalty in (50.0, 1.0, 0.0)]
    assert [loss.item() for loss in losses] == pytest.approx([9.900050, 0.744397, 0.644397], abs=2e-6)
    slopes = [torch.autograd.grad(loss, r_w)[0].item() for loss in losses[1:]]
    assert slopes == pytest.approx([-0.1049958, -0.0475021], abs=1e-6)


def test_orpo_of_a_response_that_is_certain() -> None:
    """A mean log-prob of 0 would have infinite odds; it is taken as −1e-6, and gives no NaN and no gradient."""
    leaf = torch.zeros(1, requires_grad=True)
    ratios = LogRatios(leaf, leaf - 3, leaf.detach(), leaf.detach(), torch.ones(1), torch.ones(1))
    loss = make("orpo").loss(ratios)
    assert torch.isfinite(loss).all()
    assert torch.isfinite(torch.autograd.grad(loss, leaf)[0]).all()


# Pair B: policy −30 and −20, reference −10 and −70, lengths 15 and 10: r_w = −20, r_l = 50.
PAIRS_AB = LogRatios(
    policy_chosen=torch.tensor([-10.0, -30.0]),
    policy_rejected=torch.tensor([-60.0, -20.0]),
    reference_chosen=torch.tensor([-15.0, -10.0]),
    reference_rejected=torch.tensor([-50.0, -70.0]),
    chosen_lengths=torch.tensor([5, 15]),
    rejected_lengths=torch.tensor([20, 10]),
)


def test_aot_sorts_policy_and_reference_gaps_apart() -> None:
    """Policy gaps (50, −10) sort to (−10, 50), reference gaps (35, 60) stay: z = −4.5, −1.

    −ln σ(−4.5) = 4.511048 and −ln σ(−1) = 1.313262. Pair by pair z would be 1.5 and −7.
    """
    assert make("aot").loss(PAIRS_AB).tolist() == pytest.approx([4.511048, 1.313262], abs=2e-6)


def test_aot_unpaired_sorts_chosen_and_rejected_apart() -> None:
    """r_w = (5, −20) sorts to (−20, 5), r_l = (−10, 50) stays: z = −1, −4.5."""
    assert make("aot_unpaired").loss(PAIRS_AB).tolist() == pytest.approx([1.313262, 4.511048], abs=2e-6)


def test_sft_averages_over_the_tokens_of_the_batch() -> None:
    """40 nats over 20 tokens is 2; the mean of the pairs' own means would be (10/5 + 30/15)/2 = 2 as well, so pair B
    is given 25 tokens: 40/30 = 1.333333 against (2 + 1.2)/2 = 1.6."""
    longer = LogRatios(**{**PAIRS_AB.__dict__, "chosen_lengths": torch.tensor([5, 25])})
    assert make("sft").loss(longer).mean().item() == pytest.approx(4 / 3, abs=1e-6)


def test_literal_reading_of_eq_11_is_beta_squared() -> None:
    """Eq. 11 with β inside its reward as well: [1 − 0.1·(0.1·5)] + [1 + 0.1·(0.1·(−10))] = 0.95 + 0.9."""
    literal = make("apo_hinge_zero", beta=0.1**2).loss(PAIR_A)
    assert literal.tolist() == pytest.approx([1.85])


STEP_ZERO = [
    ("dpo", {}, math.log(2)),
    ("dpo", {"label_smoothing": 0.3}, math.log(2)),
    ("dpo_hinge", {"margin": 0.7}, 0.7),
    ("apo_zero", {}, 1.0),
    ("apo_down", {}, 1.0),
    ("apo_hinge_zero", {"margin": 0.7}, 1.4),
    ("apo_hinge_softplus", {}, 2.626523),  # 2·ln(1 + e) = 2·1.313262
    ("apo_hinge_softplus", {"temperature": 0.5}, 2.126928),  # 2·½·ln(1 + e²)
    ("margin_sigmoid", {}, 0.493147),  # ln 2 − 0.2
    ("margin_sigmoid", {"label_smoothing": 0.2}, 0.493147),
    ("margin_sigmoid", {"temperature": 0.5}, 0.651630),  # ½·ln(1 + e^0.986294) = ½·ln 3.681281
    ("margin_sigmoid", {"delta_warmup": 1.0}, math.log(2)),  # δ starts at 0
    ("exo_pair", {"label_smoothing": 0.2}, 0.223144),  # −ln 2 − ½·ln(0.2·0.8) = −0.693147 + 0.916291
    ("aot", {}, math.log(2)),
    ("aot_unpaired", {}, math.log(2)),
    ("ipo", {}, 25.0),  # (1/0.2)²
    ("robust", {}, math.log(2)),
    ("nca_pair", {}, 2 * math.log(2)),
    ("bco_pair", {}, 2 * math.log(2)),
    ("sppo_hard", {}, 50.0),  # 5² + 5²
    ("discopop", {}, 0.846574),  # ½·ln 2 + ½
    ("sigmoid_norm", {}, math.log(2)),
    ("apo_hinge_zero", {"length_normalize": True, "ld_alpha": 0.5}, 2.0),
    ("sft", {}, None),
    ("simpo", {}, None),
    ("repo", {}, None),
    ("dpop", {}, math.log(2)),
    ("orpo", {}, None),
    ("odpo", {}, None),
    ("wpo", {}, None),
    ("dpo:2,apo_zero:0.5", {}, 1.886294),  # 2·ln 2 + 0.5
    ("apo_zero:1,sft:0.2", {}, None),
    ("dpo", {"sft_weight": 0.1}, None),
]


@pytest.mark.parametrize(("name", "parameters", "expected"), STEP_ZERO)
def test_step_zero_constant_is_the_loss_at_policy_equal_to_reference(
    name: str, parameters: dict[str, float], expected: float | None
) -> None:
    objective = make(name, **parameters)
    assert objective.step_zero() == (None if expected is None else pytest.approx(expected, abs=1e-6))
    if expected is None:
        return
    logps_P = torch.tensor([-10.0, -31.5, -2.0])
    same = LogRatios(logps_P, 2 * logps_P, logps_P, 2 * logps_P, torch.tensor([3, 9, 1]), torch.tensor([7, 2, 4]))
    assert objective.loss(same).tolist() == pytest.approx([expected] * 3, abs=1e-5)


def test_every_objective_has_a_step_zero_case() -> None:
    assert {name for name, _, _ in STEP_ZERO if ":" not in name} == {
        n for n in objectives.NAMES if not make(n).is_unpaired
    }


@pytest.mark.parametrize(
    ("name", "parameters", "chosen", "rejected"),
    [
        ("dpo", {}, 0.5, -1.0),
        ("apo_hinge_zero", {"beta": 0.3}, 1.5, -3.0),
        ("sppo_hard", {}, 0.5, -1.0),
        ("aot", {}, 0.5, -1.0),
        ("sigmoid_norm", {"beta": 5.0}, 5.0, -2.5),
        ("dpo", {"beta": 5.0, "length_normalize": True}, 5.0, -2.5),
        ("dpo", {"sft_weight": 1.0}, 0.5, -1.0),
        ("simpo", {}, -4.0, -6.0),
        ("repo", {}, -2.0, -3.0),
        ("sft", {}, -10.0, -60.0),
        ("orpo", {}, -0.2, -0.3),
        ("sft:0.2,apo_zero:1", {}, 0.5, -1.0),
    ],
)
def test_reward_is_beta_times_r(name: str, parameters: dict[str, float], chosen: float, rejected: float) -> None:
    """r_w = 5, r_l = −10 (a token 1 and −0.5); without a reference r is the policy's own log-prob."""
    objective = make(name, **parameters)
    assert [x.item() for x in objective.rewards(PAIR_A)] == pytest.approx([chosen, rejected])
    assert objective.reward_gap(PAIR_A).item() == pytest.approx(chosen - rejected)


def test_ld_alpha_weights_the_tokens_beyond_the_shorter_response() -> None:
    assert make("dpo", ld_alpha=0.25).token_weights(2, 4) == ((1.0, 1.0), (1.0, 1.0, 0.25, 0.25))
    assert make("dpo", ld_alpha=0.0).token_weights(3, 1) == ((1.0, 0.0, 0.0), (1.0,))
    assert make("dpo").token_weights(2, 3) == ((1.0, 1.0), (1.0, 1.0, 1.0))


def test_delta_warmup_raises_delta_linearly() -> None:
    """δ 0.2 over 2 epochs: 0 at the start, 0.05 after half an epoch, 0.2 from epoch 2 on. z = 1.5: ℓ+ = 0.201413."""
    warming = make("margin_sigmoid", delta=0.2, delta_warmup=2.0)
    losses = [warming.at(epochs).loss(PAIR_A).item() for epochs in (0.0, 0.5, 1.0, 2.0, 3.0)]
    assert losses == pytest.approx([0.201413, 0.151413, 0.101413, 0.001413, 0.001413], abs=2e-6)
    assert warming.at(5.0) == make("margin_sigmoid", delta=0.2)
    assert make("margin_sigmoid", delta_warmup=2.0, sft_weight=0.1).at(1.0) == make(
        "margin_sigmoid", delta=0.1, sft_weight=0.1
    )


def test_only_delta_warmup_depends_on_progress() -> None:
    for name in objectives.NAMES:
        plain = make(name)
        assert plain.at(0.5) is plain
