"""How weights lie in memory, for products with few rows.

A linear layer multiplies by its weight's transpose. With the tens of rows of a decoding step the time goes into reading
the weight, and both CPU libraries read it faster when the transpose is what lies in memory: `LOG.md` has the figures.
Layers that read the same numbers lie side by side, so that one product can take them all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

_BESIDE = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


def lay_for_decoding(model: Any) -> None:
    """Store the matrices of fp32 linear layers on a CPU column by column, for good; shapes and values stay.

    Each is copied once, one group at a time. A head that is tied to the embedding stays tied.
    """
    beside: set[nn.Linear] = set()
    for module in model.modules():
        for names in _BESIDE:
            linears = [part for name in names if _is_laid(part := getattr(module, name, None))]
            if len(linears) == len(names) and len({linear.in_features for linear in linears}) == 1:
                _lay(linears)
                beside.update(linears)
    for module in model.modules():
        if _is_laid(module) and module not in beside:
            _lay([module])


def joint_weight(linears: Iterable[nn.Linear]) -> Tensor | None:
    """The weights below each other as one matrix, without a copy; None where they do not lie so."""
    weights = [linear.weight for linear in linears]
    first, n_columns = weights[0], weights[0].stride(1)
    at = first.storage_offset()
    for weight in weights:
        same = weight.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
        if not same or weight.stride() != (1, n_columns) or weight.storage_offset() != at:
            return None
        at += len(weight)
    if sum(map(len, weights)) != n_columns:
        return None
    return first.detach().as_strided((n_columns, first.shape[1]), (1, n_columns), first.storage_offset())


def _is_laid(module: Any) -> TypeGuard[nn.Linear]:
    if type(module) is not nn.Linear:
        return False
    return bool(module.weight.device.type == "cpu" and module.weight.dtype == torch.float32)


def _lay(linears: Sequence[nn.Linear]) -> None:
    transposed = torch.cat([linear.weight.data.T for linear in linears], dim=1)
    at = 0
    for linear in linears:
        n_rows = len(linear.weight)
        linear.weight.data = transposed[:, at : at + n_rows].T
        at += n_rows
