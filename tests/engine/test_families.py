"""Packed equals one sequence at a time, family by family: log-probabilities and gradients."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from engine_families import (
    MIXED,
    NOT_PACKED,
    PACKED,
    alone_logps,
    build,
    gradient_gap,
    gradients,
    groups,
    pairs,
    shared_pairs,
)

from trimtab.engine.gradient import accumulate
from trimtab.engine.head import Head
from trimtab.engine.packing import Group, lay_out
from trimtab.engine.response_sums import sum_by_response
from trimtab.engine.scoring import Scorer
from trimtab.engine.trainable import attach_lora, causal_lm_of
from trimtab.objectives import ApoHingeZero
from trimtab.records import TokenPair

SHARED = [Group.of_pair(pair, i) for i, pair in enumerate(shared_pairs())]


def _compare(scorer: Scorer, group_list: Sequence[Group] | None = None) -> tuple[float, float]:
    """Largest gap of a response's sum (nats), and of a gradient (relative), for random coefficients."""
    group_list = groups(MIXED) if group_list is None else group_list
    one = lay_out(group_list)
    coefficients = torch.randn(len(one.spans), generator=torch.Generator().manual_seed(1))

    truth = torch.stack([logps.sum() for logps in alone_logps(causal_lm_of(scorer.model), group_list)])
    truth.backward(coefficients)
    truth_gradients = gradients(scorer.model)

    ours = sum_by_response(one.spans, scorer.logps(one))
    ours.backward(coefficients)
    return float((ours - truth).detach().abs().max()), gradient_gap(gradients(scorer.model), truth_gradients)


@pytest.mark.parametrize("family", PACKED)
def test_packed_equals_one_at_a_time(family: str) -> None:
    scorer = Scorer(build(family), packed="on")
    logps_gap, grad_gap = _compare(scorer)
    assert scorer.layout == "packed"
    assert isinstance(scorer.head, Head)
    assert logps_gap <= 1e-4
    assert grad_gap <= 1e-5


@pytest.mark.parametrize("family", [*PACKED, *NOT_PACKED])
def test_what_pairs_share_is_computed_once_and_right(family: str) -> None:
    scorer = Scorer(build(family))
    logps_gap, grad_gap = _compare(scorer, SHARED)
    one = lay_out(SHARED)
    assert one.n_tokens < 0.4 * sum(group.n_tokens for group in SHARED)
    assert (scorer.layout == "packed") is (family in PACKED)
    assert logps_gap <= 1e-4
    assert grad_gap <= 1e-5


@pytest.mark.parametrize("family", [*PACKED, *NOT_PACKED])
@pytest.mark.parametrize("batch", [pairs(6), shared_pairs()[1:7]], ids=["unlike", "shared"])
def test_screened_gradients_are_those_of_one_at_a_time(family: str, batch: list[TokenPair]) -> None:
    """Live, screened beside a live one, screened alone, promoted: whatever the family does in its attention or head."""
    scorer = Scorer(build(family))
    group_list = [Group.of_pair(pair, i) for i, pair in enumerate(batch)]
    truth_R = torch.stack([x.sum() for x in alone_logps(scorer.model, group_list)])
    active_R = torch.tensor([1, 0, 1, 0, 0, 1, 0, 0, 1, 1, 0, 1]) == 1
    side = torch.tensor([1.0, -1.0]).repeat(6)
    # log-ratios of ∓50 nats on the side's active end: the hinge's coefficient is −β, β or exactly 0, over 6 pairs
    reference_R = truth_R.detach() + torch.where(active_R, 50.0, -50.0) * side
    (truth_R * torch.where(active_R, -0.1 * side / 6, 0.0)).sum().backward()
    truth = gradients(scorer.model)
    result = accumulate(
        scorer,
        batch,
        objective=ApoHingeZero(),
        reference_logps_R=reference_R,
        pack_tokens=150,
        screen_R=torch.tensor([0, 1, 0, 1, 1, 0, 1, 1, 1, 0, 0, 0]) == 1,
    )
    assert torch.equal(result.active_R, active_R)
    if batch[0].id.startswith("pairs"):
        assert result.promoted_R.nonzero()[:, 0].tolist() == [8]
    assert float((result.logps_R - truth_R.detach()).abs().max()) <= 1e-4
    assert gradient_gap(gradients(scorer.model), truth) <= 1e-5
    assert scorer.shares_prompts is (family in PACKED)


@pytest.mark.parametrize("family", NOT_PACKED)
def test_what_cannot_be_packed_falls_back_and_is_right(family: str) -> None:
    scorer = Scorer(build(family))
    logps_gap, grad_gap = _compare(scorer)
    assert scorer.layout == "padded"
    assert scorer.reason
    assert logps_gap <= 1e-4
    assert grad_gap <= 1e-5


@pytest.mark.parametrize("family", ["Qwen2", "Gemma-2", "GPT-2", "Granite"])
def test_padded_equals_one_at_a_time(family: str) -> None:
    logps_gap, grad_gap = _compare(Scorer(build(family), packed="off"))
    assert logps_gap <= 1e-4
    assert grad_gap <= 1e-5


@pytest.mark.parametrize(("family", "dora"), [("Qwen2", False), ("Gemma-3", True), ("GPT-2", False)])
def test_with_an_adapter(family: str, dora: bool) -> None:
    model = attach_lora(build(family), rank=3, alpha=6, dora=dora)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:  # zeros at the start: an adapter that does nothing would prove nothing
                parameter.normal_(0.0, 0.1)
    scorer = Scorer(model, packed="on")
    logps_gap, grad_gap = _compare(scorer)
    assert logps_gap <= 1e-4
    assert grad_gap <= 1e-5


@pytest.mark.parametrize("family", ["Qwen2", "Gemma-2", "GPT-NeoX"])
def test_bfloat16_agrees_within_its_rounding(family: str) -> None:
    scorer = Scorer(build(family, dtype=torch.bfloat16, spread=0.08))
    group_list = groups(MIXED)
    with torch.no_grad():
        ours = scorer.logps(lay_out(group_list))
        truth = torch.cat(alone_logps(scorer.model, group_list))
    assert scorer.layout == "packed"
    assert ours.dtype == torch.float32
    assert (ours - truth).abs().mean() <= 0.02
    assert (ours - truth).abs().max() <= 0.2


def test_a_family_that_ignored_the_window_would_be_seen() -> None:
    """Guards the test itself: sequences are longer than the window, and the window changes the numbers."""
    model, group_list = build("Mistral"), groups(MIXED)
    with torch.no_grad():
        windowed = torch.cat(alone_logps(model, group_list))
        model.config.sliding_window = None
        assert (torch.cat(alone_logps(model, group_list)) - windowed).abs().max() > 0.05
