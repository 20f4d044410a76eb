"""From hidden states to log-probabilities of response tokens and back, never with all logits alive.

    logits = softcap · tanh(scale · (W h + b) / softcap)        logp = logits[target] − logsumexp(logits)

log-softmax is in fp32 whatever the weights are. Dims: N rows (one a response token), V vocabulary, H hidden.

The way back needs each row's coefficient d(loss)/d(logp), and that is known as soon as the log-probabilities of a pair
are. So the logits of a *unit* (the rows that are solved together: a pair, or a few) are kept until its coefficients are
solved and become the gradient in place: no logits are made twice, and no autograd graph is built over the vocabulary.
Rows of a unit beyond what may be kept (`kept_rows`) are made again, a chunk at a time; rows with coefficient zero are
left out. Where the weights do not learn (LoRA) ∂logp/∂h needs no coefficient, and nothing is kept at all.
Logits stand in blocks of the vocabulary, so that memory is recycled instead of asked of the system for each chunk.

Objectives that weigh tokens against the rest of the vocabulary read ln Σ_v p_v² of each row too (the probability that
two draws collide). It is made on the way where a tensor [N] is handed in for it, `collisions_N`, and stands there
before `solve` is asked about the row.

Which scaling and soft-capping a family applies after its head is read from its config. What the config does not say
(a multiplier before the head, a second projection) is found by the scorer's self-check.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from trimtab.engine import matmul, mixed

CHUNK_LOGITS = {"cpu": 1 << 24, "mps": 1 << 24, "cuda": 1 << 26}
"""Logits of one chunk by device: 64 MiB of fp32, 256 MiB on CUDA, where a launch must be worth its while."""

BLOCK_LOGITS = 1 << 22
"""Logits of one block on a CPU: 16 MiB. The C library takes larger ones from the system and gives them back each time,
and most of a chunk's time is then spent on fresh pages."""

LEAST_COLUMNS = 1024  # of a block


class Root(NamedTuple):
    """Where a backward pass begins: a tensor of the graph and the gradient of the loss with respect to it."""

    tensor: Tensor
    gradient: Tensor


