"""The tokenizer in memory is the folder's, whatever class transformers would choose; so is the one that is saved."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import Qwen2Tokenizer

from trimtab.data.loading import load_chat_template
from trimtab.errors import ModelError
from trimtab.tokenizer_files import PROBE, load_tokenizer, save_tokenizer

CORPUS = ["What is the capital of France? user assistant system 2345 2345 Answer: it is good, and short."] * 5
MARKS = ["<unk>", "<s>", "</s>"]
TEXT = f"{PROBE}What is the capital of France?  2345</s> <s>\n"


def sentencepiece() -> Tokenizer:
    """Llama 2's pipeline: white space is part of the tokens, bytes stand for what the vocabulary lacks."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    octets = [f"<0x{number:02X}>" for number in range(256)]
    return _trained(tokenizer, trainers.BpeTrainer(special_tokens=[*MARKS, *octets], show_progress=False))


def sentencepiece_with_digits() -> Tokenizer:
    tokenizer = sentencepiece()
    tokenizer.pre_tokenizer = pre_tokenizers.Digits(individual_digits=True)
    return tokenizer


def words() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return _trained(tokenizer, trainers.WordLevelTrainer(special_tokens=MARKS, show_progress=False))


def unigram() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=60, special_tokens=MARKS, unk_token="<unk>", show_progress=False)
    return _trained(tokenizer, trainer)


def byte_level() -> Tokenizer:
    return _bytes(pre_tokenizers.ByteLevel(add_prefix_space=False))


def byte_level_with_digits() -> Tokenizer:
    """SmolLM2's pipeline, whose folder names GPT2Tokenizer."""
    digits = pre_tokenizers.Digits(individual_digits=True)
    return _bytes(pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)]))


def _bytes(pre_tokenizer: pre_tokenizers.PreTokenizer) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizer, decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(special_tokens=MARKS, initial_alphabet=alphabet, show_progress=False)
    return _trained(tokenizer, trainer)


def _trained(tokenizer: Tokenizer, trainer: trainers.Trainer) -> Tokenizer:
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def write(folder: Path, tokenizer: Tokenizer, *, model_type: str, tokenizer_class: str, **config: object) -> Path:
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    declared = {"tokenizer_class": tokenizer_class, "bos_token": "<s>", "eos_token": "</s>", **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(declared), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}), encoding="utf-8")
    return folder


def ids_in_file(folder: Path, text: str = TEXT) -> list[int]:
    ids: list[int] = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text, add_special_tokens=False).ids
    return ids


FOLDERS: dict[str, tuple[Callable[[], Tokenizer], str, str]] = {
    "sentencepiece in a qwen2 folder": (sentencepiece, "qwen2", "Qwen2Tokenizer"),
    "words in a qwen2 folder": (words, "qwen2", "PreTrainedTokenizerFast"),
    "unigram in a qwen3 folder": (unigram, "qwen3", "Qwen2Tokenizer"),
    "GPT2Tokenizer in a llama folder": (sentencepiece_with_digits, "llama", "GPT2Tokenizer"),
    "GPT2Tokenizer with digits": (byte_level_with_digits, "llama", "GPT2Tokenizer"),
    "bytes under LlamaTokenizerFast": (byte_level, "llama", "LlamaTokenizerFast"),
    "bytes under GemmaTokenizerFast": (byte_level, "gemma2", "GemmaTokenizerFast"),
    "unigram under LlamaTokenizer": (unigram, "llama", "LlamaTokenizer"),
    "no class named": (words, "gpt2", ""),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_ids_are_those_of_the_folders_own_file(name: str, tmp_path: Path) -> None:
    """transformers#48206, #45488, #45812: the class is chosen by model_type or name, and rebuilds the pipeline. Right:
    the ids of `tokenizers.Tokenizer.from_file("tokenizer.json")`."""
    make, model_type, tokenizer_class = FOLDERS[name]
    folder = write(tmp_path / "model", make(), model_type=model_type, tokenizer_class=tokenizer_class)
    tokenizer = load_tokenizer(str(folder), offline=True)
    assert tokenizer(TEXT, add_special_tokens=False)["input_ids"] == ids_in_file(folder)
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<s>", "</s>")
    assert len(tokenizer) == Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size(), "no token of a class"
    assert load_chat_template(str(folder), offline=True).tokenizer.get_vocab() == tokenizer.get_vocab()


def test_flags_of_added_tokens_are_those_of_tokenizer_json(tmp_path: Path) -> None:
    """tokenizer_config.json says again which white space a mark swallows; tokenizer.json decides the ids."""
    backend = byte_level()
    backend.add_special_tokens([AddedToken("<|end|>", rstrip=True)])
    folder = write(
        tmp_path / "model", backend, model_type="llama", tokenizer_class="PreTrainedTokenizerFast",
        added_tokens_decoder={str(backend.token_to_id("<|end|>")): {"content": "<|end|>", "rstrip": False}},
    )  # fmt: skip
    tokenizer = load_tokenizer(str(folder), offline=True)
    assert tokenizer("a<|end|> \nb", add_special_tokens=False)["input_ids"] == ids_in_file(folder, "a<|end|> \nb")


@pytest.mark.parametrize("make", [words, byte_level])
def test_truncation_and_padding_left_in_the_file_are_no_part_of_it(
    make: Callable[[], Tokenizer], tmp_path: Path
) -> None:
    backend = make()
    backend.enable_truncation(max_length=4)
    backend.enable_padding(length=600)
    folder = write(tmp_path / "model", backend, model_type="qwen2", tokenizer_class="Qwen2Tokenizer")
    backend.no_truncation()
    backend.no_padding()
    template = load_chat_template(str(folder), offline=True)
    assert list(template._encode([TEXT])[0]) == backend.encode(TEXT, add_special_tokens=False).ids


def test_a_class_adds_no_token_of_its_own(tmp_path: Path) -> None:
    """Qwen2Tokenizer's `<|endoftext|>` would get an id behind the last row of the embedding."""
    backend = byte_level()
    pipeline = Qwen2Tokenizer().backend_tokenizer
    backend.normalizer, backend.pre_tokenizer = pipeline.normalizer, pipeline.pre_tokenizer
    folder = write(tmp_path / "model", backend, model_type="qwen2", tokenizer_class="Qwen2Tokenizer")
    assert len(load_tokenizer(str(folder), offline=True)) == backend.get_vocab_size()


def test_tokens_that_only_the_configuration_adds_stay(tmp_path: Path) -> None:
    size = words().get_vocab_size()
    folder = write(
        tmp_path / "model", words(), model_type="qwen2", tokenizer_class="Qwen2Tokenizer",
        added_tokens_decoder={str(size): {"content": "<|im_end|>", "special": True}},
    )  # fmt: skip
    assert load_tokenizer(str(folder), offline=True)("<|im_end|>", add_special_tokens=False)["input_ids"] == [size]


def test_what_cannot_be_had_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "model", words(), model_type="qwen2", tokenizer_class="Qwen2Tokenizer")
    monkeypatch.setattr("trimtab.tokenizer_files._encodes_alike", lambda *_: False)
    with pytest.raises(ModelError, match=r"tokenizer\.json: transformers \(Qwen2Tokenizer\) encodes text otherwise"):
        load_chat_template(str(folder), offline=True)


