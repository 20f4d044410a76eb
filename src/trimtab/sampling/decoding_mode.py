"""A model under training, borrowed for decoding and given back as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

# What transformers ships and what works with a KV cache; anything else (an attention function registered for packed
# training) is exchanged while decoding.
_STANDARD = frozenset({"eager", "sdpa", "flash_attention_2", "flash_attention_3"})


def transformers_model_of(model: Any) -> Any:
    """The transformers model inside a PEFT wrapper, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


@contextmanager
def decoding_mode(model: Any) -> Iterator[None]:
    """Evaluation mode, no gradient, a standard attention implementation; all three restored on the way out.

    `no_grad` and not `inference_mode`: buffers that a model makes on the way (rotary tables) must stay usable in the
    next training step.
    """
    base = transformers_model_of(model)
    training = [module for module in model.modules() if module.training]
    attention = base.config._attn_implementation
    is_foreign = attention not in _STANDARD
    try:
        model.eval()
        if is_foreign:
            base.set_attn_implementation("sdpa" if getattr(base, "_supports_sdpa", False) else "eager")
        with torch.no_grad():
            yield
    finally:
        if is_foreign:
            base.set_attn_implementation(attention)
        for module in training:
            module.training = True