def backward(roots: Sequence[Root]) -> None:
    """One backward pass from all of them; none where every gradient is zero."""
    live = [root for root in roots if root.tensor.requires_grad and bool(root.gradient.any())]
    if live:
        torch.autograd.backward([root.tensor for root in live], [root.gradient for root in live])


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

    def lean(self) -> Head:
        """This head with no more logits kept than one chunk: the others are made twice, as checkpointed layers are."""
        if not _is_plain_linear(self.module):
            return self
        return replace(self, rows_kept=chunk_rows(self.module.out_features, self.module.weight.device))

    @property
    def unit_rows(self) -> int | None:
        """Rows that a unit should not exceed; None where any number will do."""
        module: Any = self.module
        if not _is_plain_linear(module) or not module.weight.requires_grad:
            return None
        vocabulary, hidden = module.weight.shape
        return self.rows_kept or kept_rows(vocabulary, hidden, module.weight.device)

    def logps(self, hidden_NH: Tensor, targets_N: Tensor, collisions_N: Tensor | None = None) -> Tensor:
        """log p(target) a row, nats, fp32 [N]; differentiable when gradients are enabled. Fills `collisions_N`."""
        parts = list(self._chunks(0, len(targets_N), hidden_NH))
        if not torch.is_grad_enabled():
            rows = (self._rows(hidden_NH[part], targets_N[part], _part_of(collisions_N, part)) for part in parts)
            return torch.cat([of_part.logps for of_part in rows])
        if len(parts) == 1:
            return self._direct(hidden_NH, targets_N, collisions_N)
        ways = [partial(self._direct, collisions_N=_part_of(collisions_N, part)) for part in parts]
        inputs = [(way, hidden_NH[part], targets_N[part]) for way, part in zip(ways, parts, strict=True)]
        return torch.cat([checkpoint(*of_part, use_reentrant=False) for of_part in inputs])

    def logits(self, hidden_MH: Tensor) -> Tensor:
        """fp32 logits of some rows [M, V], all at once: for as many rows as the caller can afford."""
        blocks = self._logits(hidden_MH)
        return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=1)

    def gradient(
        self,
        hidden_NH: Tensor,
        targets_N: Tensor,
        *,
        units: Sequence[slice],
        solve: Solve,
        collisions_N: Tensor | None = None,
    ) -> Root:
        """The gradient of Σ coefficient·logp: the head's own is added to its `.grad`, the rest begins at the root that
        is returned. `solve` is asked once a unit; units cover the rows in order. Fills `collisions_N`."""
        if not _is_plain_linear(self.module):
            with torch.enable_grad():
                return by_autograd(self.logps(hidden_NH, targets_N, collisions_N), units, solve)
        with torch.no_grad():
            back = torch.zeros_like(hidden_NH)
            unit_gradient = self._frozen_unit if self.unit_rows is None else self._unit
            for unit in units:
                unit_gradient(unit, hidden_NH, targets_N, solve, back, collisions_N)
        return Root(hidden_NH, back)

    def _unit(
        self,
        unit: slice,
        hidden_NH: Tensor,
        targets_N: Tensor,
        solve: Solve,
        back_NH: Tensor,
        collisions_N: Tensor | None,
    ) -> None:
        """One unit under a head that learns."""
        assert self.unit_rows is not None
        middle = max(unit.start, unit.stop - self.unit_rows)
        twice = list(self._chunks(unit.start, middle, hidden_NH))
        logps = [self._rows(hidden_NH[part], targets_N[part], _part_of(collisions_N, part)).logps for part in twice]
        tail = slice(middle, unit.stop)
        rows = self._rows(hidden_NH[tail], targets_N[tail], _part_of(collisions_N, tail))
        logps_N = torch.cat([*logps, rows.logps])
        coefficients_N = solve(unit, logps_N)
        self._back(rows, coefficients_N[middle - unit.start :], back_NH[tail])
        del rows
        for part in twice:
            coefficients = coefficients_N[part.start - unit.start : part.stop - unit.start]
            live = coefficients.nonzero()[:, 0] + part.start
            if len(live):
                back = torch.empty_like(hidden_NH[live])
                self._back(self._rows(hidden_NH[live], targets_N[live]), coefficients[live - part.start], back)
                back_NH[live] = back

    def _back(self, rows: _Rows, coefficients: Tensor, back: Tensor) -> None:
        """The gradient of some rows: added to the head's own, written over `back` for the states before it."""
        live = coefficients.nonzero()[:, 0]
        if len(live) == 0:
            return
        if len(live) < len(coefficients):
            subset = torch.zeros_like(back[live])
            self._back(rows.only(live), coefficients[live], subset)
            back[live] = subset
            return
        back.zero_()
        module: Any = self.module
        weight = mixed.for_gradients(module.weight)
        hidden = rows.hidden.to(weight.dtype)
        for columns, slope in rows.slopes(coefficients, self.scale):
            narrow = slope.to(weight.dtype)
            back += matmul.product(narrow, weight[columns].T)
            mixed.add_product(_gradient_of(module.weight)[columns], narrow.T, hidden.T)
            if module.bias is not None and module.bias.requires_grad:
                _gradient_of(module.bias)[columns] += slope.sum(0)

    def _frozen_unit(
        self,
        unit: slice,
        hidden_NH: Tensor,
        targets_N: Tensor,
        solve: Solve,
        back_NH: Tensor,
        collisions_N: Tensor | None,
    ) -> None:
        """One unit under a head that does not learn: ∂logp/∂h a chunk at a time, scaled once it is solved."""
        module: Any = self.module
        weight = mixed.for_gradients(module.weight)
        logps = []
        for part in self._chunks(unit.start, unit.stop, hidden_NH):
            rows = self._rows(hidden_NH[part], targets_N[part], _part_of(collisions_N, part))
            logps.append(rows.logps)
            for columns, slope in rows.slopes(torch.ones_like(rows.logps), self.scale):
                back_NH[part] += matmul.product(slope.to(weight.dtype), weight[columns].T)
        back_NH[unit] *= solve(unit, torch.cat(logps))[:, None].to(back_NH.dtype)

    def _rows(self, hidden: Tensor, targets: Tensor, collisions: Tensor | None = None) -> _Rows:
        rows = _Rows.of(hidden, targets, self._logits(hidden), self.softcap)
        if collisions is not None:
            collisions.copy_(rows.collisions())
        return rows

    def _chunks(self, start: int, stop: int, hidden_NH: Tensor) -> Iterator[slice]:
        rows = self.rows_a_chunk or chunk_rows(self._vocabulary(hidden_NH), hidden_NH.device)
        return (slice(at, min(at + rows, stop)) for at in range(start, stop, rows))

    def _vocabulary(self, hidden_NH: Tensor) -> int:
        if (out_features := getattr(self.module, "out_features", None)) is not None:
            return int(out_features)
        with torch.no_grad():
            return int(self.module(hidden_NH[:1]).shape[-1])

    def _logits(self, hidden: Tensor) -> list[Tensor]:
        """fp32 logits of some rows, in blocks of the vocabulary. Fresh tensors: callers write into them."""
        module: Any = self.module
        if _is_plain_linear(module):
            weight, bias = module.weight, module.bias
            wide = max(LEAST_COLUMNS, BLOCK_LOGITS // len(hidden)) if hidden.device.type == "cpu" else len(weight)
            cuts = [slice(at, at + wide) for at in range(0, len(weight), wide)]
            blocks = [
                matmul.affine(hidden, weight[columns], None if bias is None else bias[columns]).float()
                for columns in cuts
            ]
        else:
            blocks = [module(hidden).float()]
        for logits in blocks:
            if self.scale != 1.0:
                logits.mul_(self.scale)
            if self.softcap is not None:
                logits.div_(self.softcap).tanh_().mul_(self.softcap)
        return blocks

    def _direct(self, hidden_NH: Tensor, targets_N: Tensor, collisions_N: Tensor | None = None) -> Tensor:
        logits_NV = self.module(hidden_NH).float()
        if self.scale != 1.0:
            logits_NV = logits_NV * self.scale
        if self.softcap is not None:
            logits_NV = self.softcap * torch.tanh(logits_NV / self.softcap)
        return OwnLogits().logps(logits_NV, targets_N, collisions_N)


class OwnLogits:
    """In place of a head where none is known to be the model's: what stands for hidden states are its logits [N, V]."""

    unit_rows = None

    def logps(self, logits_NV: Tensor, targets_N: Tensor, collisions_N: Tensor | None = None) -> Tensor:
        """As `Head.logps`."""
        if collisions_N is not None:
            wide_NV = logits_NV.detach().float()
            collisions_N.copy_((2 * wide_NV).logsumexp(1) - 2 * wide_NV.logsumexp(1))
        return -cross_entropy(logits_NV.float(), targets_N, reduction="none")

    def logits(self, logits_MV: Tensor) -> Tensor:
        """As `Head.logits`."""
        return logits_MV.float()

    def gradient(
        self,
        logits_NV: Tensor,
        targets_N: Tensor,
        *,
        units: Sequence[slice],
        solve: Solve,
        collisions_N: Tensor | None = None,
    ) -> Root:
        """As `Head.gradient`."""
        with torch.enable_grad():
            return by_autograd(self.logps(logits_NV, targets_N, collisions_N), units, solve)


def by_autograd(logps_N: Tensor, units: Sequence[slice], solve: Solve) -> Root:
    """A root at numbers that have a graph of their own, one a row; `solve` is asked once a unit."""
    detached_N = logps_N.detach()
    return Root(logps_N, torch.cat([solve(unit, detached_N[unit]) for unit in units]))


def _part_of(values_N: Tensor | None, part: slice) -> Tensor | None:
    """A view of these rows, where there are any."""
    return None if values_N is None else values_N[part]


def _is_plain_linear(module: nn.Module) -> TypeGuard[nn.Linear]:
    return (
        isinstance(module, nn.Linear)
        and type(module).forward is nn.Linear.forward
        and not module._forward_hooks
        and not module._forward_pre_hooks
    )


@dataclass(frozen=True, slots=True)
class _Rows:
    """Some rows [M] of a head's output: logps, and what their gradient is made of.

    `blocks` hold exp(logit − top) for consecutive columns of the vocabulary, `total_M` their sum over all of them,
    `flat` the derivative of the soft-capping, if there is one.
    """

    hidden: Tensor
    targets: Tensor
    blocks: list[Tensor]
    flat: list[Tensor] | None
    total_M: Tensor
    logps: Tensor

    @classmethod
    def of(cls, hidden: Tensor, targets: Tensor, blocks: list[Tensor], softcap: float | None) -> _Rows:
        """Takes the logits over: they are written over."""
        flat = None if softcap is None else [1 - (logits / softcap).square_() for logits in blocks]
        top_M = torch.stack([logits.amax(1) for logits in blocks]).amax(0)
        at_target_M, total_M = torch.zeros_like(top_M), torch.zeros_like(top_M)
        for logits, (columns, inside) in zip(blocks, _within(targets, blocks), strict=True):
            at_target_M += torch.where(inside, logits.gather(1, columns[:, None])[:, 0], 0.0)
            total_M += logits.sub_(top_M[:, None]).exp_().sum(1)
        return cls(hidden, targets, blocks, flat, total_M, at_target_M - top_M - total_M.log())

    def collisions(self) -> Tensor:
        """ln Σ_v p_v² of each row [M], nats; before `slopes` write over the blocks."""
        squares_M = torch.stack([torch.linalg.vector_norm(block, dim=1).square_() for block in self.blocks]).sum(0)
        return squares_M.log() - 2 * self.total_M.log()

    def only(self, index_M: Tensor) -> _Rows:
        """The rows with these indices."""
        flat = None if self.flat is None else [of[index_M] for of in self.flat]
        blocks = [block[index_M] for block in self.blocks]
        return _Rows(
            self.hidden[index_M], self.targets[index_M], blocks, flat, self.total_M[index_M], self.logps[index_M]
        )

    def slopes(self, coefficients_M: Tensor, scale: float) -> Iterator[tuple[slice, Tensor]]:
        """(columns, coefficient · ∂logp/∂(W h + b) there), block by block, written over the blocks.

        With p the softmax and e the target's one-hot row: (e − p) · scale · (1 − (z / softcap)²), z the capped logits.
        """
        factor = (-coefficients_M / self.total_M)[:, None]
        start = 0
        for number, (slope, (columns, inside)) in enumerate(
            zip(self.blocks, _within(self.targets, self.blocks), strict=True)
        ):
            slope.mul_(factor).scatter_add_(1, columns[:, None], torch.where(inside, coefficients_M, 0.0)[:, None])
            if self.flat is not None:
                slope.mul_(self.flat[number])
            yield slice(start, start + slope.shape[1]), slope.mul_(scale) if scale != 1.0 else slope
            start += slope.shape[1]


def _within(targets_M: Tensor, blocks: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """(column of each row's target in the block, whether it is there), block by block; column 0 where it is not."""
    start = 0
    for block in blocks:
        inside = (targets_M >= start) & (targets_M < start + block.shape[1])
        yield torch.where(inside, targets_M - start, 0), inside
        start += block.shape[1]


def _gradient_of(parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad
