"""Configuration and weights of a GGUF file in transformers' words.

The families that are read are those whose logits came back as they were in the model that was converted
(tests/engine/test_gguf_in.py). A field that would change the forward pass and that no family here has is refused by
name: a default in its place gives another model and no error.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trimtab import store
from trimtab.engine import finite, model_config
from trimtab.engine.gguf_file import GgufFile, file_error, library

_SHARD_BYTES = 1_000_000_000  # of weights in memory at once
_ROTARY = "rope_freqs.weight"


@dataclass(frozen=True, slots=True)
class Family:
    """An architecture: its name in transformers, and where its tensors differ from Llama's.

    `permuted`: query and key rows are stored in llama.cpp's rotary order. `norm_offset`: what was added to the weights
    of norms. `renames`: gguf's names of a layer's tensors, where they mean another module than in Llama. `keys`: those
    of the file that this architecture alone reads, in `fields`.
    """

    model_type: str
    permuted: bool = False
    norm_offset: float = 0.0
    renames: tuple[tuple[str, str], ...] = ()
    keys: frozenset[str] = frozenset()
    fields: Callable[[GgufFile], dict[str, Any]] = lambda _file: {}


def _gemma3(file: GgufFile) -> dict[str, Any]:
    """Every sixth layer looks at all positions, as in every Gemma 3; a file says so at most."""
    every_sixth = [bool((layer + 1) % 6) for layer in range(int(_number(file, "block_count")))]
    if (pattern := file.of_model("attention.sliding_window_pattern", 6)) not in (6, every_sixth):
        raise file_error(file.path, f"orders its sliding windows as no Gemma 3 does ({str(pattern)[:60]})")
    return {
        "sliding_window": int(_number(file, "attention.sliding_window")),
        "query_pre_attn_scalar": _head_dim(file),
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": _base(file, 1_000_000.0)},
            "sliding_attention": {
                "rope_type": "default",
                "rope_theta": _rounded(_number(file, "rope.freq_base_swa", 10_000.0)),
            },
        },
    }


FAMILIES = {
    "llama": Family("llama", permuted=True),
    "smollm3": Family("smollm3", permuted=True),
    "qwen2": Family("qwen2"),
    "qwen3": Family("qwen3"),
    "gemma3": Family(
        "gemma3_text",
        norm_offset=1.0,
        renames=(
            ("post_attention_norm", "post_attention_layernorm"),
            ("ffn_norm", "pre_feedforward_layernorm"),
            ("post_ffw_norm", "post_feedforward_layernorm"),
        ),
        keys=frozenset({"attention.sliding_window", "attention.sliding_window_pattern", "rope.freq_base_swa"}),
        fields=_gemma3,
    ),
}
_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_LAYER = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
# of a model: what is read here, or says nothing about the forward pass
_READ = frozenset({
    "block_count", "context_length", "embedding_length", "feed_forward_length", "vocab_size",
    "attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.value_length",
    "attention.layer_norm_rms_epsilon", "rope.freq_base", "rope.dimension_count",
})  # fmt: skip
_IDLE = {"rope.scaling.type": "none", "expert_count": 0, "expert_used_count": 0, "final_logit_softcapping": 0.0}


def write(file: GgufFile, folder: Path) -> None:
    """config.json, generation_config.json and the weights in fp32, in the existing `folder`.

    Raises ModelError for an architecture, a field or a tensor that is not read, NumericsError for weights that are not
    finite.
    """
    family = _family(file)
    config = _config(file, family)
    shapes = _expected_shapes(config)
    names = {tensor.name: _name(file, family, tensor.name) for tensor in file.tensors if tensor.name != _ROTARY}
    if missing := sorted(set(shapes) - set(names.values())):
        raise file_error(file.path, f"lacks weights of a {file.architecture} model ({', '.join(missing[:3])})")
    _save_weights(_weights(file, family, names, shapes), folder, n_bytes=4 * sum(map(math.prod, shapes.values())))
    config.save_pretrained(str(folder))
    model_config.add_older_words(folder)
    _generation_config(file).save_pretrained(str(folder))


def _family(file: GgufFile) -> Family:
    if file.architecture not in FAMILIES:
        names = ", ".join(FAMILIES)
        raise file_error(file.path, f"architecture {file.architecture} is not read from GGUF (these are: {names})")
    family, prefix = FAMILIES[file.architecture], f"{file.architecture}."
    for key, value in file.fields.items():
        name = key.removeprefix(prefix)
        if key.startswith(prefix) and name not in _READ | family.keys and _IDLE.get(name) != value:
            raise file_error(file.path, f"says {key} = {str(value)[:60]}, which is not read from GGUF")
    if (rotary_width := file.of_model("rope.dimension_count", _head_dim(file))) != _head_dim(file):
        raise file_error(file.path, f"rotates {str(rotary_width)[:60]} of the {_head_dim(file)} numbers of a head")
    return family


# --- configuration ---------------------------------------------------------------------------------------------------


def _config(file: GgufFile, family: Family) -> Any:
    from transformers import AutoConfig

    tensors = {tensor.name: tensor for tensor in file.tensors}
    heads = int(_number(file, "attention.head_count"))
    words = {
        "vocab_size": int(_tensor(file, tensors, "token_embd.weight").shape[1]),
        "hidden_size": int(_number(file, "embedding_length")),
        "intermediate_size": int(_number(file, "feed_forward_length")),
        "num_hidden_layers": int(_number(file, "block_count")),
        "num_attention_heads": heads,
        "num_key_value_heads": int(_number(file, "attention.head_count_kv", heads)),
        "head_dim": _head_dim(file),
        "max_position_embeddings": int(_number(file, "context_length")),
        "rms_norm_eps": _rounded(_number(file, "attention.layer_norm_rms_epsilon")),
        "rope_parameters": _rotary(file, tensors),
        "tie_word_embeddings": "output.weight" not in tensors,
        "attention_bias": "blk.0.attn_output.bias" in tensors,
        "mlp_bias": "blk.0.ffn_up.bias" in tensors,
        **{f"{key}_token_id": file.fields.get(f"tokenizer.ggml.{long}_token_id") for key, long in _TOKENS.items()},
    }
    model = AutoConfig.for_model(family.model_type, **words | family.fields(file))
    model.architectures = [_class_of(model).__name__]
    model.dtype = "float32"
    return model


_TOKENS = {"bos": "bos", "eos": "eos", "pad": "padding"}


def _number(file: GgufFile, key: str, default: float | None = None) -> Any:
    """A field that is one number above 0. Raises ModelError for others, and for one that is left out."""
    value = file.of_model(key, default)
    if not isinstance(value, int | float) or not value > 0:
        raise file_error(file.path, f"does not say {file.architecture}.{key} as one number above 0")
    return value


def _tensor(file: GgufFile, tensors: dict[str, Any], name: str) -> Any:
    if name not in tensors:
        raise file_error(file.path, f"lacks the tensor {name}")
    return tensors[name]


def _head_dim(file: GgufFile) -> int:
    width, heads = int(_number(file, "embedding_length")), int(_number(file, "attention.head_count"))
    return int(_number(file, "attention.key_length", width // heads))


def _base(file: GgufFile, default: float) -> float:
    return _rounded(_number(file, "rope.freq_base", default))


def _rounded(value: float) -> float:
    """The decimal that a number of 32 bits was: 1e-06 for 9.999999974752427e-07."""
    return float(f"{value:.7g}")


def _class_of(config: Any) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM._model_mapping[type(config)]


def _expected_shapes(config: Any) -> dict[str, tuple[int, ...]]:
    """Shape of each parameter that a model of this configuration has, by its name; a tied head has none of its own."""
    with torch.device("meta"):
        model = _class_of(config)(config)
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def _generation_config(file: GgufFile) -> Any:
    """The ids that the file names, where generation looks for them."""
    from transformers import GenerationConfig

    named = {key: file.fields.get(f"tokenizer.ggml.{key}_token_id") for key in ("bos", "eos", "eot", "padding")}
    ends = list(dict.fromkeys(n for key in ("eos", "eot") if (n := named[key]) is not None))
    return GenerationConfig(bos_token_id=named["bos"], eos_token_id=ends or None, pad_token_id=named["padding"])


# --- rotary positions ------------------------------------------------------------------------------------------------

_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192.0}


def _rotary(file: GgufFile, tensors: dict[str, Any]) -> dict[str, Any]:
    """Llama-3's scaled positions stand as a table of factors in the file. Raises ModelError for any other table."""
    base = _base(file, 10_000.0)
    if _ROTARY not in tensors:
        return {"rope_type": "default", "rope_theta": base}
    factors = [float(value) for value in tensors[_ROTARY].data]
    factor = _rounded(max(factors))
    expected = _llama3_factors(base, len(factors), factor=factor)
    if any(not math.isclose(a, b, rel_tol=1e-3) for a, b in zip(factors, expected, strict=True)):
        raise file_error(file.path, f"scales positions by factors that are not Llama-3's ({_ROTARY})")
    window = int(_LLAMA3["original_max_position_embeddings"])
    scaled = {**_LLAMA3, "original_max_position_embeddings": window, "factor": factor}
    return {"rope_type": "llama3", "rope_theta": base, **scaled}


