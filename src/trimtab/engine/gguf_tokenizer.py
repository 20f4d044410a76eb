"""The tokenizer of a GGUF file, with ids as llama.cpp's.

A file has the vocabulary, the merges or scores, and in `tokenizer.ggml.pre` a name for how text is split before
merging. The pipeline is built from these alone; a name that is not known here is refused, since any other split gives
other ids than the model was trained on, and no error.

    gpt2 (byte-level BPE)     split as `pre` says → bytes → merges
    llama (SentencePiece)     spaces as ▁, with one in front → merges in the order of the scores, bytes for the rest
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab import store
from trimtab.engine.gguf_file import GgufFile, file_error
from trimtab.errors import ModelError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.models import BPE


class TokenType(IntEnum):
    """Of `tokenizer.ggml.token_type`."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


# the regular expressions with which the families' own tokenizer.json files split
_LETTERS = r"[^\r\n\p{L}\p{N}]?"
_TAIL = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_ENGLISH = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_LLAMA3 = rf"{_ENGLISH}|{_LETTERS}\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_TAIL}"
_QWEN2 = rf"{_ENGLISH}|{_LETTERS}\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_TAIL}"
_QWEN35 = rf"{_ENGLISH}|{_LETTERS}[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_TAIL}"
_CASED = rf"{_LETTERS}{_UPPER}*{_LOWER}+{{0}}|{_LETTERS}{_UPPER}+{_LOWER}*{{0}}"
_TEKKEN = _CASED.replace("{0}", "") + rf"|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_TAIL}"
_GPT4O = _CASED.replace("{0}", f"{_ENGLISH}?") + rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_TAIL}"
_GPT2, _DIGITS = "gpt2", "digits"  # the library has these two itself
_SPLITS = {
    _GPT2: "gpt-2 mpt olmo jais phi-2 trillion granite-docling",
    _DIGITS: "smollm starcoder refact command-r codeshell exaone minerva-7b",
    _LLAMA3: "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 dbrx smaug-bpe",
    _QWEN2: "qwen2 stablelm2 deepseek-r1-qwen kormo megrez",
    _QWEN35: "qwen35",
    _TEKKEN: "tekken",
    _GPT4O: "gpt-4o llama4 kanana2",
}
KNOWN_SPLITS = {name: split for split, names in _SPLITS.items() for name in names.split()}
_WHOLE_WORDS_FIRST = {_LLAMA3, _TEKKEN}  # a word that is a token is one, whatever the merges would make of it
_NORMALIZED = {_QWEN2, _QWEN35}  # these families compose characters (NFC) before they split
_NAMED = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}


def write(file: GgufFile, folder: Path) -> None:
    """tokenizer.json, tokenizer_config.json and chat_template.jinja in the existing `folder`.

    Raises ModelError for a vocabulary, or a split, that is not known here, and where the file has no chat template.
    """
    template = file.fields.get("tokenizer.chat_template")
    if not isinstance(template, str) or not template.strip():
        raise file_error(
            file.path,
            "has no chat template",
            remedy="Name the folder or Hub model that it was made from: there a base model is trained on plain text.",
        )
    store.write_text(folder / "tokenizer.json", pipeline(file).to_str())
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": int(file.of_model("context_length", 0)) or 1_000_000_000,
    }
    store.write_json(folder / "tokenizer_config.json", config | named_tokens(file))
    store.write_text(folder / "chat_template.jinja", template)


def named_tokens(file: GgufFile) -> dict[str, str]:
    """`bos_token`, `eos_token` and the others that the file names."""
    ids = {name: _field(file, key) for name, key in _NAMED.items()}
    tokens = _field(file, "tokens") or []
    return {name: tokens[token] for name, token in ids.items() if isinstance(token, int) and token < len(tokens)}


def pipeline(file: GgufFile) -> Tokenizer:
    """Text to ids, without what a file cannot say of its added tokens (white space that they swallow)."""
    from tokenizers import AddedToken, Tokenizer

    tokens, kinds = _vocabulary(file)
    match _field(file, "model"):
        case "gpt2":
            split = _split(file)
            tokenizer = Tokenizer(_byte_level_model(file, tokens, kinds, split))
            _byte_level_parts(tokenizer, split)
        case "llama":
            split = ""
            tokenizer = Tokenizer(_sentencepiece_model(file, tokens, kinds))
            _sentencepiece_parts(tokenizer, has_prefix=bool(_field(file, "add_space_prefix", default=True)))
        case unknown:
            raise file_error(file.path, f"has a tokenizer of a kind that is not known here ({unknown})")
    special = (TokenType.CONTROL, TokenType.UNKNOWN)
    for token, kind in zip(tokens, kinds, strict=True):
        if kind in (*special, TokenType.USER_DEFINED) and token:
            added = AddedToken(token, normalized=False, special=kind in special)
            (tokenizer.add_special_tokens if kind in special else tokenizer.add_tokens)([added])
    _add_frame(tokenizer, file, tokens, begins_by_default=split in {"", *_WHOLE_WORDS_FIRST})
    return tokenizer


