"""The tokenizer of a model folder or a Hub model, exactly as the folder's own files have it, in and out.

transformers chooses a tokenizer *class* by `model_type` or by the class's name, and some classes rebuild normaliser,
pre-tokenizer and model around the vocabulary, whatever tokenizer.json says. What comes out encodes, but not as in the
model's training. So the pipeline in memory is compared with the file, part by part and on a probe text; where it is
another one, the file's own is used. A saved model gets the very files that its tokenizer came from.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab import store
from trimtab.errors import ModelError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

# all that decides a tokenizer or its chat template, as globs in a model folder
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tekken.json",
    "*.model",
    "*.tiktoken",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates/*.jinja",
)
# Digits, runs of spaces, line ends, punctuation, contractions, case, accents in both compositions, other scripts, emoji
# joined of several, white space at the edges: what pre-tokenizers and normalisers of different families treat apart.
PROBE = (
    "  What is 3 + 12345.678?  Don't you'LL  say\n\n\t 'YES'...\r\n    def f(x_1): return x**2  # ok\n"
    "Ünïcöde e\u0301 ﬁ ½ İstanbul ﷺ  漢字かな 한국어 Добрый день שלום مرحبا हिन्दी ไทย 👩‍👩‍👧🙂\u00a0\u2003\u200b "
    "user<b>assistant</b>: [INST] a_b-c/d@e.f?g=h&i=1 \n \n"
)
_TEMPLATES_OF_PROCESSORS = ("chat_template.json", "processor_config.json")
_ENCODING_PARTS = ("normalizer", "pre_tokenizer", "model", "decoder")
_NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def load_tokenizer(
    name: str, *, revision: str | None = None, offline: bool = False, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or Hub model; its ids are those of `tokenizers.Tokenizer.from_file("tokenizer.json")`
    where there is such a file. A template that stands alone in a file for processors is read, too.

    Raises ModelError where the file's own pipeline cannot be had, and what transformers raises while it loads.
    """
    from transformers import AutoTokenizer, TokenizersBackend
    from transformers.utils import cached_file

    options: dict[str, Any] = {"revision": revision, "local_files_only": offline}

    def file(relative: str) -> Path | None:
        path = cached_file(
            name, relative, **options,
            _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False,
        )  # fmt: skip
        return None if path is None else Path(path)

    tokenizer_json = file("tokenizer.json")
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=trust_remote_code, **options)
    except Exception:  # a class of the library's choice may not take the file's vocabulary at all
        if tokenizer_json is None or trust_remote_code:
            raise
        tokenizer = TokenizersBackend.from_pretrained(name, **options)
    by_own_code = type(tokenizer).__module__.startswith("transformers_modules")  # trusted, so it is the tokenizer
    if tokenizer_json is not None and not by_own_code:
        tokenizer = _as_in_file(
            tokenizer, tokenizer_json, without_class=lambda: TokenizersBackend.from_pretrained(name, **options)
        )
    if tokenizer_json is not None:
        tokenizer.name_or_path = str(tokenizer_json.parent)  # where `save_tokenizer` finds the files
    for relative in _TEMPLATES_OF_PROCESSORS if tokenizer.chat_template is None else ():
        if (template_json := file(relative)) is not None:
            tokenizer.chat_template = _template_in(template_json)
            break
    return tokenizer


