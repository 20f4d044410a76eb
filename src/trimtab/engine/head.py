"""From hidden states to log-probabilities of response tokens, with never more than one chunk of [rows, V] alive.

    logits = softcap · tanh(scale · (W h + b) / softcap)        logp = logits[target] − logsumexp(logits)

log-softmax is in fp32 whatever the weights are. Dims: N rows (one a response token), V vocabulary, H hidden.

Three ways to the same numbers:
- few logits (N·V ≤ `SMALL`): plain autograd;
- a plain linear head: `_ChunkedLogps`, which recomputes each chunk's logits in its backward pass, leaves out rows whose
  upstream gradient is exactly zero, and with frozen weights (LoRA) needs no second pass at all: ∂logp/∂h is kept;
- any other head module (LoRA on the head, quantized): the module itself, checkpointed a chunk at a time.

Which scaling and soft-capping a family applies after its head is read from its config. What the config does not say
(a multiplier before the head, a second projection) is found by the scorer's self-check.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear
from torch.utils.checkpoint import checkpoint

SMALL = 1 << 22
"""Logits (N·V) up to which plain autograd keeps them: 16 MiB in fp32."""

CHUNK_LOGITS = {"cpu": 1 << 24, "mps": 1 << 24, "cuda": 1 << 26}
"""Logits of one chunk by device: 64 MiB of fp32, 256 MiB on CUDA, where a launch must be worth its while."""


def chunk_rows(vocabulary: int, device: torch.device | str) -> int:
    """Response rows whose logits are alive at one time."""
    return max(16, CHUNK_LOGITS.get(torch.device(device).type, 1 << 24) // vocabulary)


@dataclass(frozen=True, slots=True)
class Head:
    """A model's output head: its module, and what the family does to the logits behind it."""

    module: nn.Module
    scale: float = 1.0
    softcap: float | None = None
    rows_a_chunk: int | None = None

    @classmethod
    def of(cls, model: Any) -> Head | None:
        """The head of a transformers causal LM as its config describes it; None where the model names no head."""
        module = model.get_output_embeddings()
        if module is None:
            return None
        config = model.config
        scale = float(getattr(config, "logit_scale", None) or 1.0)  # Cohere
        scale /= float(getattr(config, "logits_scaling", None) or 1.0)  # Granite
        scale *= float(getattr(config, "lm_head_multiplier", None) or 1.0)  # Falcon-H1
        softcap = getattr(config, "final_logit_softcapping", None)  # Gemma-2
        return cls(module, scale, float(softcap) if softcap else None)

    def logps(self, hidden_NH: Tensor, targets_N: Tensor) -> Tensor:
        """log p(target) a row, nats, fp32 [N]; differentiable when gradients are enabled."""
        module = self.module
        vocabulary = getattr(module, "out_features", None) or self._width(hidden_NH)
        rows = self.rows_a_chunk or chunk_rows(vocabulary, hidden_NH.device)
        few = self.rows_a_chunk is None and len(targets_N) * vocabulary <= SMALL
        if few or len(targets_N) == 0:
            return self._direct(hidden_NH, targets_N)
        if _is_plain_linear(module):
            weight, bias = module.weight, module.bias
            apply: Callable[..., Tensor] = _ChunkedLogps.apply
            return apply(hidden_NH, weight, bias, targets_N, self.scale, self.softcap, rows)
        parts = [slice(at, at + rows) for at in range(0, len(targets_N), rows)]
        return torch.cat(
            [checkpoint(self._direct, hidden_NH[part], targets_N[part], use_reentrant=False) for part in parts]
        )

    def _direct(self, hidden_NH: Tensor, targets_N: Tensor) -> Tensor:
        logits_NV = self.module(hidden_NH).float()
        if self.scale != 1.0:
            logits_NV = logits_NV * self.scale
        if self.softcap is not None:
            logits_NV = self.softcap * torch.tanh(logits_NV / self.softcap)
        return -cross_entropy(logits_NV, targets_N, reduction="none")

    def _width(self, hidden_NH: Tensor) -> int:
        with torch.no_grad():
            return int(self.module(hidden_NH[:1]).shape[-1])


def _is_plain_linear(module: nn.Module) -> bool:
    return (
        isinstance(module, nn.Linear)
        and type(module).forward is nn.Linear.forward
        and not module._forward_hooks
        and not module._forward_pre_hooks
    )


