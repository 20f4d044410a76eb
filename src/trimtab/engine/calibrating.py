"""Two models along the same held-out responses: how sure each is of the next token, and how far apart they are.

Both are read pack by pack, together: the divergence of two distributions over the vocabulary wants both at once, and
keeping one of them for later would take [tokens, vocabulary]. Logits live for a few rows at a time. Where the aligned
model is an adapter, its own base with the adapter off is the other model, so one set of weights serves for both; where
all weights were trained, two sets are held, half of what training them took.

Dims: N tokens of a response, M rows of a chunk, V vocabulary, H hidden.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trimtab.engine import models
from trimtab.engine.head import Head, OwnLogits, chunk_rows
from trimtab.engine.packing import Group, Pack, Span, pack_groups
from trimtab.engine.scoring import Scorer, States
from trimtab.errors import NumericsError
from trimtab.records import TokenPair

SHARES_OF_A_CHUNK = 4  # logits of two models, their logarithms and probabilities: in all about two of the head's chunks


@dataclass(frozen=True, slots=True)
class NextToken:
    """One model's expectations along some tokens, fp32 [N]: log p of the token that came (nats), probability of the
    most likely one, whether that one came (0 or 1), entropy of the distribution (nats)."""

    logp_N: Tensor
    confidence_N: Tensor
    right_N: Tensor
    entropy_N: Tensor


@dataclass(frozen=True, slots=True)
class Reading:
    """Both models on the pair number `index`, on the CPU.

    `divergence_N` is KL(aligned ‖ unaligned) over the whole vocabulary before each token of the chosen response, nats.
    Of the rejected response there is log p of every token (nats) under both.
    """

    index: int
    unaligned: NextToken
    aligned: NextToken
    divergence_N: Tensor
    rejected_unaligned_N: Tensor
    rejected_aligned_N: Tensor


def adapted(model: Any, folder: Path) -> Any:
    """`model` with the adapter of a PEFT folder in place (not merged), so that it can be switched off again."""
    from peft import PeftModel

    with models.reading(folder):
        return PeftModel.from_pretrained(model, str(folder)).eval()


def read(
    aligned: Scorer,
    unaligned: Scorer,
    pairs: Sequence[TokenPair],
    *,
    pack_tokens: int,
    advance: Callable[[int], None] = lambda _pairs: None,
) -> Iterator[Reading]:
    """One reading a pair, in no particular order. `unaligned` is read with its adapter off, if it has one: a model with
    an adapter is given twice. Raises NumericsError with the pair's name for numbers that are not finite."""
    groups = [Group.of_pair(pair, index) for index, pair in enumerate(pairs)]
    layout = aligned.prepare(groups)
    with models.reference_mode(unaligned.model):
        if unaligned.prepare(groups) != layout:  # a padded pack holds as many tokens or fewer
            layout = "padded"
    for pack in pack_groups(groups, budget_tokens=pack_tokens, layout=layout):
        for reading in _of_pack(aligned, unaligned, pack):
            _require_finite(reading, pairs[reading.index])
            advance(1)
            yield reading


@torch.no_grad()
def _of_pack(aligned: Scorer, unaligned: Scorer, pack: Pack) -> Iterator[Reading]:
    spans = {span.key: span for span in pack.spans}
    after = aligned.states(pack)
    with models.reference_mode(unaligned.model):
        before = unaligned.states(pack)
    for group in pack.groups:
        chosen, rejected = (spans[key] for key in group.keys)
        next_token, apart_N = _together(aligned, after, unaligned, before, chosen)
        own = aligned.head.logps(*_rows(after, rejected))
        with models.reference_mode(unaligned.model):
            base_logps = unaligned.head.logps(*_rows(before, rejected))
        yield Reading(group.pair, next_token[0], next_token[1], apart_N, base_logps.cpu(), own.cpu())


