"""The two-phase gradient: coefficients, packs, screening, batch-coupled objectives, what is counted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from engine_families import alone_logps, build, distinct_tokens, gradient_gap, gradients, pairs
from torch import Tensor

from trimtab.engine.batch_result import BatchResult
from trimtab.engine.gradient import accumulate
from trimtab.engine.packing import Group
from trimtab.engine.processes import Processes
from trimtab.engine.response_sums import weighted_sums
from trimtab.engine.scoring import Scorer
from trimtab.engine.share import Share
from trimtab.engine.trainable import attach_lora, reference_mode
from trimtab.errors import ConfigError, NumericsError
from trimtab.objectives import (
    Aot,
    ApoHingeZero,
    ApoZero,
    Dpo,
    LogRatios,
    MarginSigmoid,
    Modified,
    Objective,
    Repo,
    Simpo,
)
from trimtab.records import TokenPair


def _truth(
    model: Any, batch: Sequence[TokenPair], objective: Objective, reference_R: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of each pair and gradient of their mean: one graph, one sequence at a time, no packs and no coefficients."""
    token_logps = alone_logps(model, [Group.of_pair(pair, i) for i, pair in enumerate(batch)])
    weights = [w for p in batch for w in objective.token_weights(len(p.chosen_ids), len(p.rejected_ids))]
    policy_R = torch.stack([(x * torch.tensor(w)).sum() for x, w in zip(token_logps, weights, strict=True)])
    lengths_R = torch.tensor([len(x) for x in token_logps])
    loss_P = objective.loss(
        LogRatios(
            policy_R[0::2], policy_R[1::2], reference_R[0::2], reference_R[1::2], lengths_R[0::2], lengths_R[1::2]
        )
    )
    loss_P.mean().backward()
    return loss_P.detach(), gradients(model)


def _reference(batch: Sequence[TokenPair], objective: Objective, *, noise: float) -> Tensor:
    """Sums of a reference near the policy, so that some hinges are satisfied and others are not."""
    token_logps = alone_logps(build("Qwen2"), [Group.of_pair(pair, i) for i, pair in enumerate(batch)])
    sums = weighted_sums([x.detach() for x in token_logps], batch, objective)
    return sums + noise * torch.randn(len(sums), generator=torch.Generator().manual_seed(3))


def _run(
    batch: Sequence[TokenPair], objective: Objective, reference_R: Tensor | None, **options: Any
) -> tuple[BatchResult, dict[str, Tensor]]:
    scorer = Scorer(build("Qwen2"), packed=options.pop("packed", "on"))
    options = {"pack_tokens": 128} | options
    result = accumulate(scorer, batch, objective=objective, reference_logps_R=reference_R, **options)
    return result, gradients(scorer.model)


HINGE = ApoHingeZero(beta=0.5, margin=1.0)
WAYS = ("live", "screened", "rejected screened", "chosen screened", "at random")


def _screen(way: str, n_pairs: int) -> Tensor | None:
    """Responses to look at first. Whether that is guessed well or badly must not matter."""
    screen_R = torch.zeros(2 * n_pairs, dtype=torch.bool)
    match way:
        case "live":
            return None
        case "screened":
            screen_R[:] = True
        case "rejected screened":
            screen_R[1::2] = True
        case "chosen screened":
            screen_R[0::2] = True
        case "at random":
            screen_R = torch.rand(2 * n_pairs, generator=torch.Generator().manual_seed(7)) < 0.5
    return screen_R


