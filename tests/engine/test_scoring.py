"""The scorer: self-check and fallback, restoring the model, modes, helpers."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_families import MIXED, alone_logps, build, gradient_gap, gradients, groups

from trimtab.engine import head as head_module
from trimtab.engine import self_check, trainable
from trimtab.engine.head import Head, OwnLogits
from trimtab.engine.models import load
from trimtab.engine.packing import Group, lay_out
from trimtab.engine.response_sums import sum_by_response
from trimtab.engine.scoring import Scorer
from trimtab.engine.segments import AttentionOptions, Segments
from trimtab.engine.segmentwise import Segmentwise
from trimtab.engine.trainable import attach_lora
from trimtab.errors import ModelError


def _gap(scorer: Scorer, group_list: list[Group]) -> float:
    with torch.no_grad():
        ours = scorer.logps(lay_out(group_list))
        return float((ours - torch.cat(alone_logps(trainable.causal_lm_of(scorer.model), group_list))).abs().max())


def test_the_models_own_attention_comes_back() -> None:
    model = build("Qwen2")
    before = model.config._attn_implementation
    scorer, group_list = Scorer(model), groups(MIXED)
    scorer.logps(lay_out(group_list))
    assert model.config._attn_implementation == before
    with scorer.attention():
        assert model.config._attn_implementation == "trimtab_packed"
    assert model.config._attn_implementation == before
    model.get_decoder().layers[1].mlp.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        scorer.logps(lay_out(group_list))
    assert model.config._attn_implementation == before


def test_off_is_off_and_says_so() -> None:
    scorer = Scorer(build("Qwen2"), packed="off")
    assert scorer.prepare(groups(MIXED)) == "padded"
    assert "configuration" in scorer.reason


@pytest.mark.parametrize(
    ("family", "words"), [("GPT-Neo", "does not use transformers' attention interface"), ("LFM2", "Lfm2ForCausalLM")]
)
def test_falling_back_is_loud_and_one_line(family: str, words: str, caplog: pytest.LogCaptureFixture) -> None:
    scorer = Scorer(build(family))
    with caplog.at_level(logging.WARNING, logger="trimtab"):
        scorer.prepare(groups(MIXED))
        scorer.prepare(groups(MIXED))
    lines = [record.getMessage() for record in caplog.records if record.name == "trimtab"]
    assert len(lines) == 1
    assert words in lines[0]
    assert "\n" not in scorer.reason
    with pytest.raises(ModelError, match=r"engine\.packed"):
        Scorer(build(family), packed="on").prepare(groups(MIXED))


class _Raises(Segmentwise):
    name = "raising"

    def attend(self, *_: Any) -> torch.Tensor:
        raise RuntimeError("no kernel image for this device")


class _Forgets(Segmentwise):
    """Right on the check of its gradients, wrong on the model's rows: it leaves out the window."""

    name = "forgetful"

    def attend(self, segments: Segments, query: Any, key: Any, value: Any, asked: AttentionOptions) -> torch.Tensor:
        return super().attend(segments, query, key, value, replace(asked, window=None))


def test_the_first_way_to_attend_that_gives_the_models_numbers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ways = (_Raises(), _Forgets(), Segmentwise(), Segmentwise())
    monkeypatch.setattr(self_check, "ways_for", lambda *_: ways)
    scorer = Scorer(build("Mistral"))  # its layers have a window
    with caplog.at_level(logging.WARNING, logger="trimtab"):
        assert scorer.prepare(groups(MIXED)) == "packed"
    lines = [record.getMessage() for record in caplog.records if record.name == "trimtab"]
    assert [line.split(" is not used: ")[0] for line in lines] == ["attention by raising", "attention by forgetful"]
    assert "no kernel image" in lines[0]
    assert "log-probabilities are off" in lines[1]
    assert scorer.attention_name == Segmentwise().name
    assert _gap(scorer, groups(MIXED)) < 1e-4
    assert Scorer(build("Mistral"), packed="off").attention_name == "the model's own (sdpa)"


