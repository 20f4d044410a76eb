"""The gradient of one optimizer batch in two phases: numbers first, then one backward pass with known weights.

    logps_R → log-ratios → loss_P → coefficients g_R = d(Σ loss_P / normaliser) / d(logps_R) → ∇ = Σ_R g_R · ∇logps_R

The coefficients are autograd on a vector of R numbers. The normaliser is fixed before anything runs (pairs in the
optimizer batch), so neither packing, nor the number of processes, nor what is skipped changes the gradient.

A response takes one of three ways, and each active one gets its gradient whichever it takes:
- live: forward with a graph; its coefficient is solved in the head, then backward;
- screened: forward without a graph, behind its prompt's keys and values where the pair's other response is live. Found
  active after all, it is promoted: forward once more, with a graph, and backward;
- held: not computed; its last known sum stands in (shrinking: the one way that is not exact).

Batch-coupled objectives need all log-probabilities before any coefficient: a forward pass without gradient over the
whole batch, then forward and backward over the responses whose coefficient is not exactly zero, packed anew.

Dims: P pairs of the batch, R = 2P responses (chosen 2p, rejected 2p + 1), N response tokens of a pack.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trimtab.engine import head
from trimtab.engine.finite import listed
from trimtab.engine.packing import Group, Pack, Span, lay_out, pack
from trimtab.engine.scoring import KeptPack, Scorer, States, sum_by_response
from trimtab.errors import ConfigError, NumericsError
from trimtab.objectives import LogRatios, Objective
from trimtab.records import TokenPair

Weights = Mapping[int, Sequence[float]]

_OBJECTIVE = "Lower train.learning_rate, or use engine.dtype = float32."
_REFERENCE = "Run `trimtab reference` again; if it stays, the unaligned model gives such numbers: look at these pairs."

ROOM = 1.25  # of a pack's tokens that it may grow to by responses which are promoted behind it


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What one optimizer batch did. Tensors are fp32 on the CPU; the gradient is in the model's parameters.

    loss_P: loss of each pair; logps_R: log p of each response (nats, unweighted); log_ratios: what the objective saw
    (with LD-DPO's weights); coefficients_R: d(mean loss)/d(logps). Bool, [R]: backward_R, the backward pass was run;
    screened_R, looked at without gradient first; promoted_R, found active by that; held_R, nothing was computed and
    the sums are those handed in. Tokens are counted as computed: forward_tokens over all forward passes, padding
    included.
    """

    loss_P: Tensor
    logps_R: Tensor
    coefficients_R: Tensor
    log_ratios: LogRatios
    lengths_R: Tensor
    backward_R: Tensor
    screened_R: Tensor
    promoted_R: Tensor
    held_R: Tensor
    forward_tokens: int

    @property
    def response_tokens(self) -> int:
        return int(self.lengths_R.sum())

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
        return self._share(~self.backward_R)

    @property
    def skipped_forward(self) -> float:
        """Share of response tokens that were not computed at all."""
        return self._share(self.held_R)

    @property
    def promoted(self) -> float:
        """Share of response tokens that were screened, found active, and computed once more."""
        return self._share(self.promoted_R)

    def _share(self, which_R: Tensor) -> float:
        return int(self.lengths_R[which_R].sum()) / self.response_tokens