@pytest.mark.parametrize(
    "objective",
    [
        Dpo(),
        ApoZero(),
        HINGE,
        Simpo(),
        Repo(gamma=0.1),
        MarginSigmoid(beta=0.5, delta=0.4),
        Modified(Dpo(), ld_alpha=0.3),
        Modified(HINGE, ld_alpha=0.3),
        Modified(HINGE, length_normalize=True, sft_weight=0.2),
    ],
    ids=lambda o: type(o).__name__ + o.name,
)
@pytest.mark.parametrize("packed", ["on", "off"])
@pytest.mark.parametrize("way", WAYS)
def test_the_gradient_is_that_of_the_mean_loss(objective: Objective, packed: str, way: str) -> None:
    batch = pairs(9)
    reference_R = _reference(batch, objective, noise=3.0)
    loss_P, truth = _truth(build("Qwen2"), batch, objective, reference_R)
    result, grads = _run(batch, objective, reference_R, packed=packed, screen_R=_screen(way, 9))
    torch.testing.assert_close(result.loss_P, loss_P, atol=2e-5, rtol=1e-5)
    assert result.loss == pytest.approx(float(loss_P.mean()), abs=1e-5)
    assert gradient_gap(grads, truth) <= 1e-5


def test_logps_and_coefficients_worked_by_hand() -> None:
    batch = pairs(3)
    reference_R = _reference(batch, Dpo(), noise=2.0)
    result, _ = _run(batch, Dpo(beta=0.3), reference_R)
    truth_R = torch.stack(
        [x.sum() for x in alone_logps(build("Qwen2"), [Group.of_pair(p, i) for i, p in enumerate(batch)])]
    )
    torch.testing.assert_close(result.logps_R, truth_R.detach(), atol=1e-4, rtol=0)
    for p in range(3):
        r_w = float(result.logps_R[2 * p] - reference_R[2 * p])
        r_l = float(result.logps_R[2 * p + 1] - reference_R[2 * p + 1])
        g = -0.3 / (1 + math.exp(0.3 * (r_w - r_l))) / 3  # d/dr_w of −ln σ(β(r_w − r_l)), over P = 3
        assert float(result.coefficients_R[2 * p]) == pytest.approx(g, rel=1e-4)
        assert float(result.coefficients_R[2 * p + 1]) == pytest.approx(-g, rel=1e-4)
        assert float(result.log_ratios.chosen[p]) == pytest.approx(r_w)
    assert result.active_R.all()
    assert (result.skipped_backward, result.skipped_forward, result.promoted) == (0.0, 0.0, 0.0)
    assert result.forward_tokens == distinct_tokens(batch)
    assert result.response_tokens == sum(len(p.chosen_ids) + len(p.rejected_ids) for p in batch)


@pytest.mark.parametrize("pack_tokens", [1, 64, 4096])
def test_packs_do_not_change_the_gradient(pack_tokens: int) -> None:
    batch = pairs(9)
    reference_R = _reference(batch, HINGE, noise=3.0)
    _, truth = _truth(build("Qwen2"), batch, HINGE, reference_R)
    for packed in ("on", "off"):
        _, grads = _run(batch, HINGE, reference_R, pack_tokens=pack_tokens, packed=packed)
        assert gradient_gap(grads, truth) <= 1e-5


def test_the_order_of_pairs_does_not_change_the_gradient() -> None:
    batch = pairs(9)
    reference_R = _reference(batch, HINGE, noise=3.0)
    result, grads = _run(batch, HINGE, reference_R)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(5))
    sides = torch.stack([2 * order, 2 * order + 1], dim=1).flatten()
    other, other_grads = _run([batch[i] for i in order], HINGE, reference_R[sides])
    torch.testing.assert_close(other.loss_P, result.loss_P[order], atol=2e-5, rtol=0)
    assert gradient_gap(other_grads, grads) <= 2e-6


