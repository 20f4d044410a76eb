"""Two models along the same held-out responses: how sure each is of the next token, and how far apart they are.

Both are read pack by pack, together: the divergence of two distributions over the vocabulary wants both at once, and
keeping one of them for later would take [tokens, vocabulary]. Logits live for a few rows at a time. Where the policy is
an adapter, its own base with the adapter off is the reference, so one set of weights serves for both; where all weights
were trained, two sets are held, half of what training them took.

Dims: N tokens of a response, M rows of a chunk, V vocabulary, H hidden.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trimtab.engine import adapters, models, trainable
from trimtab.engine.head import Head, OwnLogits, chunk_rows
from trimtab.engine.packing import Group, Pack, Span, pack_groups
from trimtab.engine.score_head import ScoreHead
from trimtab.engine.scoring import Scorer
from trimtab.engine.states import States
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

    @classmethod
    def of(cls, logps_MV: Tensor, targets_M: Tensor) -> NextToken:
        """From log-probabilities over the vocabulary and the tokens that came. Of equals the first is most likely."""
        top_M, argmax_M = logps_MV.max(-1)
        return cls(
            logp_N=logps_MV.gather(1, targets_M[:, None])[:, 0],
            confidence_N=top_M.exp(),
            right_N=(argmax_M == targets_M).float(),
            entropy_N=torch.special.entr(logps_MV.exp()).sum(-1),
        )

    @classmethod
    def join(cls, parts: Sequence[NextToken]) -> NextToken:
        """Parts of one response in their order, on the CPU."""
        return cls(*(torch.cat([getattr(part, field.name) for part in parts]).cpu() for field in fields(cls)))


@dataclass(frozen=True, slots=True)
class Reading:
    """Both models on the pair number `index`, on the CPU.

    `divergence_N` is KL(policy ‖ reference) over the whole vocabulary before each token of the chosen response, nats.
    Of the rejected response there is log p of every token (nats) under both.
    """

    index: int
    policy: NextToken
    reference: NextToken
    divergence_N: Tensor
    rejected_policy_N: Tensor
    rejected_reference_N: Tensor


def with_adapter(model: Any, folder: Path) -> Any:
    """`model` with the adapter of a PEFT folder in place (not merged), so that it can be switched off again."""
    from peft import PeftModel

    with models.reading(folder), adapters.quiet_peft():
        return PeftModel.from_pretrained(model, str(folder)).eval()


def read(
    policy: Scorer,
    reference: Scorer,
    pairs: Sequence[TokenPair],
    *,
    pack_tokens: int,
    advance: Callable[[int], None] = lambda _pairs: None,
) -> Iterator[Reading]:
    """One reading a pair, in no particular order. `reference` is read with its adapter off, if it has one: a model with
    an adapter is given twice. Raises NumericsError with the pair's name for numbers that are not finite."""
    groups = [Group.of_pair(pair, index) for index, pair in enumerate(pairs)]
    layout = policy.prepare(groups)
    with trainable.reference_mode(reference.model):
        if reference.prepare(groups) != layout:  # a padded pack holds as many tokens or fewer
            layout = "padded"
    for pack in pack_groups(groups, budget_tokens=pack_tokens, layout=layout):
        for reading in _read_pack(policy, reference, pack):
            _require_finite(reading, pairs[reading.index])
            advance(1)
            yield reading


@torch.no_grad()
def _read_pack(policy: Scorer, reference: Scorer, pack: Pack) -> Iterator[Reading]:
    spans = {span.key: span for span in pack.spans}
    policy_states = policy.states(pack)
    with trainable.reference_mode(reference.model):
        reference_states = reference.states(pack)
    for group in pack.groups:
        chosen, rejected = (spans[key] for key in group.keys)
        parts = list(_read_chunks(policy, policy_states, reference, reference_states, chosen))
        policy_logps_N = policy.head.logps(*_rows(policy_states, rejected))
        with trainable.reference_mode(reference.model):
            reference_logps_N = reference.head.logps(*_rows(reference_states, rejected))
        yield Reading(
            index=group.pair,
            policy=NextToken.join([part for part, _, _ in parts]),
            reference=NextToken.join([part for _, part, _ in parts]),
            divergence_N=torch.cat([part_M for _, _, part_M in parts]).cpu(),
            rejected_policy_N=policy_logps_N.cpu(),
            rejected_reference_N=reference_logps_N.cpu(),
        )


def _language_head(scorer: Scorer) -> Head | OwnLogits:
    assert not isinstance(scorer.head, ScoreHead), "a score has no next token"
    return scorer.head


def _read_chunks(
    policy: Scorer, policy_states: States, reference: Scorer, reference_states: States, span: Span
) -> Iterator[tuple[NextToken, NextToken, Tensor]]:
    """Policy, reference and their divergence along one response, a few rows at a time."""
    policy_NH, targets_N = _rows(policy_states, span)
    reference_NH, _ = _rows(reference_states, span)
    policy_head, reference_head = _language_head(policy), _language_head(reference)
    n_rows = _rows_at_once(policy_head, policy_NH)
    for start in range(0, len(targets_N), n_rows):
        chunk = slice(start, start + n_rows)
        policy_MV = policy_head.logits(policy_NH[chunk]).log_softmax(-1)
        with trainable.reference_mode(reference.model):
            reference_MV = reference_head.logits(reference_NH[chunk]).log_softmax(-1)
        targets_M = targets_N[chunk]
        next_tokens = NextToken.of(policy_MV, targets_M), NextToken.of(reference_MV, targets_M)
        yield *next_tokens, divergence(policy_MV, reference_MV)


def divergence(logps_MV: Tensor, reference_MV: Tensor) -> Tensor:
    """KL(p ‖ q) = Σ p·(ln p − ln q) of each row [M], nats, from the logarithms of both.

    Added up as Σ (p·d − p + q) with d = ln p − ln q: the same sum, since p and q both add up to 1, of terms that are
    never negative. An error of the normalisers, which is all there is between near-equal models in fp32, then counts
    squared. Near d = 0 a term is p·(d + expm1(−d)), which does not cancel.
    """
    p_MV = logps_MV.exp()
    # a token that neither model allows is no difference; e^-200 is 0 in fp32
    difference_MV = (logps_MV - reference_MV).nan_to_num(nan=0.0, posinf=math.inf, neginf=-200.0)
    near_MV = p_MV * (difference_MV + torch.expm1(-difference_MV.clamp(min=-1.0)))
    far_MV = p_MV * (difference_MV - 1) + reference_MV.exp()
    return torch.where(difference_MV > -1.0, near_MV, far_MV).sum(-1)


def _rows(states: States, span: Span) -> tuple[Tensor, Tensor]:
    return states.hidden_NH[list(span.rows)], states.targets_N[list(span.rows)]


def _rows_at_once(head: Head | OwnLogits, hidden_NH: Tensor) -> int:
    vocabulary = head.logits(hidden_NH[:1]).shape[-1]
    return max(1, chunk_rows(vocabulary, hidden_NH.device) // SHARES_OF_A_CHUNK)


def _require_finite(reading: Reading, pair: TokenPair) -> None:
    values = (
        reading.policy.logp_N, reading.reference.logp_N, reading.policy.entropy_N, reading.reference.entropy_N,
        reading.divergence_N, reading.rejected_policy_N, reading.rejected_reference_N,
    )  # fmt: skip
    if not all(bool(values_N.isfinite().all()) for values_N in values):
        raise NumericsError(
            f"pair {pair.id}: a log-probability is not finite",
            remedy="use --engine.dtype float32; if it stays, the model's weights are damaged",
        )
