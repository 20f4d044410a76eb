"""The chat template of a model folder or a model on the Hub, without loading the model itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trimtab import store
from trimtab.data.chat import ChatTemplate
from trimtab.errors import ModelError
from trimtab.tokenizer_files import load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_chat_template(
    model: str, *, revision: str | None = None, offline: bool = False, embedding_rows: int | None = None
) -> ChatTemplate:
    """Tokenizer and end ids of a model: a transformers folder, or a name on the Hub (its local cache when `offline`).

    Runs no code from the model. Raises `ModelError` when there is no such model, it has no tokenizer, or its chat
    template cannot be used.
    """
    tokenizer = tokenizer_of(model, revision=revision, offline=offline)
    ends = generation_end_ids(model, revision=revision, offline=offline)
    try:
        return ChatTemplate.of(tokenizer, generation_end_ids=ends, embedding_rows=embedding_rows)
    except ModelError as error:
        raise ModelError(f"{model}: {error.message}", remedy=error.remedy) from None


def tokenizer_of(model: str, *, revision: str | None = None, offline: bool) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or Hub model. Raises ModelError, naming the model, where it cannot be loaded."""
    folder = Path(model).expanduser()
    if not folder.exists() and (model.startswith((".", "/", "~")) or model.count("/") > 1):
        raise ModelError(f"{model}: there is no such folder", remedy="check the path, or name a model as owner/name")
    if folder.is_dir() and not any(folder.glob("tokenizer*")) and not any(folder.glob("*.model")):
        raise ModelError(
            f"{model}: there is no tokenizer in this folder",
            remedy="name a transformers model folder (config.json, model.safetensors, tokenizer.json)",
        )
    try:
        return load_tokenizer(str(folder) if folder.exists() else model, revision=revision, offline=offline)
    except ModelError:
        raise
    except Exception as error:  # a registry, a parser and a network speak here, each with errors of its own
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"{model}: its tokenizer cannot be loaded: {first}",
            remedy="name a transformers model folder, or a model on the Hub as owner/name (and check the network)",
        ) from error


def generation_end_ids(model: str, *, revision: str | None = None, offline: bool) -> int | list[int] | None:
    """The ids at which the model's own `generate` ends: `eos_token_id` of generation_config.json; in a folder without
    that file of config.json, where transformers looks then; None where neither names one."""
    from transformers import GenerationConfig

    folder = Path(model).expanduser()
    if folder.is_dir() and not (folder / "generation_config.json").is_file():
        config_json = folder / "config.json"
        config = store.read_json(config_json) if config_json.is_file() else None
        return config.get("eos_token_id") if isinstance(config, dict) else None
    try:
        config = GenerationConfig.from_pretrained(
            str(folder) if folder.is_dir() else model, revision=revision, local_files_only=offline
        )
    except Exception as error:  # a registry, a parser and a network speak here, too
        if isinstance(error, OSError) and not folder.is_dir():
            return None
        raise ModelError(
            f"{model}: its generation_config.json cannot be read: {str(error).splitlines()[0]}",
            remedy="correct the file, or remove it if the tokenizer's eos_token ends an answer",
        ) from error
    ids: int | list[int] | None = config.eos_token_id
    return ids