def test_mixing_layers_show_even_where_their_weights_are_tiny() -> None:
    """Freshly initialised, a convolution moves log-probabilities by 1e-5; who depends on whom shows all the same."""
    for same_keys in (False, True):
        scorer = Scorer(build("LFM2", spread=0.02))
        scorer.prepare([Group(g.prompt_ids, g.responses[:1], (0,)) if same_keys else g for g in groups(MIXED)])
        assert "mixes neighbouring sequences" in scorer.reason


def test_one_group_alone_is_checked_too() -> None:
    scorer = Scorer(build("LFM2"))
    assert scorer.prepare(groups([(20, (9, 6))])) == "padded"
    assert Scorer(build("Qwen2")).prepare(groups([(20, (9, 6))])) == "packed"
    assert Scorer(build("Qwen2")).prepare(groups([(20, (9,))])) == "packed"


def _post_scaled(model: Any) -> Any:
    """A model whose forward does to its logits what no config key says."""
    forward = model.forward

    def scaled(*args: Any, **kwargs: Any) -> Any:
        out = forward(*args, **kwargs)
        out.logits = out.logits * 1.5
        return out

    model.forward = scaled
    return model


def test_a_head_that_does_more_than_its_config_says(caplog: pytest.LogCaptureFixture) -> None:
    for packed in ("on", "off"):
        scorer = Scorer(_post_scaled(build("Llama")), packed=packed)
        assert _gap(scorer, groups(MIXED)) <= 1e-5
        assert isinstance(scorer.head, OwnLogits)
    assert any("output head does more" in record.getMessage() for record in caplog.records)


def test_the_last_bit_of_one_token_is_no_other_head() -> None:
    """Four response tokens in float64, whose log-probabilities are rounded to fp32: one off by 4.8e-7 is no 1e-7 on
    average."""
    group = Group((79, 66, 3, 40), ((79, 66, 3, 40), (79, 66, 3, 40)), (0, 1))
    for family in ("Mistral", "Llama", "Qwen2"):
        scorer = Scorer(build(family, dtype=torch.float64))
        scorer.prepare([group])
        assert isinstance(scorer.head, Head), family


def test_a_model_whose_numbers_depend_on_its_batch_is_refused_in_batches_alone() -> None:
    """In packs it reads one row, as it does one sequence at a time."""
    model = build("Llama")
    forward = model.forward

    def batch_sensitive(*args: Any, **kwargs: Any) -> Any:
        out = forward(*args, **kwargs)
        out.logits = out.logits * (1 + out.logits.shape[0])
        return out

    model.forward = batch_sensitive
    with pytest.raises(ModelError, match="padded batch"):
        Scorer(model, packed="off").prepare(groups(MIXED))
    assert _gap(Scorer(model), groups(MIXED)) <= 1e-5


@pytest.mark.parametrize("family", ["Gemma-2", "GPT-2"])
def test_chunk_size_does_not_matter(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer, one = Scorer(build(family)), lay_out(groups(MIXED))
    results = []
    for chunk in (1 << 24, 97 * 16, 97 * 50):
        monkeypatch.setattr(head_module, "CHUNK_LOGITS", {"cpu": chunk})
        logps = scorer.logps(one)
        logps.sum().backward()
        results.append((logps.detach(), gradients(scorer.model)))
    for logps, grads in results[1:]:
        torch.testing.assert_close(logps, results[0][0], atol=1e-5, rtol=0)
        assert gradient_gap(grads, results[0][1]) <= 1e-6


def test_sums_by_response_with_and_without_weights() -> None:
    one = lay_out([Group((1, 2), ((3, 4, 5), (6,)), (4, 9))])
    logps = torch.tensor([-1.0, -2.0, -4.0, -8.0], requires_grad=True)
    assert sum_by_response(one.spans, logps).tolist() == [-7.0, -8.0]
    weighted = sum_by_response(one.spans, logps, {9: (0.5,), 4: (1.0, 1.0, 0.25)})
    assert weighted.tolist() == [-4.0, -4.0]
    weighted.sum().backward()
    assert logps.grad is not None
    assert logps.grad.tolist() == [1.0, 1.0, 0.25, 0.5]


def test_a_long_sum_keeps_its_digits() -> None:
    one = lay_out([Group((1,), ((2,) * 3000,), (0,))])
    logps = -torch.rand(3000, generator=torch.Generator().manual_seed(0))
    assert float(sum_by_response(one.spans, logps)) == pytest.approx(float(logps.double().sum()), abs=1e-4)


def test_by_key_gives_each_response_once_without_gradient() -> None:
    scorer, group_list = Scorer(build("Qwen2")), groups(MIXED)
    rows = dict(scorer.by_key(group_list, pack_tokens=150))
    truth = alone_logps(scorer.model, group_list)
    assert sorted(rows) == list(range(len(truth)))
    for key, row in rows.items():
        assert not row.requires_grad
        torch.testing.assert_close(row, truth[key].detach(), atol=2e-5, rtol=0)


def test_dropout_is_off_whatever_mode_the_model_was_left_in() -> None:
    model = build("GPT-2")
    assert model.config.resid_pdrop > 0
    scorer, group_list = Scorer(model), groups(MIXED)
    model.train()
    assert _gap(scorer, group_list) <= 1e-5
    model.train()
    one = lay_out(group_list)
    assert torch.equal(scorer.logps(one), scorer.logps(one))


def test_adapter_dropout_acts_with_gradient_only() -> None:
    model = attach_lora(build("Qwen2"), rank=4, alpha=8, dropout=0.3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, 0.1)
    scorer, one = Scorer(model), lay_out(groups(MIXED))
    assert scorer.has_dropout
    with torch.no_grad():
        assert torch.equal(scorer.logps(one), scorer.logps(one))
    assert not torch.equal(scorer.logps(one), scorer.logps(one))
    assert not Scorer(attach_lora(build("Qwen2"), rank=4, alpha=8)).has_dropout


@pytest.mark.parametrize(("family", "packed"), [("Qwen2", "on"), ("Qwen2", "off"), ("Gemma-3", "on")])
def test_activation_checkpointing_changes_nothing_but_memory(family: str, packed: Any) -> None:
    one = lay_out(groups(MIXED))
    plain = Scorer(build(family), packed=packed)
    plain.logps(one).sum().backward()
    truth = gradients(plain.model)

    model = build(family)
    scorer = Scorer(model, packed=packed, checkpointing="on")
    scorer.prepare(one.groups)
    runs: list[int] = []
    model.get_decoder().layers[0].mlp.register_forward_pre_hook(lambda *_: runs.append(1))
    with scorer.attention():
        scorer.logps(one).sum().backward()
    assert len(runs) == 2  # once forward, once again on the way back
    assert gradient_gap(gradients(model), truth) <= 1e-6
    if packed == "on":
        with pytest.raises(AssertionError, match=r"scorer\.attention"):
            scorer.logps(one)


@pytest.mark.needs_shared
@pytest.mark.parametrize(("name", "layout"), [("stories260K", "packed"), ("cardputer-chat-3M", "padded")])
def test_real_models(shared_data: Path, name: str, layout: str) -> None:
    loaded = load(str(shared_data / "models" / name))
    texts = [
        ("Once upon a time, there was a little girl named", " Lily. She loved to play.", " a dog who was very sad."),
        ("The cat sat on", " the mat.", " a big red ball and it was happy to see the sun in the sky."),
        ("Hello", " there!", " my friend, how are you today?"),
    ]
    encode = lambda text: tuple(loaded.tokenizer(text, add_special_tokens=False).input_ids)  # noqa: E731
    group_list = [Group(encode(p), (encode(a), encode(b)), (2 * i, 2 * i + 1)) for i, (p, a, b) in enumerate(texts)]
    scorer = Scorer(loaded.model)
    one = lay_out(group_list)
    ours = sum_by_response(one.spans, scorer.logps(one))
    assert scorer.layout == layout
    truth = torch.stack([logps.sum() for logps in alone_logps(loaded.model, group_list)])
    assert float((ours - truth).detach().abs().max()) <= 1e-4
    ours.sum().backward()
    grads = gradients(loaded.model)
    truth.sum().backward()
    assert gradient_gap(grads, gradients(loaded.model)) <= 1e-5
