"""WPO's weights through packs, screening, processes and adapters, against logits made whole, one sequence at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from engine_families import build, gradient_gap, gradients, pairs, shared_pairs
from torch import Tensor

from trimtab.engine import evaluation
from trimtab.engine.batch_result import BatchResult
from trimtab.engine.gradient import accumulate
from trimtab.engine.processes import Processes
from trimtab.engine.scoring import Scorer
from trimtab.engine.share import Share
from trimtab.engine.trainable import attach_lora
from trimtab.objectives import Dpo, LogRatios, Mixture, Modified, Objective, Sft, Wpo
from trimtab.records import TokenPair


def _alone(model: Any, prompt: tuple[int, ...], response: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """(log p, ln Σ p²) of every token of one response, from the model's plain forward and all its logits."""
    ids = torch.tensor([prompt + response])
    logps_NV = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float().log_softmax(-1)
    return logps_NV.gather(1, ids[0, len(prompt) :, None])[:, 0], (logps_NV.exp() ** 2).sum(1).log().detach()


def _own(length: int, ranges: Sequence[tuple[int, int]]) -> list[int]:
    return [n for n in range(length) if not any(start <= n < end for start, end in ranges)]


def _truth(model: Any, batch: Sequence[TokenPair], objective: Objective, reference_R: Tensor) -> LogRatios:
    sums, log_weights, lengths = [], [], []
    for pair in batch:
        token_weights = objective.token_weights(*pair.own_lengths)
        sides = ((pair.chosen_ids, pair.chosen_foreign), (pair.rejected_ids, pair.rejected_foreign))
        for weights, (ids, foreign) in zip(token_weights, sides, strict=True):
            logps_N, collisions_N = (x[_own(len(ids), foreign)] for x in _alone(model, pair.prompt_ids, ids))
            sums.append((logps_N * torch.tensor(weights)).sum())
            log_weights.append((logps_N.detach() - collisions_N).mean())
            lengths.append(len(logps_N))
    policy_R, weights_R, lengths_R = torch.stack(sums), torch.stack(log_weights), torch.tensor(lengths)
    return LogRatios(
        *(policy_R[0::2], policy_R[1::2], reference_R[0::2], reference_R[1::2], lengths_R[0::2], lengths_R[1::2]),
        chosen_log_weights=weights_R[0::2],
        rejected_log_weights=weights_R[1::2],
    )


def _reference(batch: Sequence[TokenPair], objective: Objective) -> Tensor:
    with torch.no_grad():
        ratios = _truth(build("Qwen2"), batch, objective, torch.zeros(2 * len(batch)))
    sums_R = torch.stack([ratios.policy_chosen, ratios.policy_rejected], 1).flatten()
    return sums_R + 3 * torch.randn(len(sums_R), generator=torch.Generator().manual_seed(3))


def _compare(result: BatchResult, truth: LogRatios, objective: Objective) -> None:
    ours = result.log_ratios
    for name in ("chosen_log_weights", "rejected_log_weights"):
        torch.testing.assert_close(getattr(ours, name), getattr(truth, name), atol=1e-6, rtol=1e-6)
    spread = truth.chosen_log_weights
    assert spread is not None
    assert float(spread.std()) > 0.2, "weights that differ"
    torch.testing.assert_close(result.loss_P, objective.loss(truth).detach(), atol=2e-5, rtol=1e-5)


BATCHES = {"apart": pairs(9), "shared": shared_pairs()}
OBJECTIVES: list[Objective] = [
    Wpo(),
    Wpo(beta=0.5, weight_cap=0.5),
    Modified(Wpo(), ld_alpha=0.3),
    Modified(Wpo(beta=2.0), length_normalize=True, sft_weight=0.2),
    Mixture(((Wpo(), 1.0), (Sft(), 0.2))),
]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: type(o).__name__ + o.name)
@pytest.mark.parametrize("packed", ["on", "off"])
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("screened", [False, True])
def test_loss_and_gradient_of_any_pack(objective: Objective, packed: Any, batch: str, screened: bool) -> None:
    """Screening is of no use without a dead zone, and still gives the same gradient: all are promoted."""
    batch_pairs = BATCHES[batch]
    reference_R, model = _reference(batch_pairs, objective), build("Qwen2")
    truth = _truth(model, batch_pairs, objective, reference_R)
    objective.loss(truth).mean().backward()
    expected = gradients(model)
    screen_R = torch.arange(2 * len(batch_pairs)) % 3 == 0
    result = accumulate(
        scorer := Scorer(build("Qwen2"), packed=packed),
        batch_pairs,
        objective=objective,
        reference_logps_R=reference_R,
        pack_tokens=64,
        screen_R=screen_R if screened and not objective.batch_coupled else None,
    )
    _compare(result, truth, objective)
    assert gradient_gap(gradients(scorer.model), expected) <= 1e-5
    assert result.active_R[0::2].all()


def test_a_weight_is_no_part_of_the_gradient() -> None:
    """Twice the weight, twice the coefficient: g = −w·β·σ(−z)/P, nothing of ∂w."""
    batch = pairs(3)
    reference_R = _reference(batch, Wpo())
    scorer = Scorer(build("Qwen2"))
    result = accumulate(scorer, batch, objective=Wpo(), reference_logps_R=reference_R, pack_tokens=128)
    plain = accumulate(scorer, batch, objective=Dpo(), reference_logps_R=reference_R, pack_tokens=128)
    ratios = result.log_ratios
    assert ratios.chosen_log_weights is not None
    assert ratios.rejected_log_weights is not None
    weight_R = (ratios.chosen_log_weights + ratios.rejected_log_weights).exp().repeat_interleave(2)
    torch.testing.assert_close(result.coefficients_R, weight_R * plain.coefficients_R, atol=1e-9, rtol=1e-5)
    assert plain.log_ratios.chosen_log_weights is None


def test_an_adapter_whose_head_is_frozen() -> None:
    batch = pairs(6)
    reference_R = _reference(batch, Wpo())
    torch.manual_seed(0)
    model = attach_lora(build("Qwen2"), rank=4, alpha=8.0, dropout=0.0, targets="all-linear")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, 0.1)
    truth = _truth(model, batch, Wpo(), reference_R)
    Wpo().loss(truth).mean().backward()
    expected = gradients(model)
    result = accumulate(Scorer(model), batch, objective=Wpo(), reference_logps_R=reference_R, pack_tokens=64)
    _compare(result, truth, Wpo())
    assert gradient_gap(gradients(model), expected) <= 1e-5


def test_results_of_tools_have_no_part_in_a_weight() -> None:
    batch = [
        replace(pair, chosen_foreign=((1, 3),) if len(pair.chosen_ids) > 3 else ()) for pair in pairs(9, response=12)
    ]
    reference_R, model = _reference(batch, Wpo()), build("Qwen2")
    truth = _truth(model, batch, Wpo(), reference_R)
    result = accumulate(Scorer(model), batch, objective=Wpo(), reference_logps_R=reference_R, pack_tokens=64)
    _compare(result, truth, Wpo())


def test_shares_of_two_processes_make_the_whole() -> None:
    batch = pairs(8)
    reference_R, scorer = _reference(batch, Wpo()), Scorer(build("Qwen2"))
    whole = accumulate(scorer, batch, objective=Wpo(), reference_logps_R=reference_R, pack_tokens=64)
    expected, parts, positions = gradients(scorer.model), [], ((0, 3, 4, 7), (1, 2, 5, 6))
    for rank in (0, 1):
        share = Share(Processes(rank=rank, size=2), positions)
        own_R = share.pick_R(reference_R)
        options: dict[str, Any] = {"reference_logps_R": own_R, "pack_tokens": 64, "share": share}
        parts.append(accumulate(scorer, share.pick(batch), objective=Wpo(), **options))
    joined = Share(Processes(rank=0, size=2), positions).join(parts, batch)
    assert gradient_gap(gradients(scorer.model), expected) <= 2e-6
    for name in ("chosen_log_weights", "rejected_log_weights"):
        torch.testing.assert_close(getattr(joined.log_ratios, name), getattr(whole.log_ratios, name))


def test_held_out_pairs_are_not_weighted() -> None:
    """A policy that makes every response less likely would else look better: there the loss is DPO's."""
    batch = pairs(5)
    ratios = evaluation.log_ratios(_reference(batch, Wpo()), torch.zeros(10), batch)
    torch.testing.assert_close(Wpo().loss(ratios), Dpo().loss(ratios))
