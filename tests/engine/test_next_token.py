"""Next-token readings of two models: arithmetic by hand, against plain forwards, and models that are the same."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from engine_families import VOCABULARY, build, pairs

from trimtab.analysis.calibration import expected_calibration_error
from trimtab.analysis.token_calibration import Predictions, tabulate, token_bins
from trimtab.engine import next_token, trainable
from trimtab.engine.next_token import NextToken, Reading, divergence, read
from trimtab.engine.scoring import Scorer
from trimtab.errors import NumericsError
from trimtab.records import TokenPair


def readings(policy: Scorer, reference: Scorer, given: list[TokenPair], *, pack_tokens: int = 64) -> list[Reading]:
    return sorted(read(policy, reference, given, pack_tokens=pack_tokens), key=lambda one: one.index)


def test_next_token_by_hand() -> None:
    # p = (1/2, 1/4, 1/4); the token that came is the second, then the first. Entropy ½ ln 2 + 2·¼ ln 4 = 1.5 ln 2.
    logps = torch.tensor([[0.5, 0.25, 0.25]] * 2).log()
    told = NextToken.of(logps, torch.tensor([1, 0]))
    assert told.logp_N.tolist() == pytest.approx([-math.log(4), -math.log(2)])
    assert told.confidence_N.tolist() == pytest.approx([0.5, 0.5])
    assert told.right_N.tolist() == [0.0, 1.0]
    assert told.entropy_N.tolist() == pytest.approx([1.5 * math.log(2)] * 2)


def test_divergence_by_hand() -> None:
    p, q = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
    # ½ ln 2 + ½ ln ⅔ = ½ ln 4/3, and back ¼ ln ½ + ¾ ln 3/2
    assert divergence(p, q).item() == pytest.approx(0.5 * math.log(4 / 3))
    assert divergence(q, p).item() == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5))
    assert divergence(p, p).item() == 0.0


def test_divergence_of_near_and_of_far_models() -> None:
    torch.manual_seed(0)
    logits = torch.randn(8, 5000, dtype=torch.float64) * 3
    for step in (1e-4, 1.0, 40.0):
        other = logits + step * torch.randn_like(logits)
        truth = torch.nn.functional.kl_div(
            other.log_softmax(-1), logits.log_softmax(-1), log_target=True, reduction="none"
        ).sum(-1)
        found = divergence(logits.float().log_softmax(-1), other.float().log_softmax(-1))
        assert (found >= 0).all()
        assert found.double().numpy() == pytest.approx(truth.numpy(), rel=2e-3, abs=1e-10)  # fp32 moves d by 1e-6


def test_tokens_that_no_model_allows_are_no_difference() -> None:
    p, q = (torch.tensor([[a, 1.0, -math.inf]]).log_softmax(-1) for a in (0.0, 0.5))
    assert divergence(p, q).item() == pytest.approx(divergence(p[:, :2], q[:, :2]).item())
    assert NextToken.of(p, torch.tensor([1])).entropy_N.isfinite().all()
    assert divergence(p, torch.tensor([[0.0, -math.inf, 0.0]]).log_softmax(-1)).item() == math.inf


@pytest.mark.parametrize("family", ["Qwen2", "Gemma-2", "GPT-Neo"])
@pytest.mark.parametrize("rows", [1, 1000])
def test_as_plain_forwards_say(family: str, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packed, soft-capped, or on the padded path with the model's own logits; row by row or all at once."""
    monkeypatch.setattr(next_token, "chunk_rows", lambda *_: rows * next_token.SHARES_OF_A_CHUNK)
    policy, reference = build(family, seed=0), build(family, seed=1)
    given = pairs(6)
    found = readings(Scorer(policy), Scorer(reference), given)
    for one, pair in zip(found, given, strict=True):
        own, other = (plain(model, pair.prompt_ids, pair.chosen_ids) for model in (policy, reference))
        targets = torch.tensor(pair.chosen_ids)
        for told, logps in ((one.policy, own), (one.reference, other)):
            p = logps.exp()
            assert told.logp_N.numpy() == pytest.approx(logps[range(len(targets)), targets].numpy(), abs=1e-5)
            assert told.confidence_N.numpy() == pytest.approx(p.amax(-1).numpy(), abs=1e-5)
            assert told.right_N.tolist() == (p.argmax(-1) == targets).float().tolist()
            assert told.entropy_N.numpy() == pytest.approx(-(p * logps).sum(-1).numpy(), abs=1e-5)
        assert one.divergence_N.numpy() == pytest.approx((own.exp() * (own - other)).sum(-1).numpy(), abs=1e-5)
        for values, model in ((one.rejected_policy_N, policy), (one.rejected_reference_N, reference)):
            logps = plain(model, pair.prompt_ids, pair.rejected_ids)
            truth = logps[range(len(pair.rejected_ids)), torch.tensor(pair.rejected_ids)]
            assert values.numpy() == pytest.approx(truth.numpy(), abs=1e-5)