def accumulate(
    scorer: Scorer,
    pairs: Sequence[TokenPair],
    *,
    objective: Objective,
    reference_logps_R: Tensor | None,
    pack_tokens: int,
    screen_R: Tensor | None = None,
    held_R: Tensor | None = None,
    normaliser: int | None = None,
    on_pack: Callable[[], None] = lambda: None,
) -> BatchResult:
    """Adds the gradient of the batch's mean loss to `.grad` of every trainable parameter.

    `reference_logps_R`: the reference's sums [2P] in nats, weighted with `objective.token_weights` as the policy's are
    (`weighted_sums` does it); None only for objectives that need none. `screen_R`: True [2P] for responses to look at
    without gradient first; None for none. Whatever it says, the gradient is the same to rounding. `held_R`: for
    responses that are not to be computed, their last known (weighted) sums; NaN for all others. `normaliser`: what the
    sum of losses is divided by, if not P: the pairs of all processes together. `on_pack` is called after each pack, for
    signals and progress.
    Parameters that got no gradient have zeros afterwards, never None, so that an optimizer step is the same
    whatever was skipped. Raises NumericsError naming the pairs whose numbers are not finite; the gradient is then of
    no use. Raises ConfigError where two passes are asked for under adapter dropout, or screening of a batch-coupled
    objective.
    """
    assert pairs, "an optimizer batch has at least one pair"
    batch = _Batch(scorer, pairs, objective, reference_logps_R, normaliser or len(pairs), pack_tokens, on_pack)
    batch.refuse_not_finite(batch.reference_R, range(2 * len(pairs)), "the reference's log-probability", _REFERENCE)
    groups = [Group.of_pair(pair, index) for index, pair in enumerate(pairs)]
    scorer.prepare(groups)
    if objective.batch_coupled:
        assert screen_R is held_R is None, "every pair of a batch-coupled objective depends on all others"
        batch.coupled(groups)
    else:
        screened = set() if screen_R is None else set(screen_R.nonzero()[:, 0].tolist())
        held = set() if held_R is None else batch.hold(held_R)
        batch.each(groups, screened=screened - held, held=held)
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


def _restricted(groups: Sequence[Group], keys: Container[int]) -> list[Group]:
    """Prompts with those of their responses that are among `keys`; prompts without one are left out."""
    return [part for group in groups if (part := group.only(keys)) is not None]


class _Batch:
    """One optimizer batch while it is worked on: fills in the R- and P-vectors pack by pack."""

    def __init__(
        self,
        scorer: Scorer,
        pairs: Sequence[TokenPair],
        objective: Objective,
        reference_logps_R: Tensor | None,
        normaliser: int,
        pack_tokens: int,
        on_pack: Callable[[], None],
    ) -> None:
        n = 2 * len(pairs)
        self.scorer, self.pairs, self.objective = scorer, pairs, objective
        self.normaliser, self.pack_tokens, self.on_pack = normaliser, pack_tokens, on_pack
        assert reference_logps_R is not None or not objective.needs_reference, f"{objective.name} needs a reference"
        self.reference_R = torch.zeros(n) if reference_logps_R is None else reference_logps_R.detach().float().cpu()
        assert self.reference_R.shape == (n,), f"reference_logps_R is [{n}], got {tuple(self.reference_R.shape)}"
        self.weights = _weights(pairs, objective)
        self.lengths_R = torch.tensor([len(ids) for p in pairs for ids in (p.chosen_ids, p.rejected_ids)])
        self.logps_R, self.seen_R = torch.full((n,), torch.nan), torch.full((n,), torch.nan)
        self.loss_P, self.coefficients_R = torch.full((n // 2,), torch.nan), torch.zeros(n)
        self.backward_R, self.screened_R, self.promoted_R, self.held_R = torch.zeros(4, n, dtype=torch.bool)
        self.forward_tokens = 0

    # --- which response takes which way ------------------------------------------------------------------------------

    def hold(self, held_R: Tensor) -> set[int]:
        """Takes the sums that are handed in for responses that are not computed; their keys."""
        self.held_R = ~held_R.isnan()
        self.seen_R[self.held_R] = self.logps_R[self.held_R] = held_R[self.held_R].float()
        return set(self.held_R.nonzero()[:, 0].tolist())

    def each(self, groups: Sequence[Group], *, screened: set[int], held: set[int]) -> None:
        """Objectives whose loss of a pair depends on that pair alone."""
        if screened or held:
            self._refuse_dropout("screening looks at responses without gradient first")
        self.screened_R[list(screened)] = True
        live = _restricted(groups, set(range(len(self.lengths_R))) - screened - held)
        beside = {part.pair: part for part in _restricted(groups, screened)}
        for one in self._packs(live):
            self._live(one, [beside.pop(group.pair) for group in one.groups if group.pair in beside])
        for one in self._packs(list(beside.values())):
            self._screen(one)
        self._solve([2 * p + side for p in self._unsolved() for side in (0, 1)])
        active_R = self.coefficients_R != 0
        self.promoted_R = active_R & (self.screened_R | self.held_R)
        self.held_R &= ~active_R  # active by what its partner did: computed after all
        left = (active_R & ~self.backward_R).nonzero()[:, 0].tolist()
        for one in self._packs(_restricted(groups, set(left))):
            self._known(one)

    def coupled(self, groups: Sequence[Group]) -> None:
        """Objectives that need all log-probabilities of the batch before any coefficient."""
        packs = self._packs(groups)
        if len(packs) == 1:
            self._live(packs[0], [], together=True)
            return
        self._refuse_dropout(f"{self.objective.name} needs the whole batch before its gradient")
        for one in packs:
            self._screen(one)
        self._solve(range(len(self.lengths_R)))
        active = set(self.coefficients_R.nonzero()[:, 0].tolist())
        for one in self._packs(_restricted(groups, active)):
            self._known(one)

    def result(self) -> BatchResult:
        return BatchResult(
            loss_P=self.loss_P,
            logps_R=self.logps_R,
            coefficients_R=self.coefficients_R,
            log_ratios=self._log_ratios(self.seen_R, torch.arange(len(self.seen_R))),
            lengths_R=self.lengths_R,
            backward_R=self.backward_R,
            screened_R=self.screened_R,
            promoted_R=self.promoted_R,
            held_R=self.held_R,
            forward_tokens=self.forward_tokens,
        )

    def _packs(self, groups: Sequence[Group]) -> tuple[Pack, ...]:
        return pack(groups, budget_tokens=self.pack_tokens, layout=self.scorer.layout)

    def _unsolved(self) -> list[int]:
        return self.loss_P.isnan().nonzero()[:, 0].tolist()

    # --- one pack ----------------------------------------------------------------------------------------------------

    def _live(self, one: Pack, beside: Sequence[Group], *, together: bool = False) -> None:
        """Forward, screening of the same pairs' other responses, coefficients, backward."""
        scorer = self.scorer
        with scorer.attention():
            states = scorer.states(one, keep=bool(beside) and scorer.shares_prompts)
            self._count(one)
            if states.kept is not None:
                self._screen(lay_out(beside, behind=one), kept=states.kept)
            else:
                for other in self._packs(beside):
                    self._screen(other)
            roots = [self._root(one, states, known=False, together=together)]
            if states.kept is not None and (more := self._promoted_beside(one, beside)):
                behind = lay_out(more, behind=one)
                self._count(behind)
                roots.append(self._root(behind, scorer.states_behind(states.kept, behind), known=True))
            head.backward(roots)
            keys = torch.tensor(one.keys)
            self.backward_R[keys] = bool(self.coefficients_R[keys].any())
        self.on_pack()

    def _promoted_beside(self, one: Pack, beside: Sequence[Group]) -> list[Group]:
        """Those of the screened responses that turned out active, where they can be learnt from behind this pack."""
        more = _restricted(beside, set(self.coefficients_R.nonzero()[:, 0].tolist()))
        room = one.n_tokens + sum(sum(map(len, group.responses)) for group in more) <= ROOM * self.pack_tokens
        return more if room and self.scorer.can_learn_behind else []

    def _screen(self, one: Pack, *, kept: KeptPack | None = None) -> None:
        """Log-probabilities without gradient."""
        with torch.no_grad():
            states = self.scorer.states(one) if kept is None else self.scorer.states_behind(kept, one)
            self._fill(one.spans, self.scorer.head.logps(states.hidden_NH, states.targets_N), 0)
        self._count(one)
        if kept is None:
            self.on_pack()

    def _known(self, one: Pack) -> None:
        """Forward and backward over responses whose coefficients are known."""
        with self.scorer.attention():
            states = self.scorer.states(one)
            self._count(one)
            head.backward([self._root(one, states, known=True)])
        self.on_pack()

    def _root(self, one: Pack, states: States, *, known: bool, together: bool = False) -> head.Root:
        """Where the pack's backward pass begins; its coefficients are solved on the way, if they are not known."""
        units = {spans[0].start: spans for spans in one.units(None if together else self.scorer.head.unit_rows)}

        def solve(rows: slice, logps: Tensor) -> Tensor:
            spans = units[rows.start]
            if not known:
                self._fill(spans, logps, rows.start)
                self._solve(sorted({2 * (span.key // 2) + side for span in spans for side in (0, 1)}))
            return self._row_coefficients(spans).to(logps.device)

        rows = [slice(spans[0].start, spans[-1].stop) for spans in units.values()]
        root = self.scorer.head.gradient(states.hidden_NH, states.targets_N, units=rows, solve=solve)
        if known:
            self.backward_R[torch.tensor(one.keys)] = True
        return root

    # --- numbers -----------------------------------------------------------------------------------------------------

    def _fill(self, spans: Sequence[Span], logps_N: Tensor, start: int) -> None:
        """Takes the sums of these responses. Row `start` of the pack is the first of `logps_N`."""
        keys = torch.tensor([span.key for span in spans])
        moved = [Span(span.key, span.start - start, span.stop - start) for span in spans]
        plain_R = sum_by_response(moved, logps_N)
        self.logps_R[keys] = plain_R.cpu()
        seen_R = plain_R if self.weights is None else sum_by_response(moved, logps_N, self.weights)
        self.seen_R[keys] = seen_R.cpu()
        self.refuse_not_finite(self.logps_R, keys.tolist(), "log-probability")

    def _solve(self, keys: Sequence[int]) -> None:
        """Losses and coefficients of the pairs with these keys (chosen, rejected, chosen, …)."""
        if not keys:
            return
        at = torch.tensor(keys)
        leaf_R = self.seen_R[at].requires_grad_()
        with torch.enable_grad():
            loss_P = self.objective.loss(self._log_ratios(leaf_R, at))
            assert loss_P.shape == (len(at) // 2,), "an objective gives one loss a pair and does not average"
            self.loss_P[at[0::2] // 2] = loss_P.detach()
            if loss_P.requires_grad:
                (self.coefficients_R[at],) = torch.autograd.grad(loss_P.sum() / self.normaliser, leaf_R)
        self.refuse_not_finite(self.loss_P.repeat_interleave(2), keys, "loss")
        self.refuse_not_finite(self.coefficients_R, keys, "gradient of the loss")

    def _row_coefficients(self, spans: Sequence[Span]) -> Tensor:
        """d(loss)/d(logp) of every row of these responses: the response's coefficient, times the token's weight."""
        each = self.coefficients_R[torch.tensor([span.key for span in spans])]
        rows = each.repeat_interleave(torch.tensor([span.stop - span.start for span in spans]))
        if self.weights is not None:
            rows = rows * torch.tensor([w for span in spans for w in self.weights[span.key]])
        return rows

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

    # --- refusals ----------------------------------------------------------------------------------------------------

    def _refuse_dropout(self, why: str) -> None:
        if self.scorer.has_dropout:
            raise ConfigError(
                f"{why}; with adapter dropout its two passes would be of different models",
                remedy="Set adapter.dropout = 0 or engine.screening = off; for a batch-coupled objective, raise "
                "engine.pack_tokens until a batch is one pack.",
            )

    def refuse_not_finite(self, values_R: Tensor, keys: Sequence[int], what: str, remedy: str = _OBJECTIVE) -> None:
        """Raises NumericsError naming the pairs of these keys whose values are not finite."""
        finite = values_R[torch.as_tensor(keys)].isfinite()
        if not finite.all():
            bad = [self.pairs[key // 2].id for key, good in zip(keys, finite.tolist(), strict=True) if not good]
            raise NumericsError(
                f"{what} is not finite for {listed(list(dict.fromkeys(bad)))}",
                remedy=f"The weights were not updated, and the run goes on from its last checkpoint. {remedy}",
            )