def _field(file: GgufFile, key: str, *, default: Any = None) -> Any:
    return file.fields.get(f"tokenizer.ggml.{key}", default)


def _vocabulary(file: GgufFile) -> tuple[Sequence[str], Sequence[int]]:
    tokens, kinds = _field(file, "tokens"), _field(file, "token_type")
    if not isinstance(tokens, list) or not tokens:
        raise file_error(file.path, "has no vocabulary")
    if not isinstance(kinds, list) or len(kinds) != len(tokens):
        kinds = [int(TokenType.NORMAL)] * len(tokens)
    return tokens, kinds


def _split(file: GgufFile) -> str:
    name = _field(file, "pre")
    if name not in KNOWN_SPLITS:
        fault = "does not say how text is split" if name is None else f"splits text in a way not known here ({name})"
        raise file_error(file.path, f"{fault} (tokenizer.ggml.pre)", remedy=_UNKNOWN_SPLIT)
    return KNOWN_SPLITS[name]


_UNKNOWN_SPLIT = (
    "Any other split would give other ids than in training. Name the model's own folder or its Hub id instead."
)


def _byte_level_model(file: GgufFile, tokens: Sequence[str], kinds: Sequence[int], split: str) -> BPE:
    from tokenizers.models import BPE

    merges = [tuple(merge.split(" ", 1)) for merge in _field(file, "merges") or []]
    vocabulary = {t: n for n, (t, kind) in enumerate(zip(tokens, kinds, strict=True)) if kind != TokenType.UNUSED}
    return _checked(file, BPE, vocab=vocabulary, merges=merges, ignore_merges=split in _WHOLE_WORDS_FIRST)


def _byte_level_parts(tokenizer: Tokenizer, split: str) -> None:
    from tokenizers import Regex, decoders, normalizers, pre_tokenizers

    own = split in (_GPT2, _DIGITS)
    first: list[Any] = [] if own else [pre_tokenizers.Split(Regex(split), behavior="isolated")]
    if split == _DIGITS:
        first = [pre_tokenizers.Digits(individual_digits=True)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [*first, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=own)]
    )
    if split in _NORMALIZED:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()


def _sentencepiece_model(file: GgufFile, tokens: Sequence[str], kinds: Sequence[int]) -> BPE:
    from tokenizers.models import BPE

    scores = _field(file, "scores")
    if not isinstance(scores, list) or len(scores) != len(tokens):
        raise file_error(file.path, "has a SentencePiece vocabulary without scores")
    normal = {t: n for n, (t, kind) in enumerate(zip(tokens, kinds, strict=True)) if kind == TokenType.NORMAL}
    vocabulary = {t: n for n, (t, kind) in enumerate(zip(tokens, kinds, strict=True)) if kind != TokenType.UNUSED}
    unknown = _field(file, "unknown_token_id")
    unknown_token = tokens[unknown] if isinstance(unknown, int) and unknown < len(tokens) else None
    return _checked(
        file, BPE, vocab=vocabulary, merges=_merges(normal, scores), unk_token=unknown_token, fuse_unk=True,
        byte_fallback=TokenType.BYTE in kinds,
    )  # fmt: skip


def _merges(vocabulary: Mapping[str, int], scores: Sequence[float]) -> list[tuple[str, str]]:
    """Every way to make a token of two others, best score first: the order in which SentencePiece merges."""
    ranked = []
    for token, number in vocabulary.items():
        for cut in range(1, len(token)):
            left, right = vocabulary.get(token[:cut]), vocabulary.get(token[cut:])
            if left is not None and right is not None:
                ranked.append((-scores[number], left, right, (token[:cut], token[cut:])))
    return [merge for *_, merge in sorted(ranked)]


def _sentencepiece_parts(tokenizer: Tokenizer, *, has_prefix: bool) -> None:
    from tokenizers import decoders, normalizers

    spaces = normalizers.Replace(" ", "▁")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces]) if has_prefix else spaces
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*parts, decoders.Strip(" ", 1, 0)] if has_prefix else parts)


def _checked(file: GgufFile, model: type[BPE], **parts: Any) -> BPE:
    try:
        return model(**parts)
    except Exception as error:  # the library's own, of no narrower class
        raise ModelError(
            f"{file.path}: its vocabulary and its merges do not fit together ({error})",
            remedy="The file is damaged: download or convert it again.",
        ) from error


def _add_frame(tokenizer: Tokenizer, file: GgufFile, tokens: Sequence[str], *, begins_by_default: bool) -> None:
    """What the tokenizer itself puts around a text."""
    from tokenizers.processors import TemplateProcessing

    def mark(key: str, flag: str, *, default: bool) -> list[tuple[str, int]]:
        number = _field(file, key)
        is_set = bool(_field(file, flag, default=default)) and isinstance(number, int) and number < len(tokens)
        return [(tokens[number], number)] if is_set else []

    first = mark("bos_token_id", "add_bos_token", default=begins_by_default)
    last = mark("eos_token_id", "add_eos_token", default=False)
    if first or last:
        single = [*(token for token, _ in first), "$A", *(token for token, _ in last)]
        tokenizer.post_processor = TemplateProcessing(single=single, special_tokens=[*first, *last])
