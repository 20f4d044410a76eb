"""The choice of one token, against arithmetic done by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.errors import ConfigError
from trimtab.sampling import Choice
from trimtab.sampling.choosing import candidates, inverse_cdf, next_tokens, penalise_repetition
from trimtab.sampling.noise import uniforms

# Five tokens with probabilities .10, .45, .05, .25, .15 (vocabulary order).
SHARES = (0.10, 0.45, 0.05, 0.25, 0.15)
LOGITS = torch.tensor([[math.log(share) for share in SHARES]])
NOTHING_SEEN = torch.zeros(1, 0, dtype=torch.long)


def kept(top_p: float = 1.0, top_k: int | None = None) -> dict[int, float]:
    """Token -> probability after renormalising, for the five tokens above."""
    ids, mass = candidates(LOGITS, top_k=top_k, top_p=top_p)
    tokens = range(5) if ids is None else ids[0].tolist()
    shares = (mass[0] / mass[0].sum()).tolist()
    return {token: share for token, share in zip(tokens, shares, strict=True) if share > 0}


@pytest.mark.parametrize(
    ("top_p", "expected"),
    [
        (0.40, {1: 1.0}),  # .45 alone reaches .40
        (0.46, {1: 0.45 / 0.70, 3: 0.25 / 0.70}),  # .45 does not reach .46, .45 + .25 does
        (0.80, {1: 0.45 / 0.85, 3: 0.25 / 0.85, 4: 0.15 / 0.85}),  # .70 does not, .85 does
        (0.90, {1: 0.45 / 0.95, 3: 0.25 / 0.95, 4: 0.15 / 0.95, 0: 0.10 / 0.95}),
        (1.00, dict(enumerate(SHARES))),
    ],
)
def test_nucleus_is_the_smallest_set_that_reaches_top_p(top_p: float, expected: dict[int, float]) -> None:
    assert kept(top_p=top_p) == pytest.approx(expected, rel=1e-6)


def test_top_k_comes_before_top_p() -> None:
    assert kept(top_k=3) == pytest.approx({1: 0.45 / 0.85, 3: 0.25 / 0.85, 4: 0.15 / 0.85}, rel=1e-6)
    # Of three tokens, .45/.85 = .529 does not reach .6 and .70/.85 does; of five, .45 and .70 would say the same of .6,
    # but .80 falls between .70 (five tokens: a third is needed) and .824 (three tokens: two will do).
    assert kept(top_k=3, top_p=0.8) == pytest.approx({1: 0.45 / 0.70, 3: 0.25 / 0.70}, rel=1e-6)
    assert set(kept(top_p=0.8)) == {1, 3, 4}


def test_nucleus_wider_than_the_first_look_is_exact() -> None:
    """1,000 equal tokens and top_p = .5: 500 of them, found after the first 256 were not enough."""
    _, mass = candidates(torch.zeros(2, 1000), top_k=None, top_p=0.4999)
    assert (mass > 0).sum(-1).tolist() == [500, 500]


def test_inverse_cdf_shares_out_the_unit_interval_in_vocabulary_order() -> None:
    mass = torch.tensor([SHARES], dtype=torch.float64)
    edges = [0.0, 0.0999, 0.1001, 0.5499, 0.5501, 0.5999, 0.6001, 0.8499, 0.8501, 1 - 2**-53]
    drawn = [int(inverse_cdf(mass, uniform_R=torch.tensor([u], dtype=torch.float64))) for u in edges]
    assert drawn == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_a_token_without_mass_is_never_drawn() -> None:
    mass = torch.tensor([[0.0, 0.3, 0.0, 0.7, 0.0]])  # float32, where the largest number below 1 rounds to 1
    drawn = [int(inverse_cdf(mass, uniform_R=torch.tensor([u], dtype=torch.float64))) for u in (0.0, 0.5, 1 - 2**-53)]
    assert drawn == [1, 3, 3]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), n_slots=st.integers(1025, 5000), width=st.sampled_from([0.1, 3.0, 30.0]))
def test_blocks_find_the_slot_that_one_running_sum_finds(seed: int, n_slots: int, width: float) -> None:
    """Up to where a number falls within rounding of an edge: then the neighbour with mass is as good."""
    draw = torch.Generator().manual_seed(seed)
    mass = torch.softmax(width * torch.randn(64, n_slots, generator=draw), -1)
    mass[:, :600] = 0  # a whole block and more without mass
    uniform = torch.rand(64, generator=draw, dtype=torch.float64)
    uniform[0], uniform[1] = 0.0, 1 - 2**-53
    found = inverse_cdf(mass, uniform_R=uniform)
    cdf = mass.double().cumsum(-1)
    cdf /= cdf[:, -1:].clone()
    rows = torch.arange(64)
    assert bool((mass[rows, found] > 0).all())
    above, below = cdf[rows, found], cdf[rows, found] - mass[rows, found].double() / mass.double().sum(-1)
    assert bool(((below - 1e-6 <= uniform) & (uniform <= above + 1e-6)).all())


def test_each_row_has_its_own_temperature() -> None:
    """Odds 1 : 4. At 1/2 the first token holds .04 / .68 = .0588, at 1 it holds .2, and at 0 nothing."""
    logits = torch.tensor([[math.log(0.2), math.log(0.8)]]).repeat(6, 1)
    drawn = next_tokens(
        logits,
        choice=Choice(),
        temperature_R=torch.tensor([0.5, 0.5, 1.0, 1.0, 0.0, 0.0]),
        history_RT=NOTHING_SEEN,
        uniform_R=torch.tensor([0.058, 0.060, 0.199, 0.201, 0.0, 0.9], dtype=torch.float64),
    )
    assert drawn.tolist() == [0, 1, 0, 1, 1, 1]


def test_repetition_penalty_divides_positive_and_multiplies_negative_logits_once() -> None:
    logits = torch.tensor([[2.2, -1.0, 0.5, 0.0]])
    seen = torch.tensor([[0, 1, 1, 0, 3]])
    assert penalise_repetition(logits, history_RT=seen, penalty=1.1)[0].tolist() == pytest.approx([2.0, -1.1, 0.5, 0.0])
    assert logits[0].tolist() == pytest.approx([2.2, -1.0, 0.5, 0.0])


def test_repetition_penalty_can_change_the_greedy_token() -> None:
    logits = torch.tensor([[1.05, 1.0]])
    for seen, token in ((0, 1), (1, 0)):
        chosen = next_tokens(
            logits,
            choice=Choice(repetition_penalty=1.1),
            temperature_R=None,
            history_RT=torch.tensor([[seen]]),
            uniform_R=None,
        )
        assert chosen.tolist() == [token]


def test_temperature_one_half_squares_the_odds() -> None:
    """Logits ln .2, ln .8 at temperature 1/2: .04 : .64, so the first token holds .04 / .68 = .0588."""
    logits = torch.tensor([[math.log(0.2), math.log(0.8)]])
    for u, token in ((0.058, 0), (0.060, 1)):
        drawn = next_tokens(
            logits,
            choice=Choice(),
            temperature_R=torch.tensor([0.5]),
            history_RT=NOTHING_SEEN,
            uniform_R=torch.tensor([u], dtype=torch.float64),
        )
        assert drawn.tolist() == [token]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n_tokens=st.integers(2, 400),
    top_p=st.floats(0.05, 1.0),
    top_k=st.one_of(st.none(), st.integers(1, 500)),
)
def test_candidates_agree_with_transformers(seed: int, n_tokens: int, top_p: float, top_k: int | None) -> None:
    from transformers.generation.logits_process import TopKLogitsWarper, TopPLogitsWarper

    logits = 3 * torch.randn(2, n_tokens, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    none = torch.zeros(2, 0, dtype=torch.long)
    theirs = TopKLogitsWarper(top_k)(none, logits) if top_k else logits
    theirs = TopPLogitsWarper(top_p)(none, theirs) if top_p < 1 else theirs
    ids, mass = candidates(logits, top_k=top_k, top_p=top_p)
    ours = mass if ids is None else torch.zeros(2, n_tokens, dtype=torch.float64).scatter(1, ids, mass)
    torch.testing.assert_close(ours / ours.sum(-1, keepdim=True), theirs.softmax(-1))


@pytest.mark.parametrize(
    "wrong",
    [
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"top_k": 0},
        {"repetition_penalty": 0.0},
    ],
)
def test_settings_out_of_range_are_refused_with_a_remedy(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError) as refusal:
        Choice(**wrong)  # type: ignore[arg-type]  # the point of the test
    assert refusal.value.remedy.startswith(next(iter(wrong)))


def test_noise_is_a_function_of_seed_stream_and_step_alone() -> None:
    whole = uniforms([0, 1, 2], seed=5, n_steps=8)
    assert (uniforms([2, 0], seed=5, n_steps=3) == whole[[2, 0], :3]).all()
    assert (whole != uniforms([0, 1, 2], seed=6, n_steps=8)).all()
    # Pinned, so that the same seed draws the same answers in every release (Philox 4x64-10, key = [5, 2]).
    assert whole[2, :3].tolist() == pytest.approx(
        [0.8467383873429217, 0.7168658391238749, 0.4200268380698404], abs=1e-15
    )


def test_noise_is_uniform() -> None:
    """Mean 1/2 and variance 1/12 within four standard errors, over streams and over steps."""
    rows = uniforms(range(400), seed=0, n_steps=50)
    assert abs(rows.mean() - 0.5) < 4 * math.sqrt(1 / 12 / rows.size)
    assert abs(rows.var() - 1 / 12) < 4 * math.sqrt(1 / 180 / rows.size)
    assert abs(float((rows[:, 0] * rows[:, 1]).mean()) - 0.25) < 4 * math.sqrt(7 / 144 / 400)
