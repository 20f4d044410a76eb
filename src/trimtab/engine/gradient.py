"""The gradient of one optimizer batch in two phases: numbers first, then one backward pass with known weights.

    logps_R → log-ratios → loss_P → coefficients g_R = d(Σ loss_P / normaliser) / d(logps_R) → ∇ = Σ_R g_R · ∇logps_R

The coefficients are autograd on a vector of R numbers. The normaliser is fixed before anything runs (pairs in the
optimizer batch), so neither packing, nor the number of processes, nor what is skipped changes the gradient.

Objectives that look at one pair at a time know a pack's coefficients from that pack alone: one forward and one backward
a pack. Batch-coupled ones, and screening, need all log-probabilities first: a forward pass without gradient over the
batch, then forward and backward over the responses whose coefficient is not exactly zero, packed anew.

Dims: P pairs of the batch, R = 2P responses (chosen 2p, rejected 2p + 1), N response tokens of a pack.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trimtab.engine.packing import Group, Pack, pack
from trimtab.engine.scoring import Scorer, sum_by_response
from trimtab.errors import ConfigError, NumericsError
from trimtab.objectives import LogRatios, Objective
from trimtab.records import TokenPair

Weights = Mapping[int, Sequence[float]]


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What one optimizer batch did. Tensors are fp32 on the CPU; the gradient is in the model's parameters.

    loss_P: loss of each pair; logps_R: log p of each response (nats, unweighted); log_ratios: what the objective saw
    (with LD-DPO's weights); coefficients_R: d(mean loss)/d(logps). Tokens are counted as computed: forward_tokens over
    all forward passes, padding included.
    """

    loss_P: Tensor
    logps_R: Tensor
    coefficients_R: Tensor
    log_ratios: LogRatios
    forward_tokens: int
    response_tokens: int
    skipped_response_tokens: int

    @property
    def loss(self) -> float:
        """Mean over the pairs of this call (nats, or the objective's own unit)."""
        return float(self.loss_P.double().mean())

    @property
    def active_R(self) -> Tensor:
        """True where the coefficient is not exactly zero."""
        return self.coefficients_R != 0

    @property
    def skipped_backward(self) -> float:
        """Share of response tokens whose backward pass was not run."""
        return self.skipped_response_tokens / self.response_tokens


def accumulate(
    scorer: Scorer,
    pairs: Sequence[TokenPair],
    *,
    objective: Objective,
    reference_logps_R: Tensor | None,
    pack_tokens: int,
    screening: bool = False,
    normaliser: int | None = None,
    on_pack: Callable[[], None] = lambda: None,
) -> BatchResult:
    """Adds the gradient of the batch's mean loss to `.grad` of every trainable parameter.

    `reference_logps_R`: the reference's sums [2P] in nats, weighted with `objective.token_weights` as the policy's are
    (`weighted_sums` does it); None only for objectives that need none. `normaliser`: what the sum of losses is divided
    by, if not P: the pairs of all processes together. `on_pack` is called after each pack, for signals and progress.
    Parameters that got no gradient have zeros afterwards, never None, so that an optimizer step is the same
    whatever was skipped. Raises NumericsError naming the pairs whose numbers are not finite, before the backward pass.
    """
    assert pairs, "an optimizer batch has at least one pair"
    if screening and scorer.has_dropout:
        raise ConfigError(
            "screening and adapter dropout exclude each other: the two passes would be of different models",
            remedy="Set adapter.dropout = 0 or engine.screening = off.",
        )
    batch = _Batch(scorer, pairs, objective, reference_logps_R, normaliser or len(pairs), on_pack)
    groups = [Group.of_pair(pair, index) for index, pair in enumerate(pairs)]
    layout = scorer.prepare(groups)
    packs = pack(groups, budget_tokens=pack_tokens, layout=layout)
    if not screening and (not objective.batch_coupled or len(packs) == 1):
        for one in packs:
            batch.forward_backward(one)
    else:
        if scorer.has_dropout:
            raise ConfigError(
                f"{objective.name} needs the whole batch before its gradient, in two passes; adapter dropout would "
                "make them passes of different models",
                remedy="Set adapter.dropout = 0, or raise engine.pack_tokens until a batch is one pack.",
            )
        batch.screen(packs)
        active = _active_groups(groups, batch.coefficients_R)
        for one in pack(active, budget_tokens=pack_tokens, layout=layout):
            batch.backward(one)
    for parameter in scorer.model.parameters():
        if parameter.requires_grad and parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    return batch.result()


