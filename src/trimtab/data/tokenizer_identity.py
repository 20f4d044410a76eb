"""What decides a tokenizer's ids, and what it puts in front of a text by itself."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def first_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """What the tokenizer itself puts in front of a text; what it may put behind one is left out."""
    bare: list[int] = tokenizer("a", add_special_tokens=False)["input_ids"]
    ids_with_frame: list[int] = tokenizer("a", add_special_tokens=True)["input_ids"]
    start = next((at for at in range(len(ids_with_frame)) if ids_with_frame[at : at + len(bare)] == bare), 0)
    return tuple(ids_with_frame[:start])


_CALL_STATE = ("truncation", "padding")  # what a call may leave behind in a tokenizer


def tokenizer_identity(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """What decides a tokenizer's ids."""
    identity: dict[str, Any] = {"special": {name: str(token) for name, token in tokenizer.special_tokens_map.items()}}
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return identity | {"class": type(tokenizer).__name__, "vocabulary": tokenizer.get_vocab()}
    pipeline = json.loads(backend.to_str())
    return identity | {"backend": {part: value for part, value in pipeline.items() if part not in _CALL_STATE}}
