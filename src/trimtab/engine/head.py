"""From hidden states to log-probabilities of response tokens and back, never with all logits alive.

    logits = softcap · tanh(scale · (W h + b) / softcap)        logp = logits[target] − logsumexp(logits)

log-softmax is in fp32 whatever the weights are. Dims: N rows (one a response token), V vocabulary, H hidden.

The way back needs each row's coefficient d(loss)/d(logp), and that is known as soon as the log-probabilities of a pair
are. So the logits of a *unit* (the rows that are solved together: a pair, or a few) are kept until its coefficients are
solved and become the gradient in place: no logits are made twice, and no autograd graph is built over the vocabulary.
Rows of a unit beyond what may be kept (`kept_rows`) are made again, a chunk at a time; rows with coefficient zero are
left out. Where the weights do not learn (LoRA) ∂logp/∂h needs no coefficient, and nothing is kept at all.

Which scaling and soft-capping a family applies after its head is read from its config. What the config does not say
(a multiplier before the head, a second projection) is found by the scorer's self-check.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear
from torch.utils.checkpoint import checkpoint

CHUNK_LOGITS = {"cpu": 1 << 24, "mps": 1 << 24, "cuda": 1 << 26}
"""Logits of one chunk by device: 64 MiB of fp32, 256 MiB on CUDA, where a launch must be worth its while."""

Solve = Callable[[slice, Tensor], Tensor]
"""(rows of a unit, their logps) → d(loss)/d(logp) of each of these rows, fp32, on the logps' device."""