def _llama3_factors(base: float, n: int, *, factor: float) -> list[float]:
    """By how much Llama-3.1 slows each of `n` rotary frequencies: fast ones not at all, slow ones by `factor`, smoothly
    between (transformers' rope type `llama3`)."""
    low, high = _LLAMA3["low_freq_factor"], _LLAMA3["high_freq_factor"]
    factors = []
    for number in range(n):
        turns = _LLAMA3["original_max_position_embeddings"] * base ** (-number / n) / (2 * math.pi)
        share = min(1.0, max(0.0, (turns - low) / (high - low)))
        factors.append(1 / ((1 - share) / factor + share))
    return factors


# --- weights ---------------------------------------------------------------------------------------------------------


def _name(file: GgufFile, family: Family, name: str) -> str:
    """transformers' name of a tensor."""
    if match := re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", name):
        module = (_LAYER | dict(family.renames)).get(match[2])
        if module is not None:
            return f"model.layers.{match[1]}.{module}.{match[3]}"
    module, _, kind = name.rpartition(".")
    if module in _TOP and kind in ("weight", "bias"):
        return f"{_TOP[module]}.{kind}"
    raise file_error(file.path, f"holds a tensor that no {file.architecture} model here has ({name})")


def _weights(
    file: GgufFile, family: Family, names: dict[str, str], shapes: dict[str, tuple[int, ...]]
) -> Iterator[tuple[str, Tensor]]:
    """Each tensor in fp32, with transformers' name, as transformers has its rows."""
    heads = int(_number(file, "attention.head_count"))
    rows_of = {"attn_q": heads, "attn_k": int(_number(file, "attention.head_count_kv", heads))}
    for tensor in file.tensors:
        if (name := names.get(tensor.name)) is None:
            continue
        values = torch.from_numpy(library().dequantize(tensor.data, tensor.tensor_type).astype("float32"))
        if name not in shapes or values.numel() != math.prod(shapes[name]):
            size = " × ".join(str(n) for n in values.shape)
            raise file_error(
                file.path,
                f"holds {tensor.name} with {size} numbers, which a {file.architecture} model of its fields has not",
            )
        values = values.reshape(shapes[name])
        n_heads = rows_of.get(tensor.name.split(".")[-2])
        if family.permuted and n_heads is not None:
            values = _unpermuted(values, n_heads)
        if family.norm_offset and "norm" in tensor.name:
            values = values - family.norm_offset
        finite.refuse(
            [(tensor.name, values)], subject=f"{file.path}: its weights", remedy="Download or convert it again."
        )
        yield name, values.contiguous()