def test_screening_is_the_dense_gradient_with_less_work() -> None:
    batch = pairs(16)
    reference_R = _reference(batch, HINGE, noise=4.0)
    dense, dense_grads = _run(batch, HINGE, reference_R)
    screened, screened_grads = _run(batch, HINGE, reference_R, screen_R=_screen("screened", 16))
    assert torch.equal(screened.active_R, dense.active_R)
    assert 0 < int(screened.active_R.sum()) < 32
    assert gradient_gap(screened_grads, dense_grads) <= 1e-5
    lengths_R = torch.tensor([n for p in batch for n in (len(p.chosen_ids), len(p.rejected_ids))])
    inactive = int(lengths_R[~screened.active_R].sum()) / int(lengths_R.sum())
    assert screened.skipped_backward == pytest.approx(inactive)
    assert dense.skipped_backward < screened.skipped_backward
    assert screened.promoted == pytest.approx(1 - inactive)
    # The second pass holds the active responses and each of their prompts once.
    second = distinct_tokens(batch, screened.active_R.nonzero()[:, 0].tolist())
    assert screened.forward_tokens == distinct_tokens(batch) + second


@pytest.mark.parametrize("pack_tokens", [1, 200, 4096])
@pytest.mark.parametrize("adapter", [False, True])
def test_a_good_forecast_computes_every_token_once_and_prompts_once(pack_tokens: int, adapter: bool) -> None:
    batch = pairs(16)
    reference_R = _reference(batch, HINGE, noise=4.0)

    def run(screen_R: Tensor | None) -> tuple[BatchResult, dict[str, Tensor]]:
        model = build("Qwen2")
        scorer = Scorer(attach_lora(model, rank=4, alpha=8) if adapter else model, packed="on")
        result = accumulate(
            scorer,
            batch,
            objective=HINGE,
            reference_logps_R=reference_R,
            pack_tokens=pack_tokens,
            screen_R=screen_R,
        )
        assert scorer.shares_prompts
        return result, gradients(scorer.model)

    dense, dense_grads = run(None)
    told, told_grads = run(~dense.active_R)
    one_sided = dense.active_R.view(-1, 2).sum(1) == 1
    assert one_sided.any()
    assert torch.equal(told.active_R, dense.active_R)
    torch.testing.assert_close(told.logps_R, dense.logps_R, atol=1e-4, rtol=0)
    assert gradient_gap(told_grads, dense_grads) <= 1e-5
    assert told.promoted == 0.0
    assert told.forward_tokens == distinct_tokens(batch)
    inactive = int(told.lengths_R[~dense.active_R].sum()) / told.response_tokens
    assert told.skipped_backward == pytest.approx(inactive)


def test_a_promoted_response_learns_behind_its_prompt_without_computing_it_again() -> None:
    batch = pairs(9)
    reference_R = _reference(batch, HINGE, noise=0.0)  # everything is active
    dense, dense_grads = _run(batch, HINGE, reference_R)
    result, grads = _run(batch, HINGE, reference_R, screen_R=_screen("rejected screened", 9), pack_tokens=4096)
    assert gradient_gap(grads, dense_grads) <= 1e-5
    rejected = sum(len(pair.rejected_ids) for pair in batch)
    assert result.promoted == pytest.approx(rejected / result.response_tokens)
    assert result.skipped_backward == 0.0
    assert result.forward_tokens == dense.forward_tokens + rejected
    # where the pack has no room for them they come after it, and bring their prompts
    apart, apart_grads = _run(batch, HINGE, reference_R, screen_R=_screen("rejected screened", 9), pack_tokens=1)
    assert gradient_gap(apart_grads, dense_grads) <= 1e-5
    assert apart.forward_tokens == result.forward_tokens + sum(len(pair.prompt_ids) for pair in batch)