# ---- templates and saving --------------------------------------------------------------------------------------------

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.mark.parametrize("name", ["chat_template.json", "processor_config.json"])
def test_a_template_in_a_processors_file_alone_is_read(name: str, tmp_path: Path) -> None:
    """text-generation-inference#3247, Qwen3-VL#1488: transformers reads these files for processors only."""
    folder = write(tmp_path / "model", byte_level(), model_type="llama", tokenizer_class="PreTrainedTokenizerFast")
    template_json = folder / name
    template_json.write_text(json.dumps({"chat_template": CHATML}), encoding="utf-8")
    tokenizer = load_tokenizer(str(folder), offline=True)
    assert tokenizer.chat_template == CHATML
    (tmp_path / "saved").mkdir()
    save_tokenizer(tokenizer, tmp_path / "saved")
    assert (tmp_path / "saved" / "chat_template.jinja").read_text(encoding="utf-8") == CHATML, "where others look"
    for broken in ("{broken", "[]", '{"chat_template": 3}'):
        template_json.write_text(broken, encoding="utf-8")
        with pytest.raises(ModelError, match=rf"{name}: "):
            load_tokenizer(str(folder), offline=True)


def test_a_processor_need_not_have_a_template(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", byte_level(), model_type="llama", tokenizer_class="PreTrainedTokenizerFast")
    (folder / "processor_config.json").write_text('{"processor_class": "LlavaProcessor"}', encoding="utf-8")
    assert load_tokenizer(str(folder), offline=True).chat_template is None


@pytest.mark.parametrize("name", FOLDERS)
def test_saved_files_are_those_that_were_loaded_byte_for_byte(name: str, tmp_path: Path) -> None:
    """unsloth#8444, mlx-lm#683: written anew they hold `TokenizersBackend` and `is_local`, which older libraries
    refuse; and the class's pipeline in place of the file's."""
    make, model_type, tokenizer_class = FOLDERS[name]
    folder = write(tmp_path / "model", make(), model_type=model_type, tokenizer_class=tokenizer_class)
    (folder / "tokenizer.model").write_bytes(b"as it was")
    (folder / "chat_template.jinja").write_text(CHATML, encoding="utf-8")
    (tmp_path / "saved").mkdir()
    save_tokenizer(load_tokenizer(str(folder), offline=True), tmp_path / "saved")
    for file in ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "chat_template.jinja"):
        assert (tmp_path / "saved" / file).read_bytes() == (folder / file).read_bytes()


def test_a_tokenizer_from_no_folder_is_written(tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    save_tokenizer(PreTrainedTokenizerFast(tokenizer_object=byte_level(), eos_token="</s>"), tmp_path)
    assert load_tokenizer(str(tmp_path), offline=True)(TEXT, add_special_tokens=False)["input_ids"] == ids_in_file(
        tmp_path
    )
