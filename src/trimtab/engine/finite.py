"""Weights, moments and adapters that must be finite, by the name of their tensor."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from trimtab.errors import NumericsError

MOST_NAMES = 6  # in one message; more names tell nobody more


def not_finite(tensors: Iterable[tuple[str, Tensor]]) -> list[str]:
    """Names of the tensors that hold NaN or Inf. One pass over each, no copies; whole numbers always are finite."""
    names, largest = [], []
    for name, tensor in tensors:
        if tensor.is_floating_point() and tensor.numel():
            names.append(name)
            largest.append(torch.linalg.vector_norm(tensor.detach(), ord=torch.inf).float().to("cpu"))
    if not names:
        return []
    return [name for name, good in zip(names, torch.stack(largest).isfinite().tolist(), strict=True) if not good]


def refuse(tensors: Iterable[tuple[str, Tensor]], *, subject: str, remedy: str) -> None:
    """Raises NumericsError naming the tensors of `subject` that are not finite."""
    if bad := not_finite(tensors):
        raise NumericsError(f"{subject}: {name_list(bad)} {'is' if len(bad) == 1 else 'are'} not finite", remedy=remedy)


def refuse_weights(model: nn.Module, name: str) -> None:
    """Raises NumericsError naming the tensors of a model just loaded that hold NaN or Inf."""
    refuse(
        model.named_parameters(),
        subject=f"{name}: the weights of this model",
        remedy="Download or save the model again; if it was trained, take a checkpoint from before its training broke.",
    )


def name_list(names: Sequence[str]) -> str:
    """`a, b and 3 more`."""
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more
