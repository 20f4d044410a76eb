"""Gradients: against finite differences, exactly zero in dead zones, sound far out."""

from __future__ import annotations

import math

import pytest
import torch

from trimtab import objectives
from trimtab.objectives import LogRatios, Objective, make

EVERY = [(name, {}) for name in objectives.NAMES] + [
    ("dpo", {"label_smoothing": 0.2}),
    ("margin_sigmoid", {"label_smoothing": 0.1}),
    ("margin_sigmoid", {"temperature": 0.3}),
    ("exo_pair", {"label_smoothing": 0.2}),
    ("aot", {"label_smoothing": 0.2}),
    ("discopop", {"temperature": 1.0}),
    ("apo_hinge_softplus", {"temperature": 0.2}),
    ("apo_hinge_zero", {"beta": 2.0, "length_normalize": True}),
    ("apo_hinge_zero", {"sft_weight": 0.3}),
    ("aot", {"length_normalize": True, "beta": 3.0}),
    ("dpop", {"penalty": 2.0}),
    ("apo_hinge_zero:1,dpo:0.3", {}),
    ("dpo:1,sft:0.2", {}),
]


def log_ratios(r_w: torch.Tensor, r_l: torch.Tensor) -> LogRatios:
    """Pairs with these log-ratios over a reference of −20 and −30 nats, 4 and 6 tokens."""
    zeros = torch.zeros_like(r_w)
    count = torch.ones(r_w.shape, dtype=torch.int64)
    return LogRatios(r_w - 20, r_l - 30, zeros - 20, zeros - 30, 4 * count, 6 * count)


def coefficients(objective: Objective, r_w: list[float], r_l: list[float], **kwargs: torch.dtype) -> torch.Tensor:
    """d(sum of losses)/d(logps), [2, P]: chosen, then rejected."""
    leaves = torch.tensor([r_w, r_l], requires_grad=True, **kwargs)
    loss_P = objective.loss(log_ratios(leaves[0], leaves[1]))
    assert torch.isfinite(loss_P).all()
    (gradient,) = torch.autograd.grad(loss_P.sum(), leaves)
    return gradient