def weighted_sums(token_logps: Sequence[Tensor], pairs: Sequence[TokenPair], objective: Objective) -> Tensor:
    """Per-token log-probabilities of 2P responses summed as the objective weighs them: [2P], nats, fp32."""
    sums = []
    weights = _weights(pairs, objective)
    for key, logps in enumerate(token_logps):
        wide = logps.double()
        sums.append((wide if weights is None else wide * torch.tensor(weights[key], dtype=torch.float64)).sum())
    return torch.stack(sums).float()


def _weights(pairs: Sequence[TokenPair], objective: Objective) -> Weights | None:
    """Key → weight of each token; None where all are 1."""
    if objective.ld_alpha is None:
        return None
    both = [objective.token_weights(len(pair.chosen_ids), len(pair.rejected_ids)) for pair in pairs]
    return {2 * p + side: sides[side] for p, sides in enumerate(both) for side in (0, 1)}


def _active_groups(groups: Sequence[Group], coefficients_R: Tensor) -> list[Group]:
    """Prompts with those of their responses whose coefficient is not exactly zero; prompts without one are left out."""
    active = set(coefficients_R.nonzero()[:, 0].tolist())
    kept = []
    for group in groups:
        live = [(r, key) for r, key in zip(group.responses, group.keys, strict=True) if key in active]
        if live:
            kept.append(Group(group.prompt_ids, tuple(r for r, _ in live), tuple(key for _, key in live)))
    return kept


