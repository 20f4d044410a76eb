"""Rewards of pairs that are not trained on, and the guard that the first step stands on.

Dims: P pairs, R responses (chosen 2p, rejected 2p + 1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from trimtab.engine.batch_result import BatchResult
from trimtab.engine.finite import name_list, not_finite
from trimtab.engine.noise import SURE, Noise
from trimtab.engine.packing import Group
from trimtab.engine.processes import ALONE, Processes, deal
from trimtab.engine.reference import Reference
from trimtab.engine.response_sums import score_gaps, weighted_sums
from trimtab.engine.scoring import Scorer
from trimtab.errors import NumericsError
from trimtab.objectives import LogRatios, Objective
from trimtab.records import TokenPair

# How far a policy that equals the reference may seem to be from it where arithmetic has no noise to speak of (fp32 in
# packs of other sizes): nats a response, and a share of its |log p|. What the self-check measured is allowed on top.
_DRIFT_NATS, _DRIFT_SHARE = 2e-3, 2e-6
_LOSS = 1e-3  # the same for the mean loss, times the largest of 1, β and the constant itself

_CAUSES = (
    "likely causes: the chat template or tokenizer is another one, the dtype changed, dropout is on, the model already "
    "carries an adapter, or its weights were replaced; `trimtab reference` computes the cache for the model of now"
)


def log_ratios(policy_R: Tensor, reference_R: Tensor | None, pairs: Sequence[TokenPair]) -> LogRatios:
    """Sums of 2P responses as an objective reads them. `reference_R` is None where no reference is needed."""
    lengths_R = torch.tensor([length for pair in pairs for length in pair.own_lengths])
    reference_R = torch.zeros_like(policy_R) if reference_R is None else reference_R
    return LogRatios(
        policy_chosen=policy_R[0::2],
        policy_rejected=policy_R[1::2],
        reference_chosen=reference_R[0::2],
        reference_rejected=reference_R[1::2],
        chosen_lengths=lengths_R[0::2],
        rejected_lengths=lengths_R[1::2],
        score_gaps=score_gaps(pairs),
    )


def score(
    scorer: Scorer,
    pairs: Sequence[TokenPair],
    *,
    objective: Objective,
    pack_tokens: int,
    advance: Callable[[int], None] = lambda _responses: None,
    processes: Processes = ALONE,
) -> Tensor:
    """Sums of log-probabilities [2P] under the model as it is (nats), weighted as the objective weighs tokens. Each
    process computes a part, and all have all.

    Raises NumericsError naming the pair whose numbers are not finite.
    """
    rows = by_token(scorer, pairs, pack_tokens=pack_tokens, advance=advance, processes=processes)
    return weighted_sums(rows, pairs, objective)


def by_token(
    scorer: Scorer,
    pairs: Sequence[TokenPair],
    *,
    pack_tokens: int,
    advance: Callable[[int], None] = lambda _responses: None,
    processes: Processes = ALONE,
) -> list[Tensor]:
    """Per-token log-probabilities of 2P responses under the model as it is, nats."""
    own = deal([pair.n_tokens for pair in pairs], processes.size)[processes.rank]

    def compute() -> dict[int, Tensor]:
        rows: dict[int, Tensor] = {}
        groups = [Group.of_pair(pairs[index], index) for index in own]
        for key, row in scorer.by_key(groups, pack_tokens=pack_tokens) if groups else ():
            if not torch.isfinite(row).all():
                raise _not_finite(scorer, pairs[key // 2])
            rows[key] = row
            advance(1)
        return rows

    rows = {key: row for part in processes.together(compute) for key, row in part.items()}
    return [rows.get(key, torch.zeros(0)) for key in range(2 * len(pairs))]  # an absent side has no tokens


def _not_finite(scorer: Scorer, pair: TokenPair) -> NumericsError:
    weights = not_finite(scorer.model.named_parameters())
    return NumericsError(
        f"a log-probability is not finite for {pair.id}"
        + (f"; nor are the weights of {name_list(weights)}" if weights else ""),
        remedy="The checkpoints before are whole. Lower train.learning_rate, or use engine.dtype = float32.",
    )


def rewards(objective: Objective, ratios: LogRatios) -> dict[str, Any]:
    """Means over pairs: `accuracy` (a tie counts half), `reward_gap`, and each pair's gap in `reward_gaps`.

    The side that an unpaired row lacks has the reward 0: its gap is the reward of a good response and that of a bad one
    with the sign turned, and it is right where the reward is on the label's side of the reference. Such rows have
    `labels` too: whether each is good.
    """
    chosen_P, rejected_P = objective.rewards(ratios)
    gap_P = (chosen_P - rejected_P).double()
    has_chosen_P, has_rejected_P = ratios.chosen_lengths > 0, ratios.rejected_lengths > 0
    return {
        "accuracy": float(((gap_P > 0).double() + 0.5 * (gap_P == 0).double()).mean()),
        "reward_gap": float(gap_P.mean()),
        "rewards_chosen": float(chosen_P[has_chosen_P].double().mean()) if has_chosen_P.any() else None,
        "rewards_rejected": float(rejected_P[has_rejected_P].double().mean()) if has_rejected_P.any() else None,
        "reward_gaps": gap_P.tolist(),
    } | ({} if (has_chosen_P & has_rejected_P).all() else {"labels": has_chosen_P.tolist()})


def heldout(
    scorer: Scorer,
    pairs: Sequence[TokenPair],
    *,
    objective: Objective,
    reference: Reference | None,
    pack_tokens: int,
    untrained: bool = False,
    advance: Callable[[int], None] = lambda _responses: None,
    processes: Processes = ALONE,
) -> dict[str, Any] | None:
    """`rewards` of pairs kept out of training, with their `losses`; None without pairs. An untrained policy is the
    reference: no pass."""
    if not pairs:
        return None
    reference_R = None if reference is None else weighted_sums(reference.of_pairs(pairs), pairs, objective)
    if untrained and reference_R is not None:
        policy_R = reference_R
    else:
        policy_R = score(
            scorer, pairs, objective=objective, pack_tokens=pack_tokens, advance=advance, processes=processes
        )
    ratios = log_ratios(policy_R, reference_R, pairs)
    return rewards(objective, ratios) | {"losses": objective.loss(ratios).double().tolist()}


def evidence(
    scorer: Scorer,
    pairs: Sequence[TokenPair],
    *,
    objective: Objective,
    reference: Reference | None,
    pack_tokens: int,
    advance: Callable[[int], None] = lambda _responses: None,
    processes: Processes = ALONE,
) -> dict[str, Any]:
    """What pairs kept out of training say of the policy as it is, for a choice between several: plain numbers.

    `rewards` (see there); `losses` [P] under the objective; `drift`, None without a reference, else sums over each
    response's tokens [2P] of the log-ratio (`log_ratios`, nats) and of half its square (`squares`). The mean of the
    latter over tokens that the reference sampled estimates KL(reference ‖ policy) up to third order in the log-ratio
    (Schulman's k2, http://joschu.net/blog/kl-approx.html); it is never negative, so it cannot cancel out, and costs no
    pass of its own. Tokens are weighed equally here, whatever the objective does. Raises NumericsError, naming the
    pair, for a log-probability that is not finite.
    """
    rows = by_token(scorer, pairs, pack_tokens=pack_tokens, advance=advance, processes=processes)
    reference_logps = None if reference is None else reference.of_pairs(pairs)
    reference_R = None if reference_logps is None else weighted_sums(reference_logps, pairs, objective)
    ratios = log_ratios(weighted_sums(rows, pairs, objective), reference_R, pairs)
    return {
        "rewards": rewards(objective, ratios),
        "losses": objective.loss(ratios).double().tolist(),
        "drift": None if reference_logps is None else _drift(_own(rows, pairs), _own(reference_logps, pairs)),
    }


def _own(rows: Sequence[Tensor], pairs: Sequence[TokenPair]) -> list[Tensor]:
    """Of each of 2P responses the tokens that the assistant wrote."""
    ranges = [foreign for pair in pairs for foreign in (pair.chosen_foreign, pair.rejected_foreign)]
    own = []
    for row, foreign in zip(rows, ranges, strict=True):
        ends = [0, *(end for _, end in foreign)]
        starts = [*(start for start, _ in foreign), len(row)]
        own.append(torch.cat([row[end:start] for end, start in zip(ends, starts, strict=True)]) if foreign else row)
    return own


def _drift(rows: Sequence[Tensor], reference: Sequence[Tensor]) -> dict[str, list[float]]:
    ratios = [row.double() - reference_row.double() for row, reference_row in zip(rows, reference, strict=True)]
    return {
        "log_ratios": [float(ratio_N.sum()) for ratio_N in ratios],
        "squares": [float((0.5 * ratio_N.square()).sum()) for ratio_N in ratios],
    }


def guard_first_batch(
    scorer: Scorer,
    result: BatchResult,
    *,
    objective: Objective,
    reference_R: Tensor | None,
    pairs: Sequence[TokenPair],
    pack_tokens: int,
) -> None:
    """`step_zero_guard` on the first batch; where adapter dropout is on, on the same batch scored without it."""
    ratios, loss = result.log_ratios, result.loss
    if scorer.has_dropout:
        policy_R = score(scorer, pairs, objective=objective, pack_tokens=pack_tokens)
        ratios = log_ratios(policy_R, reference_R, pairs)
        loss = float(objective.loss(ratios).double().mean())
    step_zero_guard(objective, ratios, loss=loss, pairs=pairs, noise=scorer.noise)


def step_zero_guard(
    objective: Objective, ratios: LogRatios, *, loss: float, pairs: Sequence[TokenPair], noise: Noise
) -> None:
    """Before the first update policy and reference are the same model, so every log-ratio is 0 and the loss a constant.

    Raises NumericsError with the likely causes when either is not so within what `noise` explains.
    """
    if not objective.needs_reference:
        return
    for name, ratio_P, logp_P, lengths_P in (
        ("chosen", ratios.chosen, ratios.reference_chosen, ratios.chosen_lengths),
        ("rejected", ratios.rejected, ratios.reference_rejected, ratios.rejected_lengths),
    ):
        allowance_P = _DRIFT_NATS + _DRIFT_SHARE * logp_P.abs() + SURE * noise.of_log_ratio(1) * lengths_P.sqrt()
        excess_P = ratio_P.abs() - allowance_P
        if (excess_P > 0).any():
            worst = int(excess_P.argmax())
            raise NumericsError(
                f"step zero: policy and reference should be the same model, but the {name} response of "
                f"{pairs[worst].id} has a log-ratio of {ratio_P[worst]:.4g} nats, where the noise of the arithmetic "
                f"explains {allowance_P[worst]:.2g}",
                remedy=_CAUSES,
            )
    constant = objective.step_zero()
    if constant is None:
        return
    allowance = _LOSS * max(1.0, abs(constant), objective.beta) + _noise_of_loss(objective, ratios, noise)
    if abs(loss - constant) > allowance:
        raise NumericsError(
            f"step zero: the loss of {objective.name} should be {constant:.6g} and is {loss:.6g}", remedy=_CAUSES
        )


def _noise_of_loss(objective: Objective, ratios: LogRatios, noise: Noise) -> float:
    """What noise may do to the mean loss if every response's has the worst sign: Σ |∂(mean loss)/∂r| · noise."""
    chosen_P, rejected_P = (x.detach().clone().requires_grad_() for x in (ratios.policy_chosen, ratios.policy_rejected))
    with torch.enable_grad():
        loss = objective.loss(replace(ratios, policy_chosen=chosen_P, policy_rejected=rejected_P)).mean()
        if not loss.requires_grad:
            return 0.0
        slopes = torch.autograd.grad(loss, (chosen_P, rejected_P), allow_unused=True)
    lengths = (ratios.chosen_lengths, ratios.rejected_lengths)
    sides = zip(slopes, lengths, strict=True)
    roots = [float((slope_P.abs() * n_P.sqrt()).sum()) for slope_P, n_P in sides if slope_P is not None]
    return SURE * noise.of_log_ratio(1) * sum(roots)
