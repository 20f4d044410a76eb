"""Tokens in a response that the assistant did not write (results of tools) are read, and neither scored nor learnt."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from engine_families import alone_logps, build, gradient_gap, gradients, pairs
from torch import Tensor

from trimtab.engine.gradient import accumulate
from trimtab.engine.packing import Group
from trimtab.engine.response_sums import weighted_sums
from trimtab.engine.scoring import Scorer
from trimtab.objectives import ApoHingeZero, ApoZero, Dpo, LogRatios, Modified, Objective, Simpo
from trimtab.objectives.batchwise import Sft
from trimtab.records import TokenPair


def with_results(batch: list[TokenPair]) -> list[TokenPair]:
    """The second and third token of every chosen response, and the last but one of every other rejected one, are a
    tool's; where a response is that long."""
    return [
        replace(
            pair,
            chosen_foreign=((1, 3),) if len(pair.chosen_ids) > 3 else (),
            rejected_foreign=((len(pair.rejected_ids) - 2, len(pair.rejected_ids) - 1),)
            if number % 2 and len(pair.rejected_ids) > 2
            else (),
        )
        for number, pair in enumerate(batch)
    ]


def own(logps_N: Tensor, ranges: tuple[tuple[int, int], ...]) -> Tensor:
    """The entries outside the ranges, one by one."""
    places = [n for n in range(len(logps_N)) if not any(start <= n < end for start, end in ranges)]
    return logps_N[places]


@pytest.mark.parametrize(
    "objective",
    [
        Dpo(),
        ApoZero(),
        ApoHingeZero(beta=0.5, margin=1.0),
        Simpo(),
        Sft(),
        Modified(Dpo(), ld_alpha=0.3),
        Modified(ApoZero(), length_normalize=True),
    ],
    ids=lambda o: type(o).__name__ + o.name,
)
@pytest.mark.parametrize("screened", [False, True])
def test_loss_and_gradient_are_of_the_assistants_own_tokens(objective: Objective, screened: bool) -> None:
    batch = with_results(pairs(9))
    assert sum(bool(pair.chosen_foreign) for pair in batch) > 3
    model = build("Qwen2")
    token_logps = alone_logps(model, [Group.of_pair(pair, i) for i, pair in enumerate(batch)])
    ranges = [of for pair in batch for of in (pair.chosen_foreign, pair.rejected_foreign)]
    rows = [own(row, of) for row, of in zip(token_logps, ranges, strict=True)]
    lengths_R = torch.tensor([len(row) for row in rows])
    sides = [objective.token_weights(len(a), len(b)) for a, b in zip(rows[0::2], rows[1::2], strict=True)]
    weights = [weight for pair in sides for weight in pair]
    policy_R = torch.stack([(row * torch.tensor(w)).sum() for row, w in zip(rows, weights, strict=True)])
    reference_R = policy_R.detach() + 3 * torch.randn(len(rows), generator=torch.Generator().manual_seed(3))
    ratios = LogRatios(
        policy_R[0::2], policy_R[1::2], reference_R[0::2], reference_R[1::2], lengths_R[0::2], lengths_R[1::2]
    )
    loss_P = objective.loss(ratios)
    loss_P.mean().backward()
    truth = gradients(model)

    scorer = Scorer(build("Qwen2"), packed="on")
    screen_R = torch.ones(2 * len(batch), dtype=torch.bool) if screened and not objective.batch_coupled else None
    result = accumulate(
        scorer, batch, objective=objective, reference_logps_R=reference_R, pack_tokens=128, screen_R=screen_R
    )
    assert torch.allclose(result.loss_P, loss_P.detach(), atol=1e-4)
    assert gradient_gap(gradients(scorer.model), truth) < 1e-4
    assert result.lengths_R.tolist() == lengths_R.tolist()
    own_R = torch.stack([row.detach().sum() for row in rows])
    assert torch.allclose(result.logps_R, own_R, atol=1e-4), "what metrics call logps is of own tokens, too"


def test_a_tools_result_decides_nothing_but_is_read() -> None:
    (pair,) = with_results(pairs(9))[2:3]
    assert pair.chosen_foreign == ((1, 3),)
    other = replace(pair, chosen_ids=(pair.chosen_ids[0], 7, 8, *pair.chosen_ids[3:]))
    assert other.chosen_ids != pair.chosen_ids
    first, second = (alone_logps(build("Qwen2"), [Group.of_pair(of, 0)])[0].detach() for of in (pair, other))
    sums = [float(weighted_sums([row, row[:1]], [replace(pair, rejected_ids=(1,), rejected_foreign=())], Dpo())[0])
            for row in (first, second)]  # fmt: skip
    assert sums == pytest.approx([float(own(row, ((1, 3),)).sum()) for row in (first, second)], abs=1e-5)
    assert not torch.allclose(first[3:], second[3:]), "what follows it was written with it in view"


def test_ranges_survive_the_disk() -> None:
    (pair,) = with_results(pairs(9))[2:3]
    assert TokenPair.from_json(pair.to_json()) == pair
    assert "chosen_foreign" not in TokenPair("x", (1,), (2,), (3,)).to_json(), "files of before stay as they are"
