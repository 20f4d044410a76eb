"""The config.json of a saved model: the one that the model came with, changed only where the model was.

transformers 5 writes a configuration anew, in its own words: `rope_parameters` without `rope_theta`, `dtype` without
`torch_dtype`. Readers of the older words (transformers 4, converters, servers that forked them) then take their
defaults: a rotary base of 10,000 where the model was trained with a million, which costs tenths of a nat a token and no
error. So the source's file is kept, and where only the newer words stand, the older ones are put beside them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trimtab import store

Tree = dict[str, Any]


def keep_source_config(model: Any, folder: Path) -> None:
    """Rewrite `folder`/config.json, which transformers has just saved there, from the configuration of the source.

    Where the model came from no folder, transformers' own file gets the older words.
    """
    saved = store.read_json(folder / "config.json")
    source = Path(model.config.name_or_path or ".") / "config.json"
    tree = store.read_json(source) if source.is_file() and source.parent != folder else saved
    changes = _changes(tree, model)
    if changes or tree is saved:
        store.write_json(folder / "config.json", tree | changes)
    else:
        store.write_text(folder / "config.json", source.read_text(encoding="utf-8"))  # not a byte has changed


def add_older_words(folder: Path) -> None:
    """Put transformers 4's words beside the newer ones in `folder`/config.json."""
    tree = store.read_json(folder / "config.json")
    store.write_json(folder / "config.json", tree | _older_words(tree) | {"torch_dtype": tree.get("dtype")})


def _changes(tree: Tree, model: Any) -> Tree:
    """What has to be said otherwise of this model than its source says, and the older words that are not there yet."""
    changes: Tree = _older_words(tree)
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    if (tree.get("dtype") or tree.get("torch_dtype") or "float32") != dtype or "torch_dtype" not in tree:
        changes |= {"dtype": dtype, "torch_dtype": dtype}
    tied = bool(model.config.tie_word_embeddings)
    if bool(tree.get("tie_word_embeddings", _default_of(model, "tie_word_embeddings"))) != tied:
        changes["tie_word_embeddings"] = tied
    n_rows = model.get_input_embeddings().weight.shape[0]
    if "vocab_size" in tree and tree["vocab_size"] != n_rows:
        changes["vocab_size"] = n_rows
    text = tree.get("text_config")
    if isinstance(text, dict) and (older := _older_words(text)):
        changes["text_config"] = text | older
    return changes


def _default_of(model: Any, key: str) -> object:
    return getattr(type(model.config)(), key, True)


def _older_words(tree: Tree) -> Tree:
    """transformers 4's keys for what stands in `rope_parameters` alone, by the names that its configurations have."""
    rope = tree.get("rope_parameters")
    if not isinstance(rope, dict):
        return {}
    older: Tree = {}
    if isinstance(rope.get("full_attention"), dict):  # Gemma-3: a rotary table a kind of layer
        local = rope.get("sliding_attention") or {}
        older["rope_local_base_freq"] = local.get("rope_theta")
        rope = rope["full_attention"]
    older["rope_theta"] = rope.get("rope_theta")
    older["partial_rotary_factor"] = rope.get("partial_rotary_factor")
    if tree.get("model_type") == "gpt_neox":
        older |= {"rotary_emb_base": rope.get("rope_theta"), "rotary_pct": rope.get("partial_rotary_factor")}
    if rope.get("rope_type", "default") != "default":
        scaling = {key: value for key, value in rope.items() if key not in {"rope_theta", "partial_rotary_factor"}}
        older["rope_scaling"] = scaling
    return {key: value for key, value in older.items() if value is not None and tree.get(key) is None}
