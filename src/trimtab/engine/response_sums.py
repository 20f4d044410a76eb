"""From the tokens of a pack, which several responses may share, to each response's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from trimtab.engine.packing import Span
from trimtab.records import TokenPair


def sum_by_response(
    spans: Sequence[Span], logps_N: Tensor, weights: Mapping[int, Sequence[float]] | None = None, *, start: int = 0
) -> Tensor:
    """Per-token values summed to responses [R], in the spans' order, fp32 (added up in fp64 where the device can).

    `weights`: key → one weight a token of that response (LD-DPO's tail); None weighs every token 1. `start`: the row of
    the pack that is the first of `logps_N`.
    """
    rows, owners = rows_and_owners(spans, device=logps_N.device)
    wide = torch.float32 if logps_N.device.type == "mps" else torch.float64
    logps_M = logps_N[rows - start].to(wide)
    if weights is not None:
        flat = [w for span in spans for w in weights[span.key]]
        logps_M = logps_M * torch.tensor(flat, dtype=wide, device=logps_N.device)
    return torch.zeros(len(spans), dtype=wide, device=logps_N.device).index_add(0, owners, logps_M).float()


def rows_and_owners(spans: Sequence[Span], *, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Of each token of these responses, one after the other: its row among the targets, and its response's place."""
    rows = torch.tensor([row for span in spans for row in span.rows], device=device)
    lengths = torch.tensor([len(span.rows) for span in spans], device=device)
    return rows, torch.arange(len(spans), device=device).repeat_interleave(lengths)


def score_gaps(pairs: Sequence[TokenPair]) -> Tensor | None:
    """[P], fp32, in the unit of whoever scored the responses; None where a pair has none."""
    gaps = [pair.score_gap for pair in pairs if pair.score_gap is not None]
    return torch.tensor(gaps) if len(gaps) == len(pairs) else None
