"""The keys that trade something for memory, through whole training runs."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from stage_runs import Recorder, align, make_config, make_pairs, make_pairs_of, prepare, write_model
from trimtab.engine import models, quantized
from trimtab.runtime import memory_fit, set_up
from trimtab.runtime.run_identity import reference_key

needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes: pip install trimtab[qlora]"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "base", hidden_size=64, intermediate_size=128)


def weights(folder: Any) -> dict[str, torch.Tensor]:
    return load_file(next(folder.model.glob("*.safetensors")))


@pytest.mark.parametrize("mode", ["selective", "on"])
def test_checkpointing_gives_the_same_run(model: Path, tmp_path: Path, mode: str) -> None:
    plain, _ = align(make_config(tmp_path / "off", model, engine={"checkpointing": "off"}))
    again, reporter = align(make_config(tmp_path / mode, model, engine={"checkpointing": mode}))
    assert any(f"activation checkpointing is {mode}" in line for line in reporter.lines)
    for name, value in weights(plain).items():
        torch.testing.assert_close(weights(again)[name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_what_is_padded_is_fitted_and_counted_as_the_rectangle_that_it_is(model: Path, tmp_path: Path) -> None:
    pairs = make_pairs_of(4, prompt=9, response=5)
    sizes = {}
    for packed in ("auto", "off"):
        setup = set_up(make_config(tmp_path / packed, model, engine={"packed": packed}))
        tokens = memory_fit.computed_tokens(setup, pack_tokens=1, pairs=pairs)
        sizes[packed] = memory_fit.longest_group(setup, pairs), tokens
    assert sizes == {"auto": (9 + 5 + 5, 4 * (9 + 5 + 5)), "off": (2 * (9 + 5), 4 * 2 * (9 + 5))}


def test_auto_leaves_it_off_where_memory_is_plenty(model: Path, tmp_path: Path) -> None:
    config = make_config(tmp_path / "run", model)
    assert memory_fit.fit(set_up(config), pairs=make_pairs(4)).checkpointing == "off"


def test_frozen_embeddings_stay_and_everything_else_learns(model: Path, tmp_path: Path) -> None:
    folder, _ = align(make_config(tmp_path / "run", model, train={"freeze_embeddings": True}))
    before = load_file(next(model.glob("*.safetensors")))
    after = weights(folder)
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert "model.embed_tokens.weight" not in moved
    assert len(moved) == len(after) - 1
    assert "embed_tokens" not in str(list(folder.checkpoints.rglob("weights.safetensors"))[-1].read_bytes()[:4000])
    assert "but for the embeddings" in (folder.model / "README.md").read_text()


@needs_bitsandbytes
def test_a_quantized_run_with_8_bit_moments(model: Path, tmp_path: Path) -> None:
    config = make_config(
        tmp_path / "run",
        model,
        adapter={"kind": "lora", "rank": 4, "quantize": "nf4"},
        train={"optimizer": "adamw_8bit"},
    )
    folder, _ = align(config)
    assert quantized.is_quantized_adapter(folder.model)
    assert "nf4" in (folder.model / "README.md").read_text()
    plain = replace(reference_key(set_up(config)), quantized=None)
    assert plain.digest != reference_key(set_up(config)).digest
    merged = models.load(str(folder.model), device="cpu").model
    base = models.load(str(model), device="cpu").model
    quantized.round_like(base)
    name = "model.layers.0.mlp.up_proj.weight"
    gap = (merged.state_dict()[name] - base.state_dict()[name]).abs()
    assert 0 < gap.max() < 0.5
    assert torch.linalg.matrix_rank(merged.state_dict()[name] - base.state_dict()[name], rtol=1e-3) <= 4


def test_an_error_names_the_extra(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trimtab.errors import UserError
    from trimtab.stages import reference, train

    monkeypatch.setitem(__import__("sys").modules, "bitsandbytes", None)
    config = make_config(tmp_path / "run", model, train={"optimizer": "adamw_8bit"})
    prepare(config, make_pairs(8))
    reference.main(set_up(config), reporter=Recorder())
    with pytest.raises(UserError) as caught:
        train.main(set_up(config), reporter=Recorder())
    assert "trimtab[qlora]" in caught.value.remedy
