"""What can be known of a model without its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trimtab.errors import ModelError


def read_config(folder: Path, *, trust_remote_code: bool = False) -> Any:
    """The transformers configuration of a model folder; a PEFT folder has its base's. Raises ModelError."""
    from transformers import AutoConfig

    if not (folder / "config.json").is_file() and not (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"{folder}: no model here (config.json is missing)",
            remedy="name a folder written by save_pretrained, or a Hub model (owner/name)",
        )
    try:
        return AutoConfig.from_pretrained(
            str(folder), trust_remote_code=trust_remote_code, local_files_only=True
        ).get_text_config()
    except Exception as error:  # a registry and the validators of hundreds of models speak here
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"{folder}: its config.json cannot be used ({first})", remedy="download or save the model again"
        ) from error


def window(config: Any) -> int | None:
    """Positions that the model can be given, in tokens; None where nothing bounds them."""
    window: int | None = getattr(config, "max_position_embeddings", None)
    return window