class _Batch:
    """One optimizer batch while it is worked on: fills in the R- and P-vectors pack by pack."""

    def __init__(
        self,
        scorer: Scorer,
        pairs: Sequence[TokenPair],
        objective: Objective,
        reference_logps_R: Tensor | None,
        normaliser: int,
        on_pack: Callable[[], None],
    ) -> None:
        n = 2 * len(pairs)
        self.scorer, self.pairs, self.objective = scorer, pairs, objective
        self.normaliser, self.on_pack = normaliser, on_pack
        assert reference_logps_R is not None or not objective.needs_reference, f"{objective.name} needs a reference"
        self.reference_R = torch.zeros(n) if reference_logps_R is None else reference_logps_R.detach().float().cpu()
        assert self.reference_R.shape == (n,), f"reference_logps_R is [{n}], got {tuple(self.reference_R.shape)}"
        self.weights = _weights(pairs, objective)
        self.lengths_R = torch.tensor([len(ids) for p in pairs for ids in (p.chosen_ids, p.rejected_ids)])
        self.logps_R, self.seen_R = torch.full((n,), torch.nan), torch.full((n,), torch.nan)
        self.loss_P, self.coefficients_R = torch.full((n // 2,), torch.nan), torch.zeros(n)
        self.backward_R = torch.zeros(n, dtype=torch.bool)
        self.forward_tokens = 0

    def forward_backward(self, one: Pack) -> None:
        """A pack whose pairs' losses depend on nothing outside it."""
        with self.scorer.attention():
            seen_R = self._forward(one)
            keys = torch.tensor(one.keys)
            self._solve(keys)
            self._backward(seen_R, keys)
        self.on_pack()

    def screen(self, packs: Sequence[Pack]) -> None:
        """All log-probabilities without gradient, then all coefficients at once."""
        for one in packs:
            with torch.no_grad():
                self._forward(one)
            self.on_pack()
        self._solve(torch.arange(len(self.logps_R)))

    def backward(self, one: Pack) -> None:
        """Forward and backward over responses whose coefficients are known."""
        with self.scorer.attention():
            logps_N = self.scorer.logps(one)
            self._count(one)
            self._backward(sum_by_response(one, logps_N, self.weights), torch.tensor(one.keys))
        self.on_pack()

    def result(self) -> BatchResult:
        skipped = self.lengths_R[~self.backward_R].sum()
        return BatchResult(
            loss_P=self.loss_P,
            logps_R=self.logps_R,
            coefficients_R=self.coefficients_R,
            log_ratios=self._log_ratios(self.seen_R, torch.arange(len(self.seen_R))),
            forward_tokens=self.forward_tokens,
            response_tokens=int(self.lengths_R.sum()),
            skipped_response_tokens=int(skipped),
        )

    def _forward(self, one: Pack) -> Tensor:
        """Fills in the log-probabilities of the pack; returns the (weighted) sums with their graph, in key order."""
        logps_N = self.scorer.logps(one)
        self._count(one)
        seen_R = sum_by_response(one, logps_N, self.weights)
        keys = torch.tensor(one.keys)
        self.seen_R[keys] = seen_R.detach().cpu()
        plain_R = seen_R if self.weights is None else sum_by_response(one, logps_N.detach())
        self.logps_R[keys] = plain_R.detach().cpu()
        self._refuse_not_finite(self.logps_R, one.keys, "log-probability")
        return seen_R

    def _solve(self, keys: Tensor) -> None:
        """Losses and coefficients of the pairs with these keys (chosen, rejected, chosen, …)."""
        leaf_R = self.seen_R[keys].requires_grad_()
        loss_P = self.objective.loss(self._log_ratios(leaf_R, keys))
        assert loss_P.shape == (len(keys) // 2,), "an objective gives one loss a pair and does not average"
        self.loss_P[keys[0::2] // 2] = loss_P.detach()
        if loss_P.requires_grad:
            (self.coefficients_R[keys],) = torch.autograd.grad(loss_P.sum() / self.normaliser, leaf_R)
        self._refuse_not_finite(self.loss_P.repeat_interleave(2), keys.tolist(), "loss")
        self._refuse_not_finite(self.coefficients_R, keys.tolist(), "gradient of the loss")

    def _backward(self, seen_R: Tensor, keys: Tensor) -> None:
        coefficients_R = self.coefficients_R[keys]
        if not coefficients_R.any():
            return
        self.backward_R[keys] = True
        torch.autograd.backward(seen_R, coefficients_R.to(seen_R.device))

    def _log_ratios(self, policy_R: Tensor, keys: Tensor) -> LogRatios:
        chosen, rejected = keys[0::2], keys[1::2]
        return LogRatios(
            policy_chosen=policy_R[0::2],
            policy_rejected=policy_R[1::2],
            reference_chosen=self.reference_R[chosen],
            reference_rejected=self.reference_R[rejected],
            chosen_lengths=self.lengths_R[chosen],
            rejected_lengths=self.lengths_R[rejected],
        )

    def _count(self, one: Pack) -> None:
        if self.scorer.layout == "packed":
            self.forward_tokens += one.n_tokens
        else:
            sequences = one.sequences
            self.forward_tokens += len(sequences) * max(len(ids) for ids, _ in sequences)

    def _refuse_not_finite(self, values_R: Tensor, keys: Sequence[int], what: str) -> None:
        finite = values_R[torch.as_tensor(keys)].isfinite()
        if not finite.all():
            bad = [key for key, good in zip(keys, finite.tolist(), strict=True) if not good]
            names = ", ".join(dict.fromkeys(self.pairs[key // 2].id for key in bad[:6]))
            more = f" and {len(bad) - 6} more responses" if len(bad) > 6 else ""
            raise NumericsError(
                f"{what} is not finite for {names}{more}",
                remedy="The weights were not updated. Lower train.learning_rate, or use engine.dtype = float32.",
            )