def _as_in_file(
    tokenizer: PreTrainedTokenizerBase, tokenizer_json: Path, *, without_class: Callable[[], PreTrainedTokenizerBase]
) -> PreTrainedTokenizerBase:
    """`tokenizer` where it encodes as its file does, else the file's pipeline with the folder's tokens and template.

    without_class: the folder's tokenizer without a class of the library's choice, which may bring tokens of its own.
    """
    from tokenizers import Tokenizer
    from transformers import TokenizersBackend

    own = Tokenizer.from_file(str(tokenizer_json))
    own.no_truncation()  # some files keep the state of a call; neither says how text becomes ids
    own.no_padding()
    alike = _encodes_alike(tokenizer, own)
    if alike and len(tokenizer) == own.get_vocab_size():
        return tokenizer
    plain = without_class()
    if alike and len(tokenizer) == len(plain):  # further tokens, declared by the folder and not invented by the class
        return tokenizer
    special_tokens = {key: str(token) for key in _NAMED_TOKENS if (token := getattr(plain, key)) is not None}
    # what only the class knows (GPT-2's folders name no end of text) holds where the file has that token
    for key in _NAMED_TOKENS:
        token = getattr(tokenizer, key)
        if token is not None and own.token_to_id(str(token)) is not None:
            special_tokens.setdefault(key, str(token))
    in_file = {token.content for token in own.get_added_tokens_decoder().values()}
    rebuilt = TokenizersBackend(
        tokenizer_object=own,
        added_tokens_decoder={n: t for n, t in plain.added_tokens_decoder.items() if t.content not in in_file},
        chat_template=plain.chat_template,
        model_max_length=plain.model_max_length,
        padding_side=plain.padding_side,
        truncation_side=plain.truncation_side,
        clean_up_tokenization_spaces=False,
        **special_tokens,
    )
    if not _encodes_alike(rebuilt, own):
        raise ModelError(
            f"{tokenizer_json}: transformers ({type(tokenizer).__name__}) encodes text otherwise than this file says",
            remedy="set tokenizer_class to PreTrainedTokenizerFast in tokenizer_config.json, "
            "and name only tokens there that tokenizer.json has",
        )
    return rebuilt


def _encodes_alike(tokenizer: PreTrainedTokenizerBase, own: Tokenizer) -> bool:
    """Whether every part that turns text into ids is the file's, and the ids of the probe are, too.

    The probe alone would not do: it cannot hold every merge. The parts alone would not: settings such as
    `split_special_tokens` stand outside them.
    """
    backend: Tokenizer | None = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return False
    pipeline, pipeline_in_file = json.loads(backend.to_str()), json.loads(own.to_str())
    if any(pipeline[part] != pipeline_in_file[part] for part in _ENCODING_PARTS):
        return False
    texts = [PROBE, *(f"a {token.content} \n{token.content}b " for token in own.get_added_tokens_decoder().values())]
    rows = tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
    return bool(rows == [row.ids for row in own.encode_batch(texts, add_special_tokens=False)])


def _template_in(template_json: Path) -> str | None:
    """The template in a file that transformers reads for processors and not for tokenizers."""
    try:
        content = json.loads(template_json.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{template_json}: cannot be read: {error}", remedy="download or correct the file") from None
    template = content.get("chat_template") if isinstance(content, dict) else None
    if isinstance(content, dict) and template is None and template_json.name == "processor_config.json":
        return None  # a processor need not have one
    if not isinstance(template, str):
        raise ModelError(
            f"{template_json}: holds no text under 'chat_template'",
            remedy="write the template to chat_template.jinja, or remove the file to train on plain text",
        )
    return template


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Put a tokenizer's files into the existing `folder`: those it was loaded from, byte for byte, as training changes
    none of them; written anew only where it came from no folder."""
    source = Path(tokenizer.name_or_path) if tokenizer.name_or_path else folder
    files = [] if source == folder else [path for pattern in TOKENIZER_FILES for path in source.glob(pattern)]
    if not files:
        tokenizer.save_pretrained(str(folder))
        return
    for path in files:
        target = folder / path.relative_to(source)
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, target)
    # others look for a template in two places, and not in chat_template.json
    elsewhere = (folder / "chat_template.jinja").exists() or _declares_template(folder / "tokenizer_config.json")
    if isinstance(tokenizer.chat_template, str) and not elsewhere:
        store.write_text(folder / "chat_template.jinja", tokenizer.chat_template)


def _declares_template(tokenizer_config: Path) -> bool:
    return tokenizer_config.exists() and "chat_template" in store.read_json(tokenizer_config)
