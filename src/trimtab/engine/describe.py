"""What can be known of a model without its weights: tokenizer, configuration, end tokens, window."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.engine.models import _said_plainly as said_plainly


@dataclass(frozen=True, slots=True)
class Described:
    """`end_ids` is `eos_token_id` of the generation config as it stands; `window` in tokens, None when unbounded."""

    tokenizer: Any
    config: Any
    end_ids: int | list[int] | None
    window: int | None


def describe(folder: Path, *, trust_remote_code: bool = False) -> Described:
    """Read the small files of a model folder. Raises ModelError where one is missing or cannot be used."""
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    with said_plainly(str(folder), offline=True):
        options = {"trust_remote_code": trust_remote_code, "local_files_only": True}
        config = AutoConfig.from_pretrained(str(folder), **options)
        tokenizer = AutoTokenizer.from_pretrained(str(folder), **options)
        generation = GenerationConfig.from_model_config(config)
        if (folder / "generation_config.json").is_file():
            generation = GenerationConfig.from_pretrained(str(folder), local_files_only=True)
    window = getattr(config.get_text_config(), "max_position_embeddings", None)
    return Described(tokenizer, config, generation.eos_token_id, window)