def test_held_responses_are_not_computed_and_their_last_sums_stand_in() -> None:
    batch = pairs(16)
    reference_R = _reference(batch, HINGE, noise=4.0)
    dense, dense_grads = _run(batch, HINGE, reference_R)
    last_R = dense.logps_R + 0.125  # what an earlier visit saw
    # only those that are in the dead zone by their last sums may be held
    chosen, rejected = last_R[0::2] - reference_R[0::2], last_R[1::2] - reference_R[1::2]
    dead_R = torch.stack([chosen >= HINGE.reach(), rejected <= -HINGE.reach()], 1).flatten()
    held_R = torch.where(dead_R & ~dense.active_R, last_R, torch.nan)
    result, grads = _run(batch, HINGE, reference_R, stale_sums_R=held_R, screen_R=_screen("screened", 16))
    held = ~held_R.isnan()
    assert 0 < int(held.sum()) < 32
    assert torch.equal(result.stale_R, held)
    assert torch.equal(result.logps_R[held], last_R[held])
    torch.testing.assert_close(result.logps_R[~held], dense.logps_R[~held], atol=1e-4, rtol=0)
    assert gradient_gap(grads, dense_grads) <= 1e-5  # they are dead in truth too
    assert result.skipped_forward == pytest.approx(int(result.lengths_R[held].sum()) / result.response_tokens)
    assert result.forward_tokens < _run(batch, HINGE, reference_R, screen_R=_screen("screened", 16))[0].forward_tokens


@pytest.mark.parametrize("way", WAYS)
def test_all_inactive_gives_zeros_not_none(way: str) -> None:
    batch = pairs(4)
    reference_R = _reference(batch, HINGE, noise=0.0)
    reference_R[0::2] -= 50
    reference_R[1::2] += 50
    scorer = Scorer(build("Qwen2"))
    result = accumulate(
        scorer, batch, objective=HINGE, reference_logps_R=reference_R, pack_tokens=64, screen_R=_screen(way, 4)
    )
    assert result.loss == 0.0
    assert not result.active_R.any()
    assert result.skipped_backward == 1.0
    for parameter in scorer.model.parameters():
        assert parameter.grad is not None
        assert not parameter.grad.any()


def test_gradients_of_shares_add_up() -> None:
    """Two processes with half a batch each: 2 × 4 pairs, divided by 8, are 1 × 8."""
    batch = pairs(8)
    reference_R = _reference(batch, Dpo(), noise=2.0)
    _, whole = _run(batch, Dpo(), reference_R)
    scorer = Scorer(build("Qwen2"))
    for rank in (0, 1):
        share = Share(Processes(rank=rank, size=2), ((0, 3, 4, 7), (1, 2, 5, 6)))
        accumulate(
            scorer,
            share.pick(batch),
            objective=Dpo(),
            reference_logps_R=share.pick_R(reference_R),
            pack_tokens=64,
            share=share,
        )
    assert gradient_gap(gradients(scorer.model), whole) <= 2e-6


@pytest.mark.parametrize("packed", ["on", "off"])
@pytest.mark.parametrize("pack_tokens", [128, 4096])
def test_the_gradient_of_a_batch_coupled_objective(packed: str, pack_tokens: int) -> None:
    batch = pairs(9)
    reference_R = _reference(batch, Aot(), noise=3.0)
    loss_P, truth = _truth(build("Qwen2"), batch, Aot(), reference_R)
    result, grads = _run(batch, Aot(), reference_R, packed=packed, pack_tokens=pack_tokens)
    torch.testing.assert_close(result.loss_P, loss_P, atol=2e-5, rtol=1e-5)
    assert gradient_gap(grads, truth) <= 1e-5


def test_a_batch_coupled_objective_sees_the_whole_batch() -> None:
    seen: list[int] = []

    class Watching(Aot):
        def loss(self, log_ratios: LogRatios) -> Tensor:
            seen.append(len(log_ratios.policy_chosen))
            return super().loss(log_ratios)

    batch = pairs(9)
    _run(batch, Watching(), _reference(batch, Aot(), noise=2.0), pack_tokens=64)
    assert seen == [9]