@pytest.mark.parametrize(("name", "parameters"), EVERY)
def test_gradient_agrees_with_finite_differences(name: str, parameters: dict[str, float]) -> None:
    objective = make(name, **parameters)
    generator = torch.Generator().manual_seed(7)
    r_w, r_l = (12 * torch.randn(2, 9, generator=generator, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda chosen, rejected: objective.loss(log_ratios(chosen, rejected)),
        (r_w.detach().requires_grad_(), r_l.detach().requires_grad_()),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("name", "parameters"), EVERY)
def test_finite_far_out(name: str, parameters: dict[str, float], dtype: torch.dtype) -> None:
    """βr up to ±10⁴: loss and gradient stay finite, in both directions."""
    objective = make(name, **parameters)
    far = 1e4 / objective.beta * (6 if objective.per_token else 1)
    r_w = [far, -far, 0.0, far, -far, 1.0]
    r_l = [-far, far, far, far, -far, -far]
    assert torch.isfinite(coefficients(objective, r_w, r_l, dtype=dtype)).all()


def edge(delta: float) -> float:
    return -math.log(math.expm1(delta))


# name, parameters, log-ratios (r_w, r_l) just inside the zone and just outside, and which sides are dead inside
ZONES = [
    ("dpo_hinge", {}, (6.0, -4.001), (6.0, -3.999), (True, True)),
    ("dpo_hinge", {"beta": 0.5, "margin": 2.0}, (4.001, 0.0), (3.999, 0.0), (True, True)),
    ("apo_hinge_zero", {}, (10.001, 0.0), (9.999, 0.0), (True, False)),
    ("apo_hinge_zero", {}, (0.0, -10.001), (0.0, -9.999), (False, True)),
    ("apo_hinge_zero", {"beta": 0.2, "margin": 3.0}, (15.001, -15.001), (14.999, -14.999), (True, True)),
    ("margin_sigmoid", {}, (edge(0.2) / 0.1 + 0.001, 0.0), (edge(0.2) / 0.1 - 0.001, 0.0), (True, True)),
    ("margin_sigmoid", {"delta": 0.5}, (0.0, -4.33), (0.0, -4.32), (True, True)),  # z* = −ln(e^0.5 − 1) = 0.4327
    # M = (r_w − 20)/4 − (r_l − 30)/6 = r_w/4 − r_l/6, and γ = 0.6
    ("repo", {}, (2.401, 0.0), (2.399, 0.0), (True, True)),
    ("repo", {}, (0.0, -3.601), (0.0, -3.599), (True, True)),
    ("apo_hinge_zero_unpaired", {}, (10.001, -9.0), (9.999, -9.0), (True, False)),
    # a token: r_w/4 ≥ m/β = 0.5
    ("apo_hinge_zero", {"beta": 2.0, "length_normalize": True}, (2.001, 0.0), (1.999, 0.0), (True, False)),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("name", "parameters", "inside", "outside", "dead"), ZONES)
def test_gradient_is_exactly_zero_inside_the_dead_zone_and_not_outside(
    name: str,
    parameters: dict[str, float],
    inside: tuple[float, float],
    outside: tuple[float, float],
    dead: tuple[bool, bool],
    dtype: torch.dtype,
) -> None:
    objective = make(name, **parameters)
    assert objective.has_dead_zone
    within = coefficients(objective, [inside[0]], [inside[1]], dtype=dtype).flatten()
    beyond = coefficients(objective, [outside[0]], [outside[1]], dtype=dtype).flatten()
    assert (within == 0).tolist() == list(dead)
    assert (beyond != 0).all()


def test_the_edge_of_a_hinge_is_dead() -> None:
    """relu'(0) = 0: at r_w = m/β exactly (2 nats at β = 0.5, m = 1, no rounding) nothing is left."""
    objective = make("apo_hinge_zero", beta=0.5, margin=1.0)
    assert coefficients(objective, [2.0], [-2.0]).abs().sum() == 0
    assert coefficients(make("dpo_hinge", beta=0.5), [1.0], [-1.0]).abs().sum() == 0


def test_every_zone_that_is_claimed_is_tested() -> None:
    assert {name for name, *_ in ZONES} == {name for name in objectives.NAMES if make(name).has_dead_zone}


@pytest.mark.parametrize(("name", "parameters"), [(n, p) for n, p in EVERY if not make(n, **p).has_dead_zone])
def test_no_dead_zone_means_no_exact_zero(name: str, parameters: dict[str, float]) -> None:
    """On a grid that misses the isolated zeros of objectives with targets, both sides keep a gradient."""
    objective = make(name, **parameters)
    grid = [-83.0, -31.0, -9.5, -0.3, 0.7, 11.3, 37.0, 90.0]
    if name == "orpo":  # which takes probabilities, and none above 1
        grid = [value for value in grid if value < 20]
    r_w, r_l = [a for a in grid for _ in grid], [b for _ in grid for b in grid]
    gradient = coefficients(objective, r_w, r_l, dtype=torch.float64)
    assert (gradient[0] != 0).all()
    assert (gradient[1] != 0).all() or name == "sft"


def test_margin_sigmoid_is_dpo_times_an_indicator() -> None:
    """At ε = 0: DPO's gradient where z < z*, nothing elsewhere (compare RePO++, arXiv 2503.07426 §3.4)."""
    r_w = torch.linspace(-60, 60, 121).tolist()
    r_l = torch.linspace(25, -25, 121).tolist()
    dpo = coefficients(make("dpo"), r_w, r_l)
    active = torch.tensor([0.1 * (a - b) < edge(0.2) for a, b in zip(r_w, r_l, strict=True)])
    assert 10 < active.sum() < 111
    assert torch.equal(coefficients(make("margin_sigmoid", delta=0.2), r_w, r_l), dpo * active)


def test_margin_sigmoid_with_smoothing_pulls_back_to_the_edge() -> None:
    """Past z* only the reverse term is left; before it the smoothed DPO gradient is. ε = 0.1, δ = 0.2: z* = 1.508."""
    objective = make("margin_sigmoid", label_smoothing=0.1)
    gradient = coefficients(objective, [15.0, 15.2], [0.0, 0.0])[0]
    assert gradient[0] < 0 < gradient[1]
    # ε·β·σ(1.52) = 0.1·0.1·0.820538
    assert gradient[1].item() == pytest.approx(0.00820538, rel=1e-5)


def test_one_sided_saturation() -> None:
    """A pair whose chosen response is past its hinge and whose rejected one is not keeps exactly −0 and +β."""
    gradient = coefficients(make("apo_hinge_zero"), [40.0], [3.0])
    assert gradient[0].item() == 0.0
    assert gradient[1].item() == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("name", "parameters", "expected"),
    [
        ("dpo", {}, 0.05),  # β·σ(0)
        ("dpo_hinge", {}, 0.1),  # β
        ("apo_zero", {}, 0.025),  # β·σ(0)·σ(0)
        ("apo_hinge_zero", {}, 0.1),  # β
        ("apo_hinge_softplus", {}, 0.0731059),  # β·σ(1)
        ("apo_hinge_softplus", {"beta": 0.3}, 0.219318),  # 0.3·σ(1)
        ("margin_sigmoid", {}, 0.05),
    ],
)
def test_gradient_at_the_start(name: str, parameters: dict[str, float], expected: float) -> None:
    """Equal learning rates are not equal steps: the first gradients differ eight-fold between objectives."""
    gradient = coefficients(make(name, **parameters), [0.0], [0.0])
    assert gradient.flatten().tolist() == pytest.approx([-expected, expected], rel=1e-5)


