"""What pairs share is computed once, and changes nothing: any batch, any ways, any budget, against each pair alone."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from engine_families import alone_logps, build, distinct_tokens, gradient_gap, gradients, shared_pairs, tokens
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trimtab.engine import scoring
from trimtab.engine.batch_result import BatchResult
from trimtab.engine.flex import Flex
from trimtab.engine.gradient import accumulate
from trimtab.engine.packing import Group, lay_out, pack_groups
from trimtab.engine.response_sums import weighted_sums
from trimtab.engine.scoring import Scorer
from trimtab.objectives import Aot, ApoHingeZero, Dpo, LogRatios, Modified, Objective
from trimtab.records import TokenPair

HINGE = ApoHingeZero(beta=0.5, margin=1.0)
OBJECTIVES = (Dpo(), HINGE, Modified(HINGE, ld_alpha=0.3), Modified(Dpo(), ld_alpha=0.3), Aot())


@st.composite
def batches(draw: st.DrawFn) -> list[TokenPair]:
    """Pairs of few prompts and few texts: whole texts, or their beginnings, come again and again."""
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    system, texts = tokens(rng, 20), [tokens(rng, int(rng.integers(2, 12))) for _ in range(4)]
    parts = st.lists(st.sampled_from(texts), min_size=1, max_size=3).map(
        lambda of: tuple(token for t in of for token in t)
    )
    prompts = draw(
        st.lists(
            st.builds(lambda head, rest: head + rest, st.sampled_from([(), system]), parts), min_size=1, max_size=3
        )
    )
    n = draw(st.integers(1, 8))
    return [TokenPair(f"{i}", draw(st.sampled_from(prompts)), draw(parts), draw(parts)) for i in range(n)]


@cache
def _scorer(family: str, dtype: torch.dtype = torch.float32, packed: Any = "auto") -> tuple[Any, Scorer]:
    model = build(family, dtype=dtype)
    return model, Scorer(model, packed=packed)


def _groups(batch: Sequence[TokenPair]) -> list[Group]:
    return [Group.of_pair(pair, i) for i, pair in enumerate(batch)]


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize(
    ("family", "short", "gap"),
    [("GPT-2", 112, 1e-9), ("GPT-2", 0, 1e-9), ("GPT-NeoX", 30, 1e-9), ("Mistral", 0, 1e-6), ("Gemma-3", 30, 1e-6)],
)
@settings(max_examples=5, deadline=None, derandomize=True)
@given(batch=batches(), budget=st.sampled_from([1, 60, 4096]))
def test_double_precision(family: str, short: int, gap: float, batch: list[TokenPair], budget: int) -> None:
    """Gradient of random coefficients in float64: packs against one sequence at a time, to 1e-9 of its length. Past the
    head's own single precision: from the hidden states on in plain torch. The last two families, which have windows,
    compute their norms in single precision."""
    model, scorer = _scorer(family, torch.float64)
    group_list = _groups(batch)
    scorer.prepare(group_list)
    coefficients = torch.randn(2 * len(batch), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weight = model.get_output_embeddings().weight

    def total(hidden_NH: Tensor, targets_N: Tensor) -> Tensor:
        return (hidden_NH @ weight.T).log_softmax(-1).gather(1, targets_N[:, None])[:, 0]

    for group in group_list:
        for key, response in zip(group.keys, group.responses, strict=True):
            ids = torch.tensor(group.prompt_ids + response)
            hidden_LH = model.base_model(input_ids=ids[None], use_cache=False).last_hidden_state[0]
            n = len(group.prompt_ids)
            (coefficients[key] * total(hidden_LH[n - 1 : -1], ids[n:]).sum()).backward()
    truth = gradients(model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trimtab.engine.segmentwise.SHORT", short)
        for pack in pack_groups(group_list, budget_tokens=budget):
            states = scorer.states(pack)
            logps_N = total(states.hidden_NH, states.targets_N)
            sum(coefficients[span.key] * logps_N[list(span.rows)].sum() for span in pack.spans).backward()
    assert scorer.layout == "packed"
    assert gradient_gap(gradients(model), truth) <= gap


def _truth(model: Any, batch: Sequence[TokenPair], objective: Objective, reference_R: Tensor) -> dict[str, Tensor]:
    """Gradient of the mean loss: one graph, one sequence at a time."""
    weights = [w for p in batch for w in objective.token_weights(len(p.chosen_ids), len(p.rejected_ids))]
    rows = zip(alone_logps(model, _groups(batch)), weights, strict=True)
    policy_R = torch.stack([(logps * torch.tensor(w)).sum() for logps, w in rows])
    lengths_R = torch.tensor([len(ids) for p in batch for ids in (p.chosen_ids, p.rejected_ids)])
    sides = (policy_R[0::2], policy_R[1::2], reference_R[0::2], reference_R[1::2], lengths_R[0::2], lengths_R[1::2])
    objective.loss(LogRatios(*sides)).mean().backward()
    return gradients(model)


def _reference(model: Any, batch: Sequence[TokenPair], objective: Objective) -> Tensor:
    """Equal responses have equal sums; pairs stand on both sides of a hinge."""
    with torch.no_grad():
        sums_R = weighted_sums(alone_logps(model, _groups(batch)), batch, objective)
    texts = [(p.prompt_ids, ids) for p in batch for ids in (p.chosen_ids, p.rejected_ids)]
    noise = {text: 3.0 * math.sin(7.0 * n + 1) for n, text in enumerate(dict.fromkeys(texts))}
    return sums_R + torch.tensor([noise[text] for text in texts])


@pytest.mark.parametrize("packed", ["on", "off"])
@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    batch=batches(),
    objective=st.sampled_from(OBJECTIVES),
    budget=st.sampled_from([1, 60, 4096]),
    bits=st.integers(0, 2**16 - 1),
    unit_rows=st.sampled_from([4, 4096]),
)
def test_any_batch_in_any_way(
    packed: Any, batch: list[TokenPair], objective: Objective, budget: int, bits: int, unit_rows: int
) -> None:
    model, scorer = _scorer("Qwen2", packed=packed)
    reference_R = _reference(model, batch, objective)
    truth = _truth(model, batch, objective, reference_R)
    scorer.prepare(_groups(batch))
    scorer.passes = dataclasses.replace(scorer.passes, head=dataclasses.replace(scorer.head, rows_kept=unit_rows))
    screen_R = torch.tensor([bool(bits >> r & 1) for r in range(2 * len(batch))])
    result = accumulate(
        scorer,
        batch,
        objective=objective,
        reference_logps_R=reference_R,
        pack_tokens=budget,
        screen_R=None if objective.batch_coupled else screen_R,
    )
    assert result.loss_P.isfinite().all()
    # where a pair prefers a response to itself its two sides cancel, and what is left of the truth is rounding
    scale = max(1.0, float(torch.stack([gradient.norm() for gradient in truth.values()]).norm()))
    ours = gradients(model)
    assert max(float((ours[name] - gradient).norm()) for name, gradient in truth.items()) <= 1e-5 * scale
    # of equal responses either all are live, or all are looked at first
    assert torch.equal(result.screened_R, result.screened_R[result.first_R])


def _run(batch: Sequence[TokenPair], **options: Any) -> tuple[BatchResult, dict[str, Tensor]]:
    model = build("Qwen2")
    reference_R = _reference(model, batch, HINGE)
    scorer = Scorer(model, packed=options.pop("packed", "on"))
    options = {"pack_tokens": 4096, "reference_logps_R": reference_R} | options
    return accumulate(scorer, batch, objective=HINGE, **options), gradients(model)


def test_six_pairs_of_four_completions_are_one_prompt_and_four_responses() -> None:
    batch = shared_pairs()[:6]
    result, _ = _run(batch)
    prompt, texts = batch[0].prompt_ids, {ids for p in batch for ids in (p.chosen_ids, p.rejected_ids)}
    opening = 5  # that two of them share
    assert len(texts) == 4
    assert result.forward_tokens == len(prompt) + sum(map(len, texts)) - opening == distinct_tokens(batch)
    padded, _ = _run(batch, packed="off")
    assert padded.forward_tokens == 4 * (len(prompt) + max(map(len, texts)))


def test_a_response_is_inactive_only_if_it_is_so_in_all_its_pairs() -> None:
    """Three responses of 8, 6 and 4 tokens, two pairs: the one of 8 is active in the second alone, and screened in the
    first alone. It is live in both, once, and of 18 distinct tokens the 4 that are inactive take no gradient."""
    rng = np.random.default_rng(0)
    prompt, a, b, c = tokens(rng, 20), tokens(rng, 8), tokens(rng, 6), tokens(rng, 4)
    batch = [TokenPair("1", prompt, a, b), TokenPair("2", prompt, a, c)]
    model = build("Qwen2")
    sums_R = torch.stack([x.detach().sum() for x in alone_logps(model, _groups(batch))])
    reference_R = sums_R + torch.tensor([-50.0, -50.0, 50.0, 50.0])  # inactive, active; active, inactive
    result, grads = _run(batch, reference_logps_R=reference_R, screen_R=torch.tensor([True, False, False, True]))
    assert result.active_R.tolist() == [False, True, True, False]
    assert result.screened_R.tolist() == [False, False, False, True]
    assert result.forward_tokens == 20 + 18
    assert result.skipped_backward == pytest.approx(4 / 18)
    assert gradient_gap(grads, _truth(build("Qwen2"), batch, HINGE, reference_R)) <= 1e-5


def test_screened_pairs_stand_behind_a_prompt_that_is_there() -> None:
    """One pair of six is live: all others find their prompt in its pack, though none of their responses is live."""
    batch = shared_pairs()[:6]
    dense, dense_grads = _run(batch)
    screen_R = torch.ones(12, dtype=torch.bool)
    screen_R[:2] = False
    result, grads = _run(batch, screen_R=screen_R)
    assert gradient_gap(grads, dense_grads) <= 1e-5
    again = distinct_tokens(batch, result.promoted_R.nonzero()[:, 0].tolist())
    assert dense.forward_tokens <= result.forward_tokens <= dense.forward_tokens + again


def test_held_only_if_held_in_all_its_pairs() -> None:
    batch = shared_pairs()[:3]  # a b, c a, a d
    dense, _ = _run(batch)
    stale_R = torch.full((6,), math.nan)
    stale_R[0] = dense.logps_R[0] + 1.0  # a, in the first pair alone
    result, _ = _run(batch, stale_sums_R=stale_R)
    assert not result.stale_R.any()
    torch.testing.assert_close(result.logps_R, dense.logps_R, atol=1e-4, rtol=0)


def test_scores_of_equal_responses_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = shared_pairs()
    computed: list[int] = []

    def counting(*arguments: Any, **options: Any) -> Any:
        packs = pack_groups(*arguments, **options)
        computed.append(sum(pack.n_tokens for pack in packs))
        return packs

    monkeypatch.setattr(scoring, "pack_groups", counting)
    scorer = Scorer(build("Qwen2"), packed="on")
    rows = dict(scorer.by_key(_groups(batch), pack_tokens=4096))
    for row, alone in zip((rows[key] for key in range(20)), alone_logps(scorer.model, _groups(batch)), strict=True):
        torch.testing.assert_close(row, alone.detach(), atol=2e-5, rtol=0)
    assert computed == [lay_out(_groups(batch)).n_tokens]


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@torch.no_grad()
def test_flex_attention_on_a_whole_model() -> None:
    scorer = Scorer(build("Qwen2"), packed="on")
    pack = lay_out(_groups(shared_pairs()))
    plain_N = scorer.logps(pack)
    scorer.passes = dataclasses.replace(scorer.passes, ways=(Flex(),))
    torch.testing.assert_close(scorer.logps(pack), plain_N, atol=2e-5, rtol=0)