def _together(
    aligned: Scorer, after: States, unaligned: Scorer, before: States, span: Span
) -> tuple[tuple[NextToken, NextToken], Tensor]:
    """(unaligned, aligned) and their divergence along one response, a few rows at a time."""
    own_NH, targets_N = _rows(after, span)
    base_NH, _ = _rows(before, span)
    chunk_size = _chunk(aligned.head, own_NH)
    parts: list[tuple[NextToken, NextToken, Tensor]] = []
    for start in range(0, len(targets_N), chunk_size):
        part = slice(start, start + chunk_size)
        own_MV = aligned.head.logits(own_NH[part]).log_softmax(-1)
        with models.reference_mode(unaligned.model):
            base_MV = unaligned.head.logits(base_NH[part]).log_softmax(-1)
        targets_M = targets_N[part]
        parts.append((next_token(base_MV, targets_M), next_token(own_MV, targets_M), divergence(own_MV, base_MV)))
    unaligned_parts, aligned_parts, apart = zip(*parts, strict=True)
    return (_joined(unaligned_parts), _joined(aligned_parts)), torch.cat(apart).cpu()


def next_token(logps_MV: Tensor, targets_M: Tensor) -> NextToken:
    """From log-probabilities over the vocabulary and the tokens that came. Of equals the first is the most likely."""
    top_M, argmax_M = logps_MV.max(-1)
    return NextToken(
        logp_N=logps_MV.gather(1, targets_M[:, None])[:, 0],
        confidence_N=top_M.exp(),
        right_N=(argmax_M == targets_M).float(),
        entropy_N=torch.special.entr(logps_MV.exp()).sum(-1),
    )


def divergence(logps_MV: Tensor, base_MV: Tensor) -> Tensor:
    """KL(p ‖ q) = Σ p·(ln p − ln q) of each row [M], nats, from the logarithms of both.

    Added up as Σ (p·d − p + q) with d = ln p − ln q: the same sum, since p and q both add up to 1, of terms that are
    never negative. An error of the normalisers, which is all there is between near-equal models in fp32, then counts
    squared. Near d = 0 a term is p·(d + expm1(−d)), which does not cancel.
    """
    p_MV = logps_MV.exp()
    # a token that neither model allows is no difference; e^-200 is 0 in fp32
    apart_MV = (logps_MV - base_MV).nan_to_num(nan=0.0, posinf=math.inf, neginf=-200.0)
    near_MV = p_MV * (apart_MV + torch.expm1(-apart_MV.clamp(min=-1.0)))
    far_MV = p_MV * (apart_MV - 1) + base_MV.exp()
    return torch.where(apart_MV > -1.0, near_MV, far_MV).sum(-1)


def _rows(states: States, span: Span) -> tuple[Tensor, Tensor]:
    return states.hidden_NH[span.start : span.stop], states.targets_N[span.start : span.stop]


def _chunk(head: Head | OwnLogits, hidden_NH: Tensor) -> int:
    vocabulary = head.logits(hidden_NH[:1]).shape[-1]
    return max(1, chunk_rows(vocabulary, hidden_NH.device) // SHARES_OF_A_CHUNK)


def _joined(parts: Sequence[NextToken]) -> NextToken:
    return NextToken(
        logp_N=torch.cat([part.logp_N for part in parts]).cpu(),
        confidence_N=torch.cat([part.confidence_N for part in parts]).cpu(),
        right_N=torch.cat([part.right_N for part in parts]).cpu(),
        entropy_N=torch.cat([part.entropy_N for part in parts]).cpu(),
    )


def _require_finite(reading: Reading, pair: TokenPair) -> None:
    fields = (
        reading.unaligned.logp_N, reading.aligned.logp_N, reading.unaligned.entropy_N, reading.aligned.entropy_N,
        reading.divergence_N, reading.rejected_unaligned_N, reading.rejected_aligned_N,
    )  # fmt: skip
    if not all(bool(values.isfinite().all()) for values in fields):
        raise NumericsError(
            f"pair {pair.id}: a log-probability is not finite",
            remedy="use --engine.dtype float32; if it stays, the model's weights are damaged",
        )
