"""Models in and out: every mistake answered with a remedy, every folder readable by plain transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_families import build
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from trimtab.engine.models import end_generation_at, load, pick_device, pick_dtype, save, weights_digest
from trimtab.engine.trainable import attach_lora, reference_mode
from trimtab.errors import ModelError

IDS = torch.tensor([[5, 6, 7, 8, 9]])


def write_tokenizer() -> PreTrainedTokenizerFast:
    words = {f"w{i}": i for i in range(97)}
    backend = Tokenizer(WordLevel(words, unk_token="w0"))  # a word, not a password
    backend.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="w1", pad_token="w2")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "model"
    place.mkdir()
    save(build("Llama"), write_tokenizer(), place)
    return place


def _logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(IDS).logits
    return logits


def test_saved_and_loaded_is_the_same_model(folder: Path) -> None:
    loaded = load(str(folder), device="cpu")
    assert torch.equal(_logits(loaded.model), _logits(build("Llama")))
    assert not loaded.model.training
    assert loaded.model.dtype == torch.float32
    assert loaded.name == str(folder)
    assert loaded.tokenizer("w5 w6").input_ids == [5, 6]
    assert torch.equal(_logits(AutoModelForCausalLM.from_pretrained(folder)), _logits(loaded.model))
    assert load(str(folder), device="cpu", dtype="bfloat16").model.dtype == torch.bfloat16


def test_a_saved_adapter_loads_in_plain_transformers_and_here(folder: Path, tmp_path: Path) -> None:
    base = load(str(folder), device="cpu")
    model = attach_lora(base.model, rank=4, alpha=8)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, 0.1)
    out = tmp_path / "adapter"
    out.mkdir()
    save(model, base.tokenizer, out)
    assert {path.name for path in out.glob("*.safetensors")} == {"adapter_model.safetensors"}
    plain = AutoModelForCausalLM.from_pretrained(out).eval()
    torch.testing.assert_close(_logits(plain), _logits(model), atol=1e-5, rtol=0)
    merged = load(str(out), device="cpu")
    torch.testing.assert_close(_logits(merged.model), _logits(model), atol=1e-4, rtol=0)
    assert not any("lora" in name for name, _ in merged.model.named_parameters())
    assert merged.digest != base.digest
    assert AutoTokenizer.from_pretrained(out)("w7").input_ids == [7]


def test_loading_is_quiet_and_leaves_transformers_as_it_was(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    capfd.readouterr()
    load(str(folder), device="cpu")
    assert capfd.readouterr() == ("", "")
    assert (transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()) == (level, bars)


def _break_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def _break_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _only_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _no_tokenizer(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()


def _damaged_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\x10" * 64)


def _foreign_code(folder: Path) -> None:
    (folder / "modeling_own.py").write_text("raise SystemExit('this code was run')\n")
    config = json.loads((folder / "config.json").read_text())
    own = {"AutoConfig": "modeling_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnModel"}
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "own-architecture", "auto_map": own}))


def _not_causal(folder: Path) -> None:
    config = {"model_type": "clip_vision_model", "architectures": ["CLIPVisionModel"]}
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("breakage", "message", "remedy"),
    [
        (_break_config, "config.json is missing", "save_pretrained"),
        (_break_weights, "no weights", "again"),
        (_only_pickle, "pickle", "safetensors"),
        (_no_tokenizer, "no tokenizer", "tokenizer.json"),
        (_damaged_weights, "cannot be loaded", "damaged"),
        (_foreign_code, "cannot be loaded", "trust_remote_code"),
        (_not_causal, "cannot be loaded", "causal language model"),
    ],
)
def test_a_broken_folder_is_one_message_with_a_remedy(folder: Path, breakage: Any, message: str, remedy: str) -> None:
    breakage(folder)
    with pytest.raises(ModelError) as caught:
        load(str(folder), device="cpu")
    assert message in caught.value.message
    assert str(folder) in caught.value.message
    assert remedy in caught.value.remedy
    assert "\n" not in caught.value.message


def test_no_such_folder_and_no_such_hub_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        load(str(tmp_path / "nothing"))
    with pytest.raises(ModelError, match="cannot be loaded") as caught:
        load("nobody/no-such-model", offline=True)
    assert "Offline" in caught.value.remedy


def test_a_pickled_adapter_is_refused(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "adapter"
    out.mkdir()
    (out / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(folder)}))
    (out / "adapter_model.bin").write_bytes(b"x")
    with pytest.raises(ModelError, match="pickle"):
        load(str(out))


def test_only_the_adapter_learns_and_its_start_is_seeded() -> None:
    def fresh(seed: int) -> dict[str, torch.Tensor]:
        model = attach_lora(build("Llama"), rank=4, alpha=8, seed=seed)
        return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}

    torch.manual_seed(99)
    before = torch.get_rng_state()
    first = fresh(1)
    assert all("lora_" in name for name in first)
    assert any("gate_proj" in name for name in first)
    assert not any("lm_head" in name for name in first)
    again, other = fresh(1), fresh(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    torch.manual_seed(99)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("dora", [False, True])
def test_reference_mode_is_the_base(dora: bool) -> None:
    base = _logits(build("Llama"))
    model = attach_lora(build("Llama"), rank=4, alpha=8, targets=["q_proj", "v_proj"], dora=dora)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, 0.1)
    moved = _logits(model)
    assert (moved - base).abs().max() > 1e-3
    with reference_mode(model):
        assert torch.equal(_logits(model), base)
    assert torch.equal(_logits(model), moved)
    plain = build("Llama")
    with reference_mode(plain):
        assert torch.equal(_logits(plain), base)


def test_unknown_targets_name_the_known_ones() -> None:
    with pytest.raises(ModelError) as caught:
        attach_lora(build("Llama"), rank=4, alpha=8, targets=["query"])
    assert "q_proj" in caught.value.remedy


def test_one_unknown_target_among_known_ones_is_refused_too() -> None:
    """PEFT leaves it out without a word."""
    with pytest.raises(ModelError, match="no module is named qq_proj"):
        attach_lora(build("Llama"), rank=4, alpha=8, targets=["q_proj", "qq_proj"])


def test_digests_follow_the_weights_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    first = weights_digest(folder)
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "README.md").write_text("a card")
    assert weights_digest(copy) == first == load(str(copy), device="cpu").digest
    save(build("Llama", seed=1), write_tokenizer(), copy)
    assert weights_digest(copy) != first
    model = build("Llama")
    digest = weights_digest(model)
    assert weights_digest(build("Llama")) == digest
    with torch.no_grad():
        model.get_input_embeddings().weight[0, 0] += 1e-3
    assert weights_digest(model) != digest
    assert weights_digest(build("Llama").bfloat16()) != digest


def test_devices_and_dtypes() -> None:
    cpu = torch.device("cpu")
    assert pick_dtype("auto", cpu) == torch.float32
    assert pick_dtype("auto", torch.device("mps")) == torch.float32
    assert pick_dtype("bfloat16", cpu) == torch.bfloat16
    assert pick_device("cpu") == cpu
    if not torch.cuda.is_available():
        with pytest.raises(ModelError, match="cuda") as caught:
            pick_device("cuda")
        assert "cpu" in caught.value.remedy


@pytest.mark.needs_shared
@pytest.mark.parametrize("name", ["stories260K", "cardputer-chat-3M"])
def test_real_models_go_through_save_and_plain_transformers(shared_data: Path, tmp_path: Path, name: str) -> None:
    loaded = load(str(shared_data / "models" / name), device="cpu")
    out = tmp_path / "out"
    out.mkdir()
    save(loaded.model, loaded.tokenizer, out)
    again = AutoModelForCausalLM.from_pretrained(out)
    assert torch.equal(_logits(again), _logits(loaded.model))
    text = "Once upon a time"
    assert AutoTokenizer.from_pretrained(out)(text).input_ids == loaded.tokenizer(text).input_ids


def test_a_saved_model_says_where_its_answers_end(folder: Path, tmp_path: Path) -> None:
    """open-r1 PR#663, LlamaFactory#7454: a base model's generation config names the end of a text alone, and
    plain `generate` never stops at the end of turn that was trained. Right: both ids, as a list, the trained one
    first; the merged adapter too."""
    model = load(str(folder), device="cpu").model
    model.generation_config.eos_token_id = 90
    end_generation_at(model, (90,))
    assert model.generation_config.eos_token_id == 90, "what is right already stays as it is"
    end_generation_at(model, (92, 90))
    for name, policy in (("full", model), ("adapter", attach_lora(model, rank=2, alpha=4))):
        (tmp_path / name).mkdir()
        save(policy, write_tokenizer(), tmp_path / name)
        saved = json.loads((tmp_path / name / "generation_config.json").read_text())
        assert saved["eos_token_id"] == [92, 90]
    policy.peft_config["default"].base_model_name_or_path = str(folder)
    save(policy, write_tokenizer(), tmp_path / "adapter")
    assert load(str(tmp_path / "adapter"), device="cpu").model.generation_config.eos_token_id == [92, 90]
