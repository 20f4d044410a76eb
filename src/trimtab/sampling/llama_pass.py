"""A forward pass of Llama's kind of model, for decoding, with less than half of the calls that transformers makes.

With a row a prompt and a column a step, a layer's dozens of small operations and the modules around them take as long
as its products. Here the projections that read the same numbers are one product, norms and gates work in place, and
heads that share keys read them as rows of one query. What is computed is the model's block (arXiv 2302.13971, section
2.2; grouped queries: 2305.13245); rotary angles are those of the model's own module. A model is taken when its parts
are what they are taken for, its weights lie as `layout` puts them, and its logits agree with the model's own.

Shape suffixes: R rows, C columns of this pass, T columns so far, N = R · C, H hidden, Q heads, G heads of keys, D head
dimension, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, rms_norm, scaled_dot_product_attention, silu
from transformers.cache_utils import DynamicCache

from trimtab.sampling.decoding_mode import transformers_model_of
from trimtab.sampling.layout import joint_weight

_MODEL_TYPES = frozenset({"llama", "mistral", "qwen2", "qwen3"})
_TOLERANCE = 1e-3  # of the largest logit; a batch of another shape moves float32 logits by a hundredth of that


@dataclass(frozen=True, slots=True)
class _Layer:
    norm_in: nn.Module
    w_qkv: Tensor
    b_qkv: Tensor | None
    head_norm: tuple[Tensor, float] | None  # weights [Q + G, 1, D]
    out: nn.Linear
    norm_mlp: nn.Module
    w_gate_up: Tensor
    down: nn.Linear


class LlamaPass:
    """Called in place of the model; see `llama_pass`."""

    def __init__(self, base: Any, layers: list[_Layer]) -> None:
        config, attention = base.config, base.model.layers[0].self_attn
        self._base, self._layers = base, layers
        self._n_heads, self._n_key_heads = config.num_attention_heads, config.num_key_value_heads
        self._head_dim, self._scaling = attention.head_dim, attention.scaling

    def __call__(self, ids_RC: Tensor, *, mask_RT: Tensor, positions_RC: Tensor, cache: Any) -> Tensor:
        """Logits [R, V] of the last column. `mask_RT`: 1 where a token is, over all columns so far."""
        n_rows, n_columns = ids_RC.shape
        inner = self._base.model
        x_NH = inner.embed_tokens(ids_RC).flatten(0, 1)
        cos, sin = (angles.unsqueeze(1) for angles in inner.rotary_emb(x_NH, positions_RC))
        sin = torch.cat((-sin[..., : self._head_dim // 2], sin[..., self._head_dim // 2 :]), -1)
        mask = _additive(mask_RT, n_columns)
        for number, layer in enumerate(self._layers):
            heads = linear(_rms(x_NH, layer.norm_in), layer.w_qkv, layer.b_qkv).view(
                n_rows, n_columns, -1, self._head_dim
            )
            attended_NH = self._attention(heads.transpose(1, 2), layer, cos, sin, mask, cache, number)
            x_NH += layer.out(attended_NH)
            gate, up = linear(_rms(x_NH, layer.norm_mlp), layer.w_gate_up).chunk(2, -1)
            x_NH += layer.down(silu(gate, inplace=True).mul_(up))
        last_RH = x_NH.view(n_rows, n_columns, -1)[:, -1]
        logits_RV: Tensor = self._base.lm_head(_rms(last_RH, inner.norm))
        return logits_RV

    def _attention(
        self, heads: Tensor, layer: _Layer, cos: Tensor, sin: Tensor, mask: Tensor | None, cache: Any, number: int
    ) -> Tensor:
        """[N, Q · D]; heads: queries, keys and values [R, Q + 2 G, C, D]."""
        n_rows, _, n_columns, dim = heads.shape
        n_rotated = self._n_heads + self._n_key_heads
        rotated = heads[:, :n_rotated]
        if layer.head_norm is not None:
            weight, eps = layer.head_norm
            rotated = rms_norm(rotated, (dim,), None, eps) * weight
        halves = torch.cat((rotated[..., dim // 2 :], rotated[..., : dim // 2]), -1)
        rotated = (rotated * cos).addcmul_(halves, sin)
        keys, values = cache.update(rotated[:, self._n_heads :], heads[:, n_rotated:], number)
        queries, n_shared = rotated[:, : self._n_heads], self._n_heads // self._n_key_heads
        if n_columns == 1:
            queries = queries.reshape(n_rows, self._n_key_heads, n_shared, dim)
        elif n_shared > 1:
            keys, values = (each.repeat_interleave(n_shared, 1) for each in (keys, values))
        out = scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask, is_causal=mask is None and n_columns > 1, scale=self._scaling
        )
        if n_columns == 1:
            return out.reshape(n_rows, -1)
        return out.transpose(1, 2).reshape(n_rows * n_columns, -1)


def llama_pass(model: Any) -> LlamaPass | None:
    """The pass for this model, checked against it; None where the model is not one for it."""
    base = transformers_model_of(model)
    if base is not model or not _is_plain(base):
        return None
    layers = [_layer(layer, base.config) for layer in base.model.layers]
    fitting = [layer for layer in layers if layer is not None]
    if len(fitting) != len(layers):
        return None
    ours = LlamaPass(base, fitting)
    return ours if _agrees(ours, base) else None


def _is_plain(base: Any) -> bool:
    """An architecture that this file knows, on a CPU, with nothing hung into it."""
    config, weight = base.config, base.get_input_embeddings().weight
    return (
        config.model_type in _MODEL_TYPES
        and type(base).__module__.startswith("transformers.models.")
        and type(base).__name__.endswith("ForCausalLM")
        and config.hidden_act == "silu"
        and getattr(config, "sliding_window", None) is None
        and set(getattr(config, "layer_types", None) or ["full_attention"]) == {"full_attention"}
        and weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and not any(
            "forward" in vars(part) or part._forward_hooks or part._forward_pre_hooks for part in base.modules()
        )
    )


def _layer(layer: Any, config: Any) -> _Layer | None:
    attention, mlp = layer.self_attn, layer.mlp
    projections = [attention.q_proj, attention.k_proj, attention.v_proj]
    gates = [mlp.gate_proj, mlp.up_proj]
    if any(type(part) is not nn.Linear for part in (*projections, *gates, attention.o_proj, mlp.down_proj)):
        return None
    w_qkv, w_gate_up = joint_weight(projections), joint_weight(gates)
    biases = [projection.bias for projection in projections if projection.bias is not None]
    if w_qkv is None or w_gate_up is None or len(biases) not in (0, 3) or gates[0].bias is not None:
        return None
    head_norm = None
    if hasattr(attention, "q_norm"):
        counts = (config.num_attention_heads, config.num_key_value_heads)
        weights = [
            norm.weight.expand(n, 1, -1) for n, norm in zip(counts, (attention.q_norm, attention.k_norm), strict=True)
        ]
        head_norm = torch.cat(weights), attention.q_norm.variance_epsilon
    return _Layer(
        norm_in=layer.input_layernorm,
        w_qkv=w_qkv,
        b_qkv=torch.cat(biases) if biases else None,
        head_norm=head_norm,
        out=attention.o_proj,
        norm_mlp=layer.post_attention_layernorm,
        w_gate_up=w_gate_up,
        down=mlp.down_proj,
    )


def _agrees(ours: LlamaPass, base: Any) -> bool:
    """Whether two rows, one of them padded, get the model's own logits, in a first pass and in the step after it."""
    if base.model.rotary_emb(torch.zeros(1), torch.zeros(1, 1))[0].shape[-1] != base.model.layers[0].self_attn.head_dim:
        return False  # only a part of each head is rotated
    ids = torch.arange(18).view(2, 9) * 7 % base.config.vocab_size
    mask = torch.ones(2, 9, dtype=torch.long)
    mask[0, :3] = 0
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    caches = DynamicCache(), DynamicCache()
    for columns in (slice(0, 8), slice(8, 9)):
        own = base(
            input_ids=ids[:, columns],
            attention_mask=mask[:, : columns.stop],
            position_ids=positions[:, columns],
            past_key_values=caches[0],
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        new = ours(
            ids[:, columns], mask_RT=mask[:, : columns.stop], positions_RC=positions[:, columns], cache=caches[1]
        )
        if not bool((new - own).abs().max() <= _TOLERANCE * own.abs().max()):  # NaN is no agreement
            return False
    return True


def _rms(x: Tensor, norm: Any) -> Tensor:
    return rms_norm(x, x.shape[-1:], norm.weight, norm.variance_epsilon)


def _additive(mask_RT: Tensor, n_columns: int) -> Tensor | None:
    """What is added to scores, [R, 1, C or 1, T]; None where every column sees all, or all before it from the first.

    A column of padding sees itself: a softmax over nothing would be NaN.
    """
    width = mask_RT.shape[1]
    if n_columns in (1, width) and bool(mask_RT.all()):
        return None
    visible = mask_RT.bool()[:, None, None, :]
    if n_columns > 1:
        at = torch.arange(width, device=mask_RT.device)
        rows = at[width - n_columns :, None]
        visible = (visible & (at <= rows)) | (at == rows)
    return torch.zeros(visible.shape, device=mask_RT.device).masked_fill_(~visible, float("-inf"))