def plain(model: Any, prompt: tuple[int, ...], response: tuple[int, ...]) -> torch.Tensor:
    """Log-probabilities before every response token, fp64 [N, V], one sequence at a time."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt + response]), use_cache=False).logits[0]
    told: torch.Tensor = logits[len(prompt) - 1 : -1].double().log_softmax(-1)
    return told


def same(a: NextToken, b: NextToken) -> bool:
    return all(
        torch.equal(x, y)
        for x, y in (
            (a.logp_N, b.logp_N),
            (a.confidence_N, b.confidence_N),
            (a.right_N, b.right_N),
            (a.entropy_N, b.entropy_N),
        )
    )


def test_a_model_beside_itself_has_not_moved() -> None:
    given = pairs(4)
    for one in readings(Scorer(build("Qwen2")), Scorer(build("Qwen2")), given):
        assert same(one.policy, one.reference)
        assert not one.divergence_N.any()
        assert torch.equal(one.rejected_policy_N, one.rejected_reference_N)


def test_an_adapter_is_read_against_its_own_base() -> None:
    given, base = pairs(4), build("Qwen2")
    moved = trainable.attach_lora(build("Qwen2"), rank=4, alpha=8.0)
    with torch.no_grad():
        for name, weight in moved.named_parameters():
            if "lora_B" in name:
                weight.normal_(0.0, 0.3)
    scorer = Scorer(moved)
    found = readings(scorer, scorer, given)
    truth = readings(Scorer(base), Scorer(base), given)
    assert all(same(one.reference, other.reference) for one, other in zip(found, truth, strict=True))
    assert all(one.divergence_N.sum() > 0.01 for one in found)


def test_an_overconfident_model_has_the_larger_error() -> None:
    """Tokens drawn from a model's own distribution are calibrated; the same logits, sharpened, are not."""
    torch.manual_seed(0)
    logits = 1.5 * torch.randn(4000, VOCABULARY)
    tokens = torch.distributions.Categorical(logits=logits).sample()
    errors = {}
    for temperature in (0.5, 1.0, 2.0):
        told = NextToken.of((logits / temperature).log_softmax(-1), tokens)
        values = (told.logp_N, told.confidence_N, told.right_N, told.entropy_N)
        table = tabulate([Predictions(*(array.double().numpy() for array in values))])
        errors[temperature] = expected_calibration_error(token_bins(table))
        over = float(table.over_P[0])
        assert (over > 100) if temperature < 1 else (over < -100) if temperature > 1 else abs(over) < 100
    assert errors[1.0] < 0.03
    assert errors[0.5] > 5 * errors[1.0]
    assert errors[2.0] > 3 * errors[1.0]


def test_numbers_that_are_not_finite_name_the_pair() -> None:
    model = build("Qwen2")
    scorer, given = Scorer(model), pairs(3)
    scorer.prepare([next_token.Group.of_pair(given[0], 0)])
    with torch.no_grad():
        model.lm_head.weight[5] = math.nan
    with pytest.raises(NumericsError, match=r"pairs.jsonl:\d"):
        readings(scorer, scorer, given)
