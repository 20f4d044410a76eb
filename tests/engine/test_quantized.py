"""4-bit matrices and 8-bit moments: what is computed with, saved, resumed and merged is one and the same."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from trimtab import config as configuration
from trimtab.engine import checkpoint, models, quantized, trainable
from trimtab.engine.optim import AdamW
from trimtab.errors import ConfigError, ModelError, UserError

needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None,
    reason="bitsandbytes is not installed (pip install trimtab[qlora])",
)
IDS = torch.arange(3, 43)[None]


def qwen(seed: int = 0) -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(seed)
    shape: dict[str, Any] = {
        "vocab_size": 128, "hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True, "initializer_range": 0.1,
    }  # fmt: skip
    return Qwen2ForCausalLM(Qwen2Config(**shape)).eval()


def saved(folder: Path) -> Path:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    qwen().save_pretrained(folder)
    words = Tokenizer(WordLevel({f"w{i}": i for i in range(128)}, unk_token="w0"))
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w1", unk_token="w0").save_pretrained(folder)
    return folder


def test_all_linear_modules_but_the_head_are_quantized() -> None:
    names = quantized.matrices(qwen())
    assert len(names) == 2 * 7
    assert not any("lm_head" in name for name in names)
    only_head = nn.Module()
    only_head.lm_head = nn.Linear(2, 2)
    only_head.get_output_embeddings = lambda: only_head.lm_head  # type: ignore[assignment]  # all that is asked of it
    with pytest.raises(ModelError, match="no linear modules"):
        quantized.matrices(only_head)


def test_without_bitsandbytes_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "bitsandbytes", None)
    with pytest.raises(UserError) as caught:
        AdamW(qwen(), weight_decay=0.0, kind="adamw_8bit")
    assert caught.value.remedy == "pip install trimtab[qlora]"
    with pytest.raises(UserError, match="bitsandbytes"):
        quantized.quantize(qwen())


def test_the_configuration_refuses_what_has_no_effect() -> None:
    tree = {"model": "m", "data": "d.jsonl"}
    with pytest.raises(ConfigError, match=r"adapter\.quantize has no effect"):
        configuration.resolve(tree | {"adapter": {"quantize": "nf4"}})
    with pytest.raises(ConfigError, match=r"train\.freeze_embeddings has no effect"):
        configuration.resolve(tree | {"adapter": "lora", "train": {"freeze_embeddings": True}})
    both = configuration.resolve(tree | {"adapter": {"kind": "lora", "quantize": "nf4"}})
    assert both.adapter.quantize == "nf4"


def test_an_adapter_marked_with_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    assert not quantized.is_quantized_adapter(tmp_path)
    (tmp_path / quantized.MARK).write_text(json.dumps({"quantize": "fp3"}))
    with pytest.raises(ModelError, match="does not know"):
        quantized.is_quantized_adapter(tmp_path)


@needs_bitsandbytes
def test_rounding_gives_the_numbers_that_quantized_modules_compute_with() -> None:
    small, like, plain = qwen(), qwen(), qwen()
    quantized.quantize(small)
    quantized.round_like(like)
    with torch.no_grad():
        ours, truth, before = (model(IDS).logits for model in (small, like, plain))
    assert quantized.is_quantized(small)
    assert not quantized.is_quantized(like)
    torch.testing.assert_close(ours, truth, rtol=1e-5, atol=1e-5)
    assert (truth - before).abs().max() > 1e-2


@needs_bitsandbytes
def test_a_saved_adapter_is_merged_into_the_matrices_it_was_trained_on(tmp_path: Path) -> None:
    base = saved(tmp_path / "base")
    loaded = models.load(str(base), dtype="float32", device="cpu")
    quantized.quantize(loaded.model)
    model = trainable.attach_lora(loaded.model, rank=4, alpha=8.0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, 0.1)
        trained = model(IDS).logits
        with trainable.reference_mode(model):
            reference = model(IDS).logits
    (tmp_path / "adapter").mkdir()
    models.save(model, loaded.tokenizer, tmp_path / "adapter")
    again = models.load(str(tmp_path / "adapter"), dtype="float32", device="cpu")
    rounded = qwen()
    quantized.round_like(rounded)
    with torch.no_grad():
        torch.testing.assert_close(again.model(IDS).logits, trained, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(rounded(IDS).logits, reference, rtol=1e-5, atol=1e-5)


@needs_bitsandbytes
def test_only_the_adapter_learns_and_the_packed_path_holds() -> None:
    from trimtab import objectives
    from trimtab.engine import gradient
    from trimtab.engine.scoring import Scorer
    from trimtab.records import TokenPair

    model = qwen()
    quantized.quantize(model)
    model = trainable.attach_lora(model, rank=4, alpha=8.0)
    optimizer, scorer = AdamW(model, weight_decay=0.0), Scorer(model)
    pair = TokenPair("a", tuple(range(3, 23)), tuple(range(30, 50)), tuple(range(60, 75)))
    gradient.accumulate(
        scorer, [pair], objective=objectives.make("dpo"), reference_logps_R=torch.zeros(2), pack_tokens=64
    )
    assert scorer.layout == "packed", scorer.reason
    assert all("lora_" in name for name in optimizer.parameters)
    assert all(parameter.dtype == torch.float32 for parameter in optimizer.parameters.values())
    assert any(p.grad is not None and p.grad.any() for p in optimizer.parameters.values())


def _trained(optimizer: AdamW, steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        for parameter in optimizer.parameters.values():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step(learning_rate=1e-3)


@needs_bitsandbytes
def test_a_resumed_run_with_8_bit_moments_goes_on_bit_for_bit(tmp_path: Path) -> None:
    through, stopped, resumed = qwen(), qwen(), qwen(seed=1)
    whole = AdamW(through, weight_decay=0.1, kind="adamw_8bit")
    assert any(value.dtype == torch.uint8 for value in (_trained(whole, range(5)), whole.state())[1].values())
    first = AdamW(stopped, weight_decay=0.1, kind="adamw_8bit")
    _trained(first, range(3))
    checkpoint.save(tmp_path, step=3, optimizer=first, identity={}, extra={})
    second = AdamW(resumed, weight_decay=0.1, kind="adamw_8bit")
    found, _ = checkpoint.find(tmp_path, identity={})
    assert found is not None
    checkpoint.load(found, second)
    for name, value in first.state().items():
        assert torch.equal(second.state()[name], value), name
    _trained(second, range(3, 5))
    for (name, a), b in zip(through.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b), name
    assert sum(v.numel() * v.element_size() for v in whole.state().values()) < 0.4 * 8 * sum(
        p.numel() for p in whole.parameters.values()
    )


@needs_bitsandbytes
def test_8_bit_moments_follow_the_exact_ones() -> None:
    exact, rounded = qwen(), qwen()
    start = torch.cat([p.detach().flatten() for p in qwen().parameters()])
    _trained(AdamW(exact, weight_decay=0.0), range(10))
    _trained(AdamW(rounded, weight_decay=0.0, kind="adamw_8bit"), range(10))
    moved = [torch.cat([p.detach().flatten() for p in model.parameters()]) - start for model in (exact, rounded)]
    assert torch.nn.functional.cosine_similarity(*moved, dim=0) > 0.98