class _ChunkedLogps(torch.autograd.Function):
    """logps of the targets through a linear head, a chunk of rows at a time in both directions.

    With p the softmax and e the target's one-hot row, ∂logp/∂z = (e − p) · scale · (1 − (z / softcap)²), z the logits
    after scaling and capping; ∂logp/∂h = ∂logp/∂z · W; W collects ∂logp/∂zᵀ · h and b the column sums.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_NH: Tensor,
        weight_VH: Tensor,
        bias_V: Tensor | None,
        targets_N: Tensor,
        scale: float,
        softcap: float | None,
        rows: int,
    ) -> Tensor:
        ctx.scale, ctx.softcap, ctx.rows = scale, softcap, rows
        wants_hidden, wants_weight, wants_bias, *_ = ctx.needs_input_grad
        # Nothing but the hidden states learns: their derivative is made at once and the logits are never made again.
        ctx.once = wants_hidden and not wants_weight and not wants_bias
        slope_NH = torch.empty_like(hidden_NH) if ctx.once else None
        logps_N = torch.empty(len(targets_N), dtype=torch.float32, device=hidden_NH.device)
        norm_N = torch.empty_like(logps_N)
        for at in range(0, len(targets_N), rows):
            part = slice(at, at + rows)
            logits = _logits(hidden_NH[part], weight_VH, bias_V, scale, softcap)
            norm_N[part] = torch.logsumexp(logits, dim=1)
            logps_N[part] = logits.gather(1, targets_N[part, None])[:, 0] - norm_N[part]
            if slope_NH is not None:
                slope = _slope(logits, norm_N[part], targets_N[part], scale, softcap)
                slope_NH[part] = slope.to(weight_VH.dtype) @ weight_VH
        if slope_NH is not None:
            ctx.save_for_backward(slope_NH)
        else:
            ctx.save_for_backward(hidden_NH, weight_VH, bias_V, targets_N, norm_N)
        return logps_N

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad_N,) = grads
        if ctx.once:
            (slope_NH,) = ctx.saved_tensors
            return (slope_NH * grad_N[:, None].to(slope_NH.dtype), *[None] * 6)
        hidden_NH, weight_VH, bias_V, targets_N, norm_N = ctx.saved_tensors
        wants_hidden, wants_weight, wants_bias, *_ = ctx.needs_input_grad
        to_hidden = torch.zeros_like(hidden_NH) if wants_hidden else None
        to_weight = torch.zeros_like(weight_VH) if wants_weight else None
        to_bias = torch.zeros_like(bias_V) if wants_bias else None
        # A response in the dead zone has coefficient 0 exactly: its rows add nothing, so their logits stay unmade.
        live = grad_N.nonzero()[:, 0]
        for at in range(0, len(live), ctx.rows):
            kept = live[at : at + ctx.rows]
            hidden = hidden_NH[kept]
            logits = _logits(hidden, weight_VH, bias_V, ctx.scale, ctx.softcap)
            slope = _slope(logits, norm_N[kept], targets_N[kept], ctx.scale, ctx.softcap)
            slope = slope.mul_(grad_N[kept, None]).to(weight_VH.dtype)
            if to_hidden is not None:
                to_hidden[kept] = slope @ weight_VH
            if to_weight is not None:
                to_weight.addmm_(slope.T, hidden)
            if to_bias is not None:
                to_bias += slope.sum(0)
        return to_hidden, to_weight, to_bias, None, None, None, None


def _logits(hidden: Tensor, weight_VH: Tensor, bias_V: Tensor | None, scale: float, softcap: float | None) -> Tensor:
    """fp32 logits of some rows. A fresh tensor: callers write into it."""
    logits = linear(hidden, weight_VH, bias_V).float()
    if scale != 1.0:
        logits.mul_(scale)
    if softcap is not None:
        logits.div_(softcap).tanh_().mul_(softcap)
    return logits


def _slope(logits: Tensor, norm: Tensor, targets: Tensor, scale: float, softcap: float | None) -> Tensor:
    """∂logp/∂(W h + b) of some rows, written over `logits`."""
    flat = None if softcap is None else 1 - (logits / softcap).square_()
    slope = logits.sub_(norm[:, None]).exp_().neg_()
    slope.scatter_add_(1, targets[:, None], torch.ones_like(norm)[:, None])
    if flat is not None:
        slope.mul_(flat)
    return slope.mul_(scale) if scale != 1.0 else slope
