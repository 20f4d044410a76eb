"""A model that a program has in memory, as a plain model folder in the global cache, named by its content."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch

from trimtab import store
from trimtab.engine import adapters, finite, model_config, models, trainable
from trimtab.errors import ModelError
from trimtab.records import digest
from trimtab.tokenizer_files import PROBE, load_tokenizer

_OF_ADAPTERS = ("lora_", "modules_to_save", "trainable_tokens")
FORM = 1  # raise when the folders come out otherwise, so that older ones are not taken for them


def folder_of(model: Any, tokenizer: Any) -> Path:
    """The folder; `model` and `tokenizer` stay as they are. A PEFT model's active adapters are merged, in fp32.

    Raises ModelError for a model in 4 or 8 bit, a merge that says something else, and a tokenizer that encodes
    otherwise once it is saved; NumericsError for weights that are not finite.
    """
    if getattr(model, "is_quantized", False) or getattr(trainable.causal_lm_of(model), "is_quantized", False):
        raise ModelError(
            "a loaded model in 4 or 8 bit has lost the weights that it came from",
            remedy="give the folder or Hub name that it was loaded from, with adapter={'quantize': 'nf4'}",
        )
    finite.refuse_weights(model, "the loaded model")
    target = store.home() / "models" / _name(model, tokenizer)
    if not target.is_dir():
        store.commit_folder(target, lambda folder: _save(model, tokenizer, folder))
    return target


def _name(model: Any, tokenizer: Any) -> str:
    peft = {name: str(config.to_dict()) for name, config in getattr(model, "peft_config", {}).items()}
    active = list(getattr(model, "active_adapters", ())) if peft else []
    backend = getattr(tokenizer, "backend_tokenizer", None)
    words = tokenizer.get_vocab() if backend is None else backend.to_str()
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    plain = trainable.causal_lm_of(model)
    config, generation = plain.config.to_json_string(), plain.generation_config.to_json_string()
    parts = [FORM, models.weights_digest(model), config, generation, peft, active]
    return digest([*parts, words, tokenizer.chat_template, special])[:32]


def _save(model: Any, tokenizer: Any, folder: Path) -> None:
    """As they are in memory, and not as the folder has them that they came from."""
    plain = model
    with models.quiet():
        if hasattr(model, "peft_config"):
            with adapters.quiet_peft(), torch.no_grad():
                names = [name for name, _ in model.named_parameters() if any(word in name for word in _OF_ADAPTERS)]
                twin = copy.deepcopy(model).cpu().float().eval()
                plain = adapters.fold(twin, names, subject="the loaded PEFT model, merged,")
        plain.save_pretrained(str(folder))
        tokenizer.save_pretrained(str(folder))
        model_config.add_older_words(folder)
        saved = load_tokenizer(str(folder), offline=True)
    if saved(PROBE)["input_ids"] != tokenizer(PROBE)["input_ids"]:
        raise ModelError(
            f"the tokenizer ({type(tokenizer).__name__}) encodes text otherwise once it is saved",
            remedy="save it with the model where it encodes as it should, and give that folder",
        )