def test_only_the_adapter_learns_and_the_reference_is_the_base() -> None:
    batch = pairs(6)
    model = attach_lora(build("Qwen2"), rank=4, alpha=8)
    scorer = Scorer(model)
    groups = [Group.of_pair(pair, i) for i, pair in enumerate(batch)]
    with reference_mode(model):
        rows = dict(scorer.by_key(groups, pack_tokens=128))
    reference_R = weighted_sums([rows[key] for key in range(12)], batch, Dpo())
    result = accumulate(scorer, batch, objective=Dpo(), reference_logps_R=reference_R, pack_tokens=128)
    assert result.loss == pytest.approx(math.log(2), abs=1e-6)  # a fresh adapter does nothing
    named = {name: p for name, p in model.named_parameters() if p.grad is not None}
    assert all("lora_" in name for name in named)
    assert any(p.grad.any() for p in named.values())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, 0.1)
    with reference_mode(model):
        again = dict(scorer.by_key(groups, pack_tokens=128))
    assert all(torch.equal(again[key], rows[key]) for key in rows)
    moved = dict(scorer.by_key(groups, pack_tokens=128))
    assert not torch.equal(moved[0], rows[0])


def test_dropout_refuses_what_needs_two_passes() -> None:
    batch = pairs(9)
    scorer = Scorer(attach_lora(build("Qwen2"), rank=4, alpha=8, dropout=0.1))
    for objective, screen_R in ((Dpo(), _screen("at random", 9)), (Aot(), None)):
        with pytest.raises(ConfigError, match="dropout"):
            accumulate(
                scorer,
                batch,
                objective=objective,
                reference_logps_R=torch.zeros(18),
                pack_tokens=64,
                screen_R=screen_R,
            )


@pytest.mark.parametrize("way", ["live", "screened"])
def test_what_is_not_finite_stops_and_names_the_pair(way: str) -> None:
    batch = pairs(4)
    reference_R = _reference(batch, Dpo(), noise=1.0)
    reference_R[5] = float("nan")
    with pytest.raises(NumericsError, match=r"pairs\.jsonl:3") as caught:
        _run(batch, Dpo(), reference_R, screen_R=_screen(way, 4))
    assert "pairs.jsonl:1" not in str(caught.value)
    scorer = Scorer(build("Qwen2"))
    scorer.prepare([Group.of_pair(pair, i) for i, pair in enumerate(batch)])
    with torch.no_grad():
        scorer.model.lm_head.weight[batch[1].chosen_ids[0]] = float("nan")
    with pytest.raises(NumericsError, match="log-probability"):
        accumulate(scorer, batch, objective=Dpo(), reference_logps_R=torch.zeros(8), pack_tokens=64)


def test_packs_are_reported_as_they_are_done() -> None:
    calls: list[int] = []
    batch = pairs(9)
    _run(batch, Dpo(), torch.zeros(18), pack_tokens=64, on_pack=lambda: calls.append(1))
    assert len(calls) > 2


def test_long_responses_learn_behind_their_prompt_too() -> None:
    """Long enough for attention one piece at a time, in blocks of products where the processor has the faster ones."""
    model = build("Qwen2")
    model.config.max_position_embeddings = 1024
    generator = torch.Generator().manual_seed(1)

    def ids(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, 97, (n,), generator=generator).tolist())

    batch = [TokenPair(f"long:{i}", ids(60), ids(90), ids(110)) for i in range(2)]
    scorer = Scorer(model, packed="on")
    sums = {
        key: row.sum()
        for key, row in scorer.by_key([Group.of_pair(p, i) for i, p in enumerate(batch)], pack_tokens=1024)
    }
    reference_R = torch.stack([sums[key] for key in range(4)])  # everything is active

    def run(way: str) -> dict[str, Tensor]:
        model.zero_grad(set_to_none=True)
        accumulate(
            scorer, batch, objective=HINGE, reference_logps_R=reference_R, pack_tokens=1024, screen_R=_screen(way, 2)
        )
        return {name: grad.clone() for name, grad in gradients(model).items()}

    assert gradient_gap(run("rejected screened"), run("live")) <= 1e-5
