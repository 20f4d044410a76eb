"""What holds for every input: invariances, limits, bounds."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab import objectives
from trimtab.errors import ConfigError
from trimtab.objectives import LogRatios, make

NATS = st.floats(-200, 200).map(lambda x: round(x, 3))
PAIRS = st.lists(st.tuples(NATS, NATS, NATS, NATS, st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=6)
FEW = settings(max_examples=40, deadline=None)


def batch(rows: list[tuple[float, float, float, float, int, int]]) -> LogRatios:
    """(policy chosen, rejected, reference chosen, rejected, lengths) a pair."""
    columns = list(zip(*rows, strict=True))
    logps = [torch.tensor(column, dtype=torch.float64) for column in columns[:4]]
    return LogRatios(*logps, *(torch.tensor(column) for column in columns[4:]))


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-7)


@FEW
@given(rows=PAIRS, shift=NATS)
def test_pairwise_objectives_depend_on_the_reward_gap_only(rows, shift) -> None:
    moved = [(a + shift, b + shift, *rest) for a, b, *rest in rows]
    for name in ("dpo", "dpo_hinge", "margin_sigmoid", "exo_pair", "robust", "discopop"):
        close(make(name).loss(batch(moved)), make(name).loss(batch(rows)))


@FEW
@given(rows=PAIRS, shift=NATS)
def test_only_the_log_ratio_counts_where_there_is_a_reference(rows, shift) -> None:
    """Policy and reference of one response moved together: nothing changes."""
    moved = [(a + shift, b, c + shift, d, *lengths) for a, b, c, d, *lengths in rows]
    for name in objectives.NAMES:
        if make(name).needs_reference and name != "aot":  # aot sorts what is shifted here
            close(make(name).loss(batch(moved)), make(name).loss(batch(rows)))


@FEW
@given(rows=PAIRS, other=st.tuples(NATS, NATS))
def test_reference_free_objectives_do_not_read_the_reference(rows, other) -> None:
    moved = [(a, b, *other, *lengths) for a, b, _, _, *lengths in rows]
    for name in objectives.NAMES:
        if not make(name).needs_reference:
            assert torch.equal(make(name).loss(batch(moved)), make(name).loss(batch(rows)))
            assert torch.equal(make(name).rewards(batch(moved))[0], make(name).rewards(batch(rows))[0])


@FEW
@given(rows=PAIRS)
def test_pairs_are_independent_unless_the_objective_says_otherwise(rows) -> None:
    for name in objectives.NAMES:
        objective = make(name)
        alone = torch.cat([objective.loss(batch([row])) for row in rows])
        if not objective.batch_coupled:
            close(objective.loss(batch(rows)), alone)


def test_batch_coupled_objectives_are() -> None:
    rows = [(-10.0, -60.0, -15.0, -50.0, 5, 20), (-30.0, -20.0, -10.0, -70.0, 25, 10)]
    coupled = {name for name in objectives.NAMES if make(name).batch_coupled}
    assert coupled == {"aot", "aot_unpaired", "sft"}
    for name in coupled:
        alone = torch.cat([make(name).loss(batch([row])) for row in rows])
        assert not torch.allclose(make(name).loss(batch(rows)).mean(), alone.mean())


@FEW
@given(rows=PAIRS, margin=st.floats(0.1, 5), beta=st.floats(0.01, 2), tau=st.floats(1e-3, 3))
def test_softplus_bounds_the_hinge_and_meets_it_as_tau_falls(rows, margin, beta, tau) -> None:
    """hinge ≤ softplus ≤ hinge + 2τ ln 2, so the limit τ → 0 is the hinge."""
    hinge = make("apo_hinge_zero", margin=margin, beta=beta).loss(batch(rows))
    soft = make("apo_hinge_softplus", margin=margin, beta=beta, temperature=tau).loss(batch(rows))
    assert (soft >= hinge - 1e-9).all()
    assert (soft <= hinge + 2 * tau * math.log(2) + 1e-9).all()


@FEW
@given(rows=PAIRS, delta=st.floats(0, 0.69), noise=st.floats(0, 0.49))
def test_margin_sigmoid_between_its_limits(rows, delta, noise) -> None:
    """δ = 0 is (conservative) DPO; at ε = 0 it is DPO cut off at δ; its softplus form bounds it within τ ln 2."""
    ratios = batch(rows)
    dpo = make("dpo", label_smoothing=noise).loss(ratios)
    close(make("margin_sigmoid", delta=0, label_smoothing=noise).loss(ratios), dpo)
    cut = make("margin_sigmoid", delta=delta).loss(ratios)
    close(cut, (make("dpo").loss(ratios) - delta).clamp(min=0))
    soft = make("margin_sigmoid", delta=delta, temperature=0.01).loss(ratios)
    assert ((soft >= cut - 1e-9) & (soft <= cut + 0.01 * math.log(2) + 1e-9)).all()


@FEW
@given(rows=PAIRS, scale=st.floats(0.1, 10))
def test_hinges_scale_with_beta_and_margin_together(rows, scale) -> None:
    """m/β alone sets who is active; scaling both only scales the loss."""
    for name in ("dpo_hinge", "apo_hinge_zero"):
        close(
            make(name, beta=0.1 * scale, margin=scale).loss(batch(rows)),
            scale * make(name, beta=0.1, margin=1.0).loss(batch(rows)),
        )


@FEW
@given(rows=PAIRS)
def test_objectives_that_are_one_another(rows) -> None:
    ratios = batch(rows)
    close(make("robust", label_smoothing=0).loss(ratios), make("dpo").loss(ratios))
    close(make("dpo", beta=2, length_normalize=True).loss(ratios), make("sigmoid_norm", beta=2).loss(ratios))
    close(make("repo", gamma=0.5).loss(ratios), make("dpo_hinge", beta=1, margin=0.5).loss(_reference_free(ratios)))
    if len(rows) == 1:
        close(make("aot").loss(ratios), make("dpo").loss(ratios))
        close(make("aot_unpaired").loss(ratios), make("dpo").loss(ratios))


def _reference_free(ratios: LogRatios) -> LogRatios:
    zeros = torch.zeros_like(ratios.policy_chosen)
    return replace(ratios, reference_chosen=zeros, reference_rejected=zeros).per_token()


@FEW
@given(rows=PAIRS, order=st.randoms(use_true_random=False))
def test_aot_unpaired_does_not_know_who_was_whose(rows, order) -> None:
    shuffled = list(rows)
    order.shuffle(shuffled)
    mixed = [(a[0], b[1], a[2], b[3], a[4], b[5]) for a, b in zip(rows, shuffled, strict=True)]
    close(make("aot_unpaired").loss(batch(mixed)), make("aot_unpaired").loss(batch(rows)))


@pytest.mark.parametrize("name", objectives.NAMES)
def test_no_parameter_is_a_dead_knob(name: str) -> None:
    """Every parameter of every objective changes the loss of some pair; so does every modifier that it takes."""
    ratios = batch([(-10.0, -60.0, -15.0, -50.0, 5, 20), (-30.0, -2.0, -28.0, -3.0, 25, 10)])
    log_weights = {"chosen_log_weights": torch.tensor([0.5, -1.0]), "rejected_log_weights": torch.tensor([0.25, 0.0])}
    ratios = replace(ratios, score_gaps=torch.tensor([2.0, 3.0]), **log_weights)
    before = make(name).loss(ratios)
    for key, default in make(name).parameters().items():
        value = 0.3 if default in (None, 0.0) else 0.5 * default
        assert not torch.allclose(make(name, **{key: value}).loss(ratios), before), key
    for modifier in ({"length_normalize": True}, {"sft_weight": 0.5}):
        try:
            objective = make(name, **modifier)
        except ConfigError:
            continue
        assert not torch.allclose(objective.loss(ratios), before), modifier


def test_log_ratios_refuse_what_would_be_noise() -> None:
    row, lengths = torch.zeros(3), torch.ones(3, dtype=torch.int64)
    with pytest.raises(AssertionError, match="fp32 or fp64"):
        LogRatios(row.bfloat16(), row, row, row, lengths, lengths)
    with pytest.raises(AssertionError, match="P differs"):
        LogRatios(row, row, row, row, lengths, lengths[:2])
    with pytest.raises(AssertionError, match=r"is \[P\]"):
        LogRatios(row[None], row, row, row, lengths, lengths)