@pytest.mark.parametrize(
    ("name", "misranked", "both_fell"),
    [
        ("dpo", (-0.0999994, 0.0999994), (-0.00179862, 0.00179862)),  # β·σ(12), β·σ(−4)
        ("dpo_hinge", (-0.1, 0.1), (0.0, 0.0)),  # z = 4 ≥ 1
        ("apo_zero", (-0.000246651, 0.000246651), (-0.0104994, 0.000246651)),  # β·σ(6)·σ(−6), β·σ(2)·σ(−2)
        ("apo_hinge_zero", (-0.1, 0.1), (-0.1, 0.0)),
    ],
)
def test_badly_ranked_and_fallen_pairs(
    name: str, misranked: tuple[float, float], both_fell: tuple[float, float]
) -> None:
    """(r_w, r_l) = (−60, 60) and (−20, −60) at β = 0.1, the figures of docs/objectives.md."""
    gradient = coefficients(make(name), [-60.0, -20.0], [60.0, -60.0], dtype=torch.float64)
    assert gradient.T.tolist() == [pytest.approx(misranked, rel=1e-5), pytest.approx(both_fell, rel=1e-5)]


def test_discopop_starts_in_the_wrong_direction() -> None:
    """At z = 0, τ = 0.05: d/dz = −½·½ − ¼·20·ln 2 − ½ + ¼·20 = 0.784264 > 0, times β."""
    assert coefficients(make("discopop"), [0.0], [0.0])[0].item() == pytest.approx(0.0784264, rel=1e-5)


def test_badly_ranked_responses_stay_active_under_apo_zero() -> None:
    """βr_l = 30: y·(1 − y) of a sigmoid rounds to 0 in fp32; the true gradient is β·e^−30."""
    gradient = coefficients(make("apo_zero"), [-300.0], [300.0], dtype=torch.float32)
    assert gradient.flatten().tolist() == pytest.approx([-0.1 * math.exp(-30), 0.1 * math.exp(-30)], rel=1e-4, abs=0)


def test_modifier_closes_the_dead_zone_on_the_chosen_side_only() -> None:
    """Both sides past their hinges; sft_weight 0.2 leaves −0.2/4 a nat of the chosen response."""
    gradient = coefficients(make("apo_hinge_zero", sft_weight=0.2), [50.0], [-50.0])
    assert gradient.flatten().tolist() == pytest.approx([-0.05, 0.0])
    assert gradient[1].item() == 0.0