def chunk_rows(vocabulary: int, device: torch.device | str) -> int:
    """Response rows whose logits are alive at one time where nothing is kept."""
    return max(16, CHUNK_LOGITS.get(torch.device(device).type, 1 << 24) // vocabulary)


def kept_rows(vocabulary: int, hidden: int, device: torch.device | str) -> int:
    """Response rows whose logits may be kept until their coefficients are solved: no more memory than the head's own
    weights take, whose gradient and moments are held anyway."""
    return max(chunk_rows(vocabulary, device), hidden)


@dataclass(frozen=True, slots=True)
class Head:
    """A model's output head: its module, and what the family does to the logits behind it."""

    module: nn.Module
    scale: float = 1.0
    softcap: float | None = None
    rows_a_chunk: int | None = None
    rows_kept: int | None = None

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

    @property
    def unit_rows(self) -> int | None:
        """Rows that a unit should not exceed; None where any number will do."""
        module: Any = self.module
        if not _is_plain_linear(module) or not module.weight.requires_grad:
            return None
        vocabulary, hidden = module.weight.shape
        return self.rows_kept or kept_rows(vocabulary, hidden, module.weight.device)

    def logps(self, hidden_NH: Tensor, targets_N: Tensor) -> Tensor:
        """log p(target) a row, nats, fp32 [N]; differentiable when gradients are enabled."""
        parts = list(self._chunks(0, len(targets_N), hidden_NH))
        if not torch.is_grad_enabled():
            return torch.cat([_exponentiated(self._logits(hidden_NH[p]), targets_N[p])[0] for p in parts])
        if len(parts) == 1:
            return self._direct(hidden_NH, targets_N)
        return torch.cat(
            [checkpoint(self._direct, hidden_NH[part], targets_N[part], use_reentrant=False) for part in parts]
        )

    def gradient(self, hidden_NH: Tensor, targets_N: Tensor, *, units: Sequence[slice], solve: Solve) -> Tensor:
        """logps [N]; and the gradient of Σ coefficient·logp, added to `.grad` of all that `hidden_NH` and the head
        depend on. `solve` is asked once a unit; units cover the rows in order."""
        if not _is_plain_linear(self.module):
            with torch.enable_grad():
                return _by_autograd(self.logps(hidden_NH, targets_N), units, solve)
        with torch.no_grad():
            back = torch.zeros_like(hidden_NH)
            one = self._frozen_unit if self.unit_rows is None else self._unit
            logps_N = torch.cat([one(unit, hidden_NH, targets_N, solve, back) for unit in units])
            live = bool(back.any())
        if live and hidden_NH.requires_grad:
            torch.autograd.backward(hidden_NH, back)
        return logps_N

    def _unit(self, unit: slice, hidden_NH: Tensor, targets_N: Tensor, solve: Solve, back_NH: Tensor) -> Tensor:
        """One unit under a head that learns: its logps, and its part of the gradient."""
        assert self.unit_rows is not None
        middle = max(unit.start, unit.stop - self.unit_rows)
        twice = list(self._chunks(unit.start, middle, hidden_NH))
        logps = [_exponentiated(self._logits(hidden_NH[part]), targets_N[part])[0] for part in twice]
        kept = slice(middle, unit.stop)
        logits = self._logits(hidden_NH[kept])
        flat = self._flattened(logits)
        last, total = _exponentiated(logits, targets_N[kept])
        logps_N = torch.cat([*logps, last])
        coefficients_N = solve(unit, logps_N)
        first = middle - unit.start
        self._back(kept, logits, total, flat, coefficients_N[first:], hidden_NH, targets_N, back_NH)
        del logits, flat
        for part in twice:
            coefficients = coefficients_N[part.start - unit.start : part.stop - unit.start]
            if coefficients.any():
                logits = self._logits(hidden_NH[part])
                flat = self._flattened(logits)
                _, total = _exponentiated(logits, targets_N[part])
                self._back(part, logits, total, flat, coefficients, hidden_NH, targets_N, back_NH)
        return logps_N

    def _back(
        self,
        part: slice,
        exponentials: Tensor,
        total: Tensor,
        flat: Tensor | None,
        coefficients: Tensor,
        hidden_NH: Tensor,
        targets_N: Tensor,
        back_NH: Tensor,
    ) -> None:
        """Adds the gradient of some rows, whose logits are there as exp(logit − top), to the head and to `back_NH`."""
        live = coefficients.nonzero()[:, 0]
        if len(live) == 0:
            return
        hidden, targets, into = hidden_NH[part], targets_N[part], back_NH[part]
        some = len(live) < len(coefficients)
        if some:
            exponentials, total, coefficients = exponentials[live], total[live], coefficients[live]
            hidden, targets, flat = hidden[live], targets[live], None if flat is None else flat[live]
        slope = _slope(exponentials, total, targets, coefficients, flat, self.scale).to(hidden.dtype)
        module: Any = self.module
        if some:
            into[live] = slope @ module.weight
        else:
            torch.mm(slope, module.weight, out=into)
        _gradient_of(module.weight).addmm_(slope.T, hidden)
        if module.bias is not None and module.bias.requires_grad:
            _gradient_of(module.bias).add_(slope.sum(0))

    def _frozen_unit(self, unit: slice, hidden_NH: Tensor, targets_N: Tensor, solve: Solve, back_NH: Tensor) -> Tensor:
        """One unit under a head that does not learn: ∂logp/∂h a chunk at a time, scaled once it is solved."""
        module: Any = self.module
        logps = []
        for part in self._chunks(unit.start, unit.stop, hidden_NH):
            logits = self._logits(hidden_NH[part])
            flat = self._flattened(logits)
            found, total = _exponentiated(logits, targets_N[part])
            logps.append(found)
            slope = _slope(logits, total, targets_N[part], torch.ones_like(total), flat, self.scale)
            torch.mm(slope.to(hidden_NH.dtype), module.weight, out=back_NH[part])
        logps_N = torch.cat(logps)
        back_NH[unit] *= solve(unit, logps_N)[:, None].to(back_NH.dtype)
        return logps_N

    def _chunks(self, start: int, stop: int, hidden_NH: Tensor) -> Iterator[slice]:
        rows = self.rows_a_chunk or chunk_rows(self._vocabulary(hidden_NH), hidden_NH.device)
        return (slice(at, min(at + rows, stop)) for at in range(start, stop, rows))

    def _vocabulary(self, hidden_NH: Tensor) -> int:
        if (told := getattr(self.module, "out_features", None)) is not None:
            return int(told)
        with torch.no_grad():
            return int(self.module(hidden_NH[:1]).shape[-1])

    def _logits(self, hidden: Tensor) -> Tensor:
        """fp32 logits of some rows. A fresh tensor: callers write into it."""
        if _is_plain_linear(self.module):
            logits = linear(hidden, self.module.weight, self.module.bias).float()  # type: ignore[arg-type]  # an nn.Linear's
        else:
            logits = self.module(hidden).float()
        if self.scale != 1.0:
            logits.mul_(self.scale)
        if self.softcap is not None:
            logits.div_(self.softcap).tanh_().mul_(self.softcap)
        return logits

    def _flattened(self, logits: Tensor) -> Tensor | None:
        """The derivative of the soft-capping at these logits; None without."""
        return None if self.softcap is None else 1 - (logits / self.softcap).square_()

    def _direct(self, hidden_NH: Tensor, targets_N: Tensor) -> Tensor:
        logits_NV = self.module(hidden_NH).float()
        if self.scale != 1.0:
            logits_NV = logits_NV * self.scale
        if self.softcap is not None:
            logits_NV = self.softcap * torch.tanh(logits_NV / self.softcap)
        return -cross_entropy(logits_NV, targets_N, reduction="none")


class OwnLogits:
    """In place of a head where none is known to be the model's: what stands for hidden states are its logits [N, V]."""

    unit_rows = None

    def logps(self, logits_NV: Tensor, targets_N: Tensor) -> Tensor:
        """log p(target) a row, nats, fp32 [N]; differentiable when gradients are enabled."""
        return -cross_entropy(logits_NV.float(), targets_N, reduction="none")

    def gradient(self, logits_NV: Tensor, targets_N: Tensor, *, units: Sequence[slice], solve: Solve) -> Tensor:
        """As `Head.gradient`."""
        with torch.enable_grad():
            return _by_autograd(self.logps(logits_NV, targets_N), units, solve)


def _by_autograd(logps_N: Tensor, units: Sequence[slice], solve: Solve) -> Tensor:
    found_N = logps_N.detach()
    coefficients_N = torch.cat([solve(unit, found_N[unit]) for unit in units])
    if coefficients_N.any():
        torch.autograd.backward(logps_N, coefficients_N)
    return found_N


def _is_plain_linear(module: nn.Module) -> bool:
    return (
        isinstance(module, nn.Linear)
        and type(module).forward is nn.Linear.forward
        and not module._forward_hooks
        and not module._forward_pre_hooks
    )


def _exponentiated(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """(logp of the targets, Σ exp(logit − top)) a row; `logits` become exp(logit − top)."""
    top = logits.amax(1)
    at_target = logits.gather(1, targets[:, None])[:, 0]
    total = logits.sub_(top[:, None]).exp_().sum(1)
    return at_target - top - total.log(), total


def _slope(
    exponentials: Tensor, total: Tensor, targets: Tensor, coefficients: Tensor, flat: Tensor | None, scale: float
) -> Tensor:
    """coefficient · ∂logp/∂(W h + b) of some rows, written over `exponentials`.

    With p the softmax and e the target's one-hot row: (e − p) · scale · (1 − (z / softcap)²), z the capped logits.
    """
    slope = exponentials.mul_((-coefficients / total)[:, None])
    slope.scatter_add_(1, targets[:, None], coefficients[:, None])
    if flat is not None:
        slope.mul_(flat)
    return slope.mul_(scale) if scale != 1.0 else slope


def _gradient_of(parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad
