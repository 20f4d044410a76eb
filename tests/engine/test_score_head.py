"""A head for scores on packs: numbers and gradients of transformers' own classifier, one sequence at a time."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_families import build, pairs
from torch import Tensor

from trimtab.engine import evaluation, models, score_head, trainable
from trimtab.engine.gradient import accumulate
from trimtab.engine.packing import Group, lay_out
from trimtab.engine.scoring import Scorer
from trimtab.errors import ConfigError, ModelError
from trimtab.objectives import BradleyTerry, LogRatios, make

BATCH = pairs(5, seed=4)


def scored(family: str, **options: Any) -> tuple[Any, Scorer]:
    """A model with a head that says something, and its scorer."""
    model = build(family)
    score_head.attach(model)
    torch.manual_seed(7)
    torch.nn.init.normal_(model.score.weight, std=0.3)
    scorer = Scorer(model, **options)
    scorer.prepare([Group.of_pair(pair, 0) for pair in BATCH[:3]])
    scorer.read_scores(model.score)
    return model, scorer


def alone(model: Any) -> Tensor:
    """Scores [2P], each sequence by itself through the model's own forward."""
    scores = []
    for pair in BATCH:
        for ids in (pair.chosen_ids, pair.rejected_ids):
            states = model.base_model(input_ids=torch.tensor([pair.prompt_ids + ids]), use_cache=False)
            scores.append(score_head.GAIN * model.score(states.last_hidden_state[0, -1])[0])
    return torch.stack(scores)


def test_a_pack_is_read_at_the_last_token_of_each_response() -> None:
    groups = [Group((5, 6, 7), ((8,), (9, 10)), (0, 1)), Group((3,), ((4, 4, 4),), (2,))]
    pack = lay_out(groups).at_ends()
    assert [pack.ids_T[row] for row in pack.take_N] == [8, 10, 4]
    assert pack.take_N == (3, 5, 9)  # 5 6 7 | 8 | 9 10 | 3 | 4 4 4
    assert pack.targets_N == (8, 10, 4)
    assert [(span.key, span.rows) for span in pack.spans] == [(0, (0,)), (1, (1,)), (2, (2,))]


@pytest.mark.parametrize("family", ["Qwen2", "Llama", "Gemma-2", "GPT-NeoX", "GPT-2"])
@pytest.mark.parametrize("packed", ["on", "off"])
def test_scores_and_gradients_are_those_of_one_sequence_at_a_time(family: str, packed: str) -> None:
    model, scorer = scored(family, packed=packed)
    truth_R = alone(model)
    loss = torch.nn.functional.softplus(truth_R[1::2] - truth_R[0::2]).mean()
    loss.backward()
    truth = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    scores_R = evaluation.score(scorer, BATCH, objective=BradleyTerry(), pack_tokens=90)
    assert scores_R.tolist() == pytest.approx(truth_R.tolist(), abs=2e-4)
    assert scores_R.std() > 0.1
    result = accumulate(scorer, BATCH, objective=BradleyTerry(), reference_logps_R=None, pack_tokens=90)
    assert result.loss == pytest.approx(loss.item(), abs=1e-5)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            expected = truth.get(name, torch.zeros_like(parameter))
            assert torch.allclose(parameter.grad, expected, atol=2e-5 * max(1.0, float(expected.abs().max()))), name
    assert float(truth["score.weight"].abs().max()) > 1e-3


def test_the_loss_by_hand() -> None:
    """Scores 2 and 1: −ln σ(1) = ln(1 + e⁻¹) = .313262, with slope −σ(−1) = −.268941 for the chosen one. With ε = .1:
    .9 · .313262 + .1 · ln(1 + e) = .281936 + .131326 = .413262."""
    scores = torch.tensor([2.0], requires_grad=True), torch.tensor([1.0])
    zero, one = torch.zeros(1), torch.ones(1)
    ratios = LogRatios(*scores, zero, zero, one, one)
    loss = BradleyTerry().loss(ratios)
    assert loss.item() == pytest.approx(0.313262, abs=1e-6)
    loss.sum().backward()
    assert scores[0].grad is not None
    assert scores[0].grad.item() == pytest.approx(-0.268941, abs=1e-6)
    assert BradleyTerry(label_smoothing=0.1).loss(ratios).item() == pytest.approx(0.413262, abs=1e-6)
    assert BradleyTerry().step_zero() == pytest.approx(math.log(2))


def test_it_is_made_by_name_and_takes_no_modifier() -> None:
    assert make("bradley_terry", label_smoothing=0.2) == BradleyTerry(label_smoothing=0.2)
    with pytest.raises(ConfigError, match=r"length_normalize does not apply|no objective has a parameter"):
        make("bradley_terry", length_normalize=True)
    with pytest.raises(ConfigError, match="beta does not apply to bradley_terry"):
        make("bradley_terry", beta=0.1)


def test_a_head_of_its_own_learns_no_more_and_a_tied_one_goes_on_as_an_embedding() -> None:
    own, tied = build("Llama"), build("Qwen2")
    for model in (own, tied):
        score_head.attach(model)
        assert not model.score.weight.any()
    assert not own.lm_head.weight.requires_grad
    assert own.get_input_embeddings().weight.requires_grad
    assert tied.get_input_embeddings().weight.requires_grad


@pytest.mark.parametrize("family", ["Granite", "LFM2", "Cohere"])
def test_a_family_without_a_classifier_is_refused_before_anything_is_trained(family: str) -> None:
    with pytest.raises(ModelError, match="cannot become a reward model"):
        score_head.require_family(build(family))
    score_head.require_family(build("GPT-Neo"))


def test_padding_is_never_the_token_that_is_read() -> None:
    class Tokenizer:
        pad_token_id, unk_token_id, bos_token_id = 2, 0, None

    assert score_head._padding(2, Tokenizer(), last_id=198) == 2
    assert score_head._padding(2, Tokenizer(), last_id=2) == 0
    assert score_head._padding(None, Tokenizer(), last_id=0) == 2


def test_a_saved_folder_is_what_was_trained_adapter_and_all(tmp_path: Path) -> None:
    """One adapter, far from zero: PEFT alone would lose the head."""
    from stage_runs import write_model
    from trimtab.engine.reward import RewardModel

    write_model(tmp_path / "base")
    bundle = models.load(str(tmp_path / "base"), device="cpu")
    model = trainable.attach_lora(bundle.model, rank=4, alpha=8.0)
    score_head.attach(model)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(0.0, 0.2)
    scorer = Scorer(model)
    scorer.prepare([Group((5, 6, 7), ((8, 9), (10, 11, 12)), (0, 1))])
    scorer.read_scores(bundle.model.score)
    parts, folder = tmp_path / "parts", tmp_path / "saved"
    parts.mkdir()
    folder.mkdir()
    score_head.save_parts(model, bundle.tokenizer, parts)
    score_head.assemble(parts, folder, dtype="float32", last_id=1, trust_remote_code=False)
    rows = [(5, 6, 7, 8, 9), (5, 6, 7, 10, 11, 12)]
    groups = [Group((5, 6, 7), ((8, 9), (10, 11, 12)), (0, 1))]
    expected = [float(row[0]) for _, row in sorted(scorer.by_key(groups, pack_tokens=64))]
    assert RewardModel.load(folder, device="cpu").score_ids(rows) == pytest.approx(expected, abs=1e-4)
    assert abs(expected[0] - expected[1]) > 0.05
    assert not (folder / "adapter_config.json").exists()
