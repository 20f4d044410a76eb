"""Agreement with TRL 1.16's own loss code, on numbers that `make_golden.py` obtained by running it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from trimtab import objectives
from trimtab.objectives import LogRatios, Objective, make

GOLDEN = json.loads((Path(__file__).parent / "golden_trl_1_16.json").read_text(encoding="utf-8"))
CASES = GOLDEN["cases"]
NAMED = [f"{'+'.join(c['trl_loss_type'])}-{i}" for i, c in enumerate(CASES)]
RESPONSES = ("chosen", "rejected")
SIDES = ("policy_chosen", "policy_rejected", "reference_chosen", "reference_rejected")


def forced(batch: dict[str, Any], objective: Objective, rows: slice) -> tuple[LogRatios, list[torch.Tensor]]:
    """Sums of the golden per-token log-probs with the objective's token weights; the policy's are leaves."""
    weights = [
        objective.token_weights(len(chosen), len(rejected))
        for chosen, rejected in zip(batch["policy_chosen"], batch["policy_rejected"], strict=True)
    ]
    sums = {}
    for side in SIDES:
        k = 0 if side.endswith("chosen") else 1
        logps = [sum(w * x for w, x in zip(weights[i][k], row, strict=True)) for i, row in enumerate(batch[side])]
        sums[side] = torch.tensor(logps[rows], dtype=torch.float64, requires_grad=side.startswith("policy"))
    lengths = [torch.tensor([len(row) for row in batch[f"policy_{s}"]][rows]) for s in ("chosen", "rejected")]
    logps, collisions = (
        [torch.tensor([math.fsum(row) for row in batch[f"{of}_{s}"]][rows], dtype=torch.float64) for s in RESPONSES]
        for of in ("policy", "collisions")
    )
    log_weights = log_weights_of(logps, collisions, lengths)
    ratios = LogRatios(**sums, chosen_lengths=lengths[0], rejected_lengths=lengths[1], **log_weights)
    return ratios, [sums[s] for s in SIDES[:2]]


def log_weights_of(
    logps: list[torch.Tensor], collisions: list[torch.Tensor], lengths: list[torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Mean over each response's tokens of ln p − ln Σ p², from sums over all of them."""
    sides = zip(RESPONSES, logps, collisions, lengths, strict=True)
    return {f"{side}_log_weights": (logps_P - of_P) / length_P for side, logps_P, of_P, length_P in sides}


def alike(case: dict[str, Any], lengths: list[int]) -> bool:
    """False where an sft term stands beside a loss: here a mean within each pair, in TRL over a batch's tokens."""
    return "sft_weight" not in case["parameters"] or len(set(lengths)) == 1


@pytest.mark.parametrize("batch_name", list(GOLDEN["batches"]))
@pytest.mark.parametrize("case", CASES, ids=NAMED)
def test_loss_and_gradient_on_forced_log_probs(case: dict[str, Any], batch_name: str) -> None:
    batch, expected = GOLDEN["batches"][batch_name], case["forced"][batch_name]
    objective = make(case["objective"], **case["parameters"])
    pairs = len(expected["alone"])
    for i in range(pairs):
        alone, _ = forced(batch, objective, slice(i, i + 1))
        assert objective.loss(alone).item() == pytest.approx(expected["alone"][i], abs=1e-6, rel=1e-7)
    if not alike(case, [len(row) for row in batch["policy_chosen"]]):
        return
    ratios, leaves = forced(batch, objective, slice(None))
    loss = objective.loss(ratios).mean()
    assert loss.item() == pytest.approx(expected["loss"], abs=1e-6, rel=1e-7)
    gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
    coefficient = torch.cat([torch.zeros(pairs) if g is None else g for g in gradients]).tolist()
    tails = [
        objective.token_weights(int(a), int(b))
        for a, b in zip(ratios.chosen_lengths, ratios.rejected_lengths, strict=True)
    ]
    last = [w[-1] for w, _ in tails] + [w[-1] for _, w in tails]
    assert coefficient == pytest.approx(expected["first"], abs=1e-9, rel=1e-6)
    assert [g * w for g, w in zip(coefficient, last, strict=True)] == pytest.approx(
        expected["last"], abs=1e-9, rel=1e-6
    )


LENGTHS = [list(side) for side in zip(*GOLDEN["model_lengths"], strict=True)]


@pytest.mark.parametrize("case", [case for case in CASES if alike(case, LENGTHS[0])])
def test_loss_on_real_models(case: dict[str, Any]) -> None:
    """Two random Qwen2 models, nothing replaced in TRL, fp32 throughout."""
    objective, golden = make(case["objective"], **case["parameters"]), case["model"]
    lengths = [torch.tensor(side) for side in LENGTHS]
    log_weights = {}
    if objective.needs_log_weights:
        sums = golden["token_sums"]
        logps, collisions = (list(torch.tensor(sums[of]).chunk(2)) for of in ("log_probs", "log_sum_sq_probs"))
        log_weights = log_weights_of(logps, collisions, lengths)
        assert float(torch.stack(list(log_weights.values())).std()) > 0.1
    ratios = LogRatios(
        **{side: torch.tensor(golden[side]) for side in SIDES},
        chosen_lengths=lengths[0],
        rejected_lengths=lengths[1],
        **log_weights,
    )
    close: dict[str, float] = (
        {"abs": 1e-9, "rel": 1e-5} if log_weights else {"abs": 1e-6, "rel": 1e-6}
    )  # weights are small
    assert objective.loss(ratios).mean().item() == pytest.approx(golden["loss"], **close)


def test_every_loss_of_trl_is_compared() -> None:
    trl = {loss for case in CASES for loss in case["trl_loss_type"]}
    assert " ".join(sorted(trl)) == (
        "aot aot_unpaired apo_down apo_zero bco_pair discopop exo_pair hinge ipo nca_pair robust sft sigmoid "
        "sigmoid_norm sppo_hard"
    )
    ours_alone = {"apo_hinge_zero", "apo_hinge_softplus", "margin_sigmoid", "simpo", "repo"}
    elsewhere = {"orpo", "dpop", "odpo"}  # a trainer of its own; not in TRL
    elsewhere |= {name for name in objectives.NAMES if make(name).is_unpaired}  # test_objectives_unpaired.py
    compared = {case["objective"] for case in CASES if ":" not in case["objective"]}
    assert compared == set(objectives.NAMES) - ours_alone - elsewhere
    assert GOLDEN["versions"]["trl"].startswith("1.16.")


@pytest.mark.parametrize("batch_name", list(GOLDEN["orpo"]["batches"]))
def test_odds_of_orpo(batch_name: str) -> None:
    """Its likelihood term counts the prompt's tokens in TRL, so the odds alone are compared; positive mean log-probs,
    of which there are some here, are no probabilities and left out."""
    objective = make("orpo", beta=GOLDEN["orpo"]["beta"])
    ratios, _ = forced(GOLDEN["batches"][batch_name], objective, slice(None))
    means = ratios.per_token()
    proper_P = (means.policy_chosen < 0) & (means.policy_rejected < 0)
    odds_P = objective.loss(ratios) + means.policy_chosen
    terms = GOLDEN["orpo"]["batches"][batch_name]
    assert [term is not None for term in terms] == proper_P.tolist()
    expected = [-term for term in terms if term is not None]
    assert len(expected) >= 3
    assert odds_P[proper_P].tolist() == pytest.approx(expected, abs=1e-6)


def test_trl_ignores_label_smoothing_in_its_default_loss_and_ours_does_not() -> None:
    smoothed = next(
        c for c in CASES if c["trl_loss_type"] == ["sigmoid"] and c["trl_settings"].get("label_smoothing") == 0.2
    )
    plain = next(c for c in CASES if c["trl_loss_type"] == ["sigmoid"] and c["trl_settings"] == {"beta": 0.1})
    assert smoothed["forced"] == plain["forced"]
    ratios, _ = forced(GOLDEN["batches"]["far"], make("dpo"), slice(None))
    ours = make("dpo", label_smoothing=0.2).loss(ratios).mean().item()
    assert abs(ours - plain["forced"]["far"]["loss"]) > 0.1
