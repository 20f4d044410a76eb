"""GGUF files as models: weights, positions, tokenizer, and what is refused."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gguf_files
from trimtab import store
from trimtab.engine import gguf_file, gguf_model, gguf_tokenizer, models
from trimtab.errors import ModelError
from trimtab.tokenizer_files import load_tokenizer

IDS = torch.tensor([[5, 300, 17, 399, 41, 2, 250, 8, 8, 90]])


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        values: torch.Tensor = model(IDS).logits
    return values


def loaded(path: Path) -> Any:
    return models.load(str(gguf_model.plain_folder(path)), dtype="float32", device="cpu", offline=True)


@pytest.mark.parametrize("tied", [True, False])
def test_a_file_gives_back_the_model_that_it_was_written_from(tmp_path: Path, tied: bool) -> None:
    llama = gguf_files.model(tie_word_embeddings=tied)
    model = loaded(gguf_files.write(tmp_path / "tiny.gguf", llama)).model
    assert torch.equal(logits(model), logits(llama))
    assert model.config.tie_word_embeddings is tied
    assert model.generation_config.eos_token_id in (2, [2])


def test_quantised_matrices_are_unpacked_to_the_values_that_they_stand_for(tmp_path: Path) -> None:
    """Q8_0: 32 numbers share d = max|x| / 127, kept in 16 bits, and each is round(x / d) · d."""
    llama = gguf_files.model()
    with torch.no_grad():
        row = torch.zeros(32)
        row[:3] = torch.tensor([12.7, -6.3, 0.04])  # d = .1 → .09998 in 16 bits; 127, −63, 0 times that
        llama.model.layers[0].self_attn.v_proj.weight[0] = row
    model = loaded(gguf_files.write(tmp_path / "tiny.gguf", llama, kind="Q8_0")).model
    d = float(np.float16(0.1))
    values = model.model.layers[0].self_attn.v_proj.weight[0]
    torch.testing.assert_close(values[:4], torch.tensor([127 * d, -63 * d, 0.0, 0.0]), rtol=1e-6, atol=0)
    assert values.dtype == torch.float32


def test_the_folder_is_made_once_and_says_what_it_was_made_of(tmp_path: Path) -> None:
    path = gguf_files.write(tmp_path / "tiny.gguf", gguf_files.model(), kind="Q4_1")
    folder = gguf_model.plain_folder(path)
    assert folder.is_relative_to(store.home())
    assert store.damage(folder) == []
    before = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert gguf_model.plain_folder(path) == folder
    assert {file.name: file.stat().st_mtime_ns for file in folder.iterdir()} == before
    source = gguf_file.source_of(folder)
    assert source is not None
    assert (source.file, source.architecture, source.quantization) == ("tiny.gguf", "llama", "Q4_1")
    assert source.tensors == {
        "Q4_1": 15,
        "F32": 5,
    }  # 7 matrices a layer and the embedding; 2 norms a layer and the last
    assert source.sha256 == store.file_digest(path)
    other = gguf_files.write(tmp_path / "tiny.gguf", gguf_files.model(), kind="Q8_0")
    assert gguf_model.plain_folder(other) != folder, "another file has another folder, whatever its name"


def test_large_models_are_written_in_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trimtab.engine import gguf_weights

    monkeypatch.setattr(gguf_weights, "_SHARD_BYTES", 30_000)
    llama = gguf_files.model()
    path = gguf_files.write(tmp_path / "tiny.gguf", llama)
    assert len(list(gguf_model.plain_folder(path).glob("model-*.safetensors"))) > 2
    assert torch.equal(logits(loaded(path).model), logits(llama))


# --- rotary positions ------------------------------------------------------------------------------------------------


def test_llama3_positions_are_read_from_their_table(tmp_path: Path) -> None:
    """θ = 10,000, 8 numbers a head: 4 frequencies 1, .1, .01, .001, which turn 8192/2π = 1303.8, 130.4, 13.04 and 1.304
    times in 8,192 positions. More than 4 turns: as they are; 1.304: share s = .304/3 = .1013 of the way from the slow
    one, so slowed by 1/((1 − .1013)/32 + .1013) = 7.73."""
    rope = {"rope_type": "llama3", "rope_theta": 10_000.0, "factor": 32.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}  # fmt: skip
    llama = gguf_files.model(rope_parameters=rope, max_position_embeddings=131_072)
    table = np.array([1.0, 1.0, 1.0, 7.73], dtype=np.float32)
    exact = 1 / ((1 - (8192e-3 / (2 * np.pi) - 1) / 3) / 32 + (8192e-3 / (2 * np.pi) - 1) / 3)
    assert exact == pytest.approx(table[3], rel=1e-3)
    table[3] = exact
    path = gguf_files.write(
        tmp_path / "tiny.gguf", llama, tensors={"rope_freqs.weight": table}, fields={"llama.rope.freq_base": 10_000.0}
    )
    with pytest.raises(ModelError, match="not Llama-3's"):  # the largest factor here is not the slowest frequency's
        gguf_model.plain_folder(path)
    wide = gguf_files.model(
        rope_parameters=rope | {"rope_theta": 500_000.0}, head_dim=16, max_position_embeddings=131_072
    )
    turns = 8192 * 500_000.0 ** (-np.arange(8) / 8) / (2 * np.pi)
    share = np.clip((turns - 1) / 3, 0, 1)
    table = (1 / ((1 - share) / 32 + share)).astype(np.float32)
    assert table[-1] == 32
    widths = ("attention.key_length", "attention.value_length", "rope.dimension_count")
    fields = {f"llama.{key}": 16 for key in widths} | {"llama.rope.freq_base": 500_000.0}
    path = gguf_files.write(tmp_path / "wide.gguf", wide, tensors={"rope_freqs.weight": table}, fields=fields)
    assert torch.equal(logits(loaded(path).model), logits(wide))


# --- the tokenizer ---------------------------------------------------------------------------------------------------


def test_text_is_split_as_the_file_says(tmp_path: Path) -> None:
    """By `smollm` each digit stands alone; by `gpt-2` the digits of a number may merge; both keep marks whole."""
    pieces = {}
    for name in ("smollm", "gpt-2"):
        path = gguf_files.write(tmp_path / f"{name}.gguf", gguf_files.model(), fields={"tokenizer.ggml.pre": name})
        pieces[name] = gguf_tokenizer.pipeline(gguf_file.GgufFile.read(path)).encode("<|im_start|>a 333").tokens
    assert pieces["smollm"] == ["<|im_start|>", "a", "Ġ", "3", "3", "3"]
    assert pieces["gpt-2"][:2] == ["<|im_start|>", "a"]
    assert len(pieces["gpt-2"]) < len(pieces["smollm"])


def test_the_saved_folder_has_the_tokenizer_and_the_template_of_the_file(tmp_path: Path) -> None:
    path = gguf_files.write(tmp_path / "tiny.gguf", gguf_files.model())
    folder = gguf_model.plain_folder(path)
    tokenizer = load_tokenizer(str(folder), offline=True)
    text = "Ünïcöde 漢字 e\u0301\n\n  12345 <|im_end|>"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert ids == gguf_tokenizer.pipeline(gguf_file.GgufFile.read(path)).encode(text).ids
    assert tokenizer.decode(ids) == text
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token) == (
        "<|im_start|>",
        "<|im_end|>",
        "<|endoftext|>",
    )
    assert tokenizer.chat_template == gguf_files.TEMPLATE


def test_sentencepiece_merges_best_score_first(tmp_path: Path) -> None:
    """`▁abc`: `bc` scores above `ab`, so a, bc join first, and then nothing has `a` and `bc` but `abc`."""
    tokens = ["<unk>", "<s>", "</s>", "<0x21>", "▁", "a", "b", "c", "ab", "bc", "abc", "▁a"]
    kinds = [2, 3, 3, 6, 1, 1, 1, 1, 1, 1, 1, 1]
    scores = [0.0, 0.0, 0.0, 0.0, -9.0, -9.0, -9.0, -9.0, -3.0, -2.0, -5.0, -4.0]
    fields = {
        "tokenizer.ggml.model": "llama", "tokenizer.ggml.pre": None, "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds, "tokenizer.ggml.scores": scores, "tokenizer.ggml.merges": None,
        "tokenizer.ggml.add_bos_token": None,
    }  # fmt: skip
    path = gguf_files.write(tmp_path / "tiny.gguf", gguf_files.model(), fields=fields)
    tokenizer = gguf_tokenizer.pipeline(gguf_file.GgufFile.read(path))
    assert tokenizer.encode("abc", add_special_tokens=False).tokens == ["▁a", "bc"]
    assert tokenizer.encode("abc").tokens[0] == "<s>", "SentencePiece files begin with BOS unless they say otherwise"
    assert tokenizer.encode("b!", add_special_tokens=False).tokens == ["▁", "b", "<0x21>"]
    assert tokenizer.decode(tokenizer.encode("b! a", add_special_tokens=False).ids) == "b! a"


# --- what is refused -------------------------------------------------------------------------------------------------


def refusal(path: Path) -> str:
    """What is said of a file; nothing may be left of it in the cache."""
    with pytest.raises(ModelError) as error:
        gguf_model.plain_folder(path)
    assert not list((store.home() / "gguf").glob("*") if (store.home() / "gguf").exists() else ())
    assert error.value.remedy
    return error.value.message


def test_a_cut_file_is_refused_wherever_it_is_cut(tmp_path: Path) -> None:
    whole = gguf_files.write(tmp_path / "whole.gguf", gguf_files.model()).read_bytes()
    for share in (0.0, 0.00005, 0.01, 0.2, 0.6, 0.999):
        path = tmp_path / f"{share}.gguf"
        path.write_bytes(whole[: int(share * len(whole))])
        assert str(path) in refusal(path)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"tokenizer.chat_template": None}, "no chat template"),
        ({"tokenizer.ggml.pre": None}, "does not say how text is split"),
        ({"tokenizer.ggml.pre": "klingon"}, "klingon"),
        ({"tokenizer.ggml.model": "bert"}, "bert"),
        ({"tokenizer.ggml.merges": ["no such"]}, "do not fit together"),
        ({"general.architecture": "mamba"}, "architecture mamba is not read"),
        ({"llama.rope.scaling.type": "yarn"}, "llama.rope.scaling.type = yarn"),
        ({"llama.expert_count": 8}, "expert_count"),
        ({"llama.block_count": 1}, "blk.1"),
        ({"llama.block_count": 3}, "lacks weights"),
        ({"llama.embedding_length": None}, "embedding_length"),
        ({"llama.attention.head_count_kv": [2, 2]}, "does not say llama.attention.head_count_kv as one number"),
        ({"llama.attention.head_count": 0}, "does not say llama.attention.head_count as one number"),
        ({"llama.rope.freq_base": [1e4, 1e4]}, "does not say llama.rope.freq_base as one number"),
        ({"llama.rope.dimension_count": 4}, "rotates 4 of the 8 numbers of a head"),
        ({"llama.attention.sliding_window": 16}, "says llama.attention.sliding_window = 16"),
        ({"split.count": 3}, "one part of several"),
    ],
)
def test_what_would_give_another_model_is_refused_by_name(tmp_path: Path, fields: dict[str, Any], words: str) -> None:
    assert words in refusal(gguf_files.write(tmp_path / "tiny.gguf", gguf_files.model(), fields=fields))


def test_tensors_that_are_missing_or_of_an_unknown_format_are_refused(tmp_path: Path) -> None:
    assert "lacks weights" in refusal(gguf_files.write(tmp_path / "a.gguf", gguf_files.model(), without="blk.1.ffn_up"))
    path = gguf_files.write(tmp_path / "b.gguf", gguf_files.model())
    content = path.read_bytes()
    name = b"blk.0.attn_v.weight"
    kind_at = content.index(name) + len(name) + 4 + 2 * 8  # behind the number of dimensions and two of them
    assert struct.unpack_from("<I", content, kind_at) == (0,)
    for kind, words in ((999, "not known here"), (24, "cannot be unpacked")):  # 24: I8, which nothing quantises to
        path.write_bytes(content[:kind_at] + struct.pack("<I", kind) + content[kind_at + 4 :])
        assert words in refusal(path)


def test_files_that_are_none_and_a_missing_package_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no such file" in refusal(tmp_path / "nowhere.gguf")
    (tmp_path / "text.gguf").write_text("hello")
    assert "no GGUF file" in refusal(tmp_path / "text.gguf")
    monkeypatch.setattr(gguf_file, "find_spec", lambda _name: None)
    with pytest.raises(ModelError) as error:
        gguf_model.plain_folder(tmp_path / "text.gguf")
    assert "trimtab[gguf]" in error.value.remedy


def test_weights_that_are_not_finite_are_named(tmp_path: Path) -> None:
    from trimtab.errors import NumericsError

    llama = gguf_files.model()
    with torch.no_grad():
        llama.model.layers[1].mlp.up_proj.weight[3, 3] = float("nan")
    path = gguf_files.write(tmp_path / "tiny.gguf", llama)
    with pytest.raises(NumericsError, match=r"blk\.1\.ffn_up"):
        gguf_model.plain_folder(path)
    assert not list((store.home() / "gguf").iterdir()) if (store.home() / "gguf").exists() else True


def test_the_written_configuration_has_the_older_words_too(tmp_path: Path) -> None:
    folder = gguf_model.plain_folder(gguf_files.write(tmp_path / "tiny.gguf", gguf_files.model()))
    tree = json.loads((folder / "config.json").read_text())
    assert (tree["rope_theta"], tree["torch_dtype"], tree["rms_norm_eps"]) == (10_000.0, "float32", 1e-6)