def _unpermuted(values: Tensor, n_heads: int) -> Tensor:
    """Rows of a head as transformers rotates them (first half with second half) from llama.cpp's neighbours."""
    halves = values.reshape(n_heads, values.shape[0] // n_heads // 2, 2, *values.shape[1:])
    return halves.transpose(1, 2).reshape(values.shape)


def _save_weights(weights: Iterator[tuple[str, Tensor]], folder: Path, *, n_bytes: int) -> None:
    """safetensors of about a gigabyte each, so that no more is in memory at once."""
    from safetensors.torch import save_file

    shard: dict[str, Tensor] = {}
    places: dict[str, str] = {}
    n_files = 0

    def flush() -> None:
        nonlocal n_files
        n_files += 1
        name = "model.safetensors" if n_bytes <= _SHARD_BYTES else f"model-{n_files:05d}.safetensors"
        save_file(shard, folder / name, metadata={"format": "pt"})
        places.update(dict.fromkeys(shard, name))
        shard.clear()

    for name, values in weights:
        if shard and 4 * (values.numel() + sum(other.numel() for other in shard.values())) > _SHARD_BYTES:
            flush()
        shard[name] = values
    flush()
    if n_files > 1:
        index = {"metadata": {"total_size": n_bytes}, "weight_map": places}
        store.write_json(folder / "model.safetensors.index.json", index)
