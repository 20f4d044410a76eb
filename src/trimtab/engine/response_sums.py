"""From the tokens of a pack, which several responses may share, to each response's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from trimtab.engine.packing import Span
from trimtab.objectives import Objective
from trimtab.records import Ranges, TokenPair

Weights = Mapping[int, Sequence[float]]


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


def weighted_sums(token_logps: Sequence[Tensor], pairs: Sequence[TokenPair], objective: Objective) -> Tensor:
    """Per-token log-probabilities of 2P responses summed as the objective weighs them: [2P], nats, fp32."""
    sums = []
    weights = token_weights(pairs, objective)
    for key, logps in enumerate(token_logps):
        wide = logps.double()
        sums.append((wide if weights is None else wide * torch.tensor(weights[key], dtype=torch.float64)).sum())
    return torch.stack(sums).float()


def token_weights(pairs: Sequence[TokenPair], objective: Objective) -> Weights | None:
    """Key → weight of each token, 0 for those that the assistant did not write; None where all are 1."""
    if objective.ld_alpha is None:
        return own_tokens(pairs)
    weights: dict[int, tuple[float, ...]] = {}
    for p, pair in enumerate(pairs):
        chosen, rejected = objective.token_weights(*pair.own_lengths)
        weights[2 * p] = _with_zeros(chosen, pair.chosen_foreign)
        weights[2 * p + 1] = _with_zeros(rejected, pair.rejected_foreign)
    return weights


def own_tokens(pairs: Sequence[TokenPair]) -> Weights | None:
    """Key → 1 for each token that the assistant wrote, 0 for others; None where there are no others."""
    if not any(pair.chosen_foreign or pair.rejected_foreign for pair in pairs):
        return None
    sides = [
        (length, foreign)
        for pair in pairs
        for length, foreign in zip(pair.own_lengths, (pair.chosen_foreign, pair.rejected_foreign), strict=True)
    ]
    return {key: _with_zeros((1.0,) * length, foreign) for key, (length, foreign) in enumerate(sides)}


def _with_zeros(weights: tuple[float, ...], foreign: Ranges) -> tuple[float, ...]:
    """The weights of the assistant's own tokens, with zeros in the ranges of others between them."""
    for start, end in foreign:
        weights = (*weights[:start], *((0.0,) * (end - start)), *weights[start:])
    return weights
