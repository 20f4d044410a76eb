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

Dims: P pairs of the batch, R = 2P responses (chosen 2p, rejected 2p + 1), N response tokens of a pack. Of an unpaired
row one of the two is absent: it has length 0, log-probability 0, coefficient 0, and no place in a pack.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from trimtab.engine import head
from trimtab.engine.batch_result import BatchResult, any_of_equal, first_of_equal
from trimtab.engine.finite import name_list
from trimtab.engine.packing import Group, Pack, Span, Unit, lay_out
from trimtab.engine.response_sums import own_tokens, rows_and_owners, score_gaps, sum_by_response, token_weights
from trimtab.engine.scoring import Scorer
from trimtab.engine.share import Share
from trimtab.engine.states import PromptStates, States
from trimtab.errors import ConfigError, NumericsError
from trimtab.objectives import LogRatios, Objective
from trimtab.records import TokenPair

_OBJECTIVE = "Lower train.learning_rate, or use engine.dtype = float32."
_REFERENCE = "Run `trimtab reference` again; if it stays, the unaligned model gives such numbers: look at these pairs."

ROOM = 1.25  # of a pack's tokens that it may grow to by responses which are promoted behind it


def accumulate(
    scorer: Scorer,
    pairs: Sequence[TokenPair],
    *,
    objective: Objective,
    reference_logps_R: Tensor | None,
    pack_tokens: int,
    screen_R: Tensor | None = None,
    stale_sums_R: Tensor | None = None,
    share: Share | None = None,
    on_pack: Callable[[], None] = lambda: None,
) -> BatchResult:
    """Adds the gradient of the batch's mean loss to `.grad` of every trainable parameter.

    `reference_logps_R`: the reference's sums [2P] in nats, weighted with `objective.token_weights` as the policy's are
    (`weighted_sums` does it); None only for objectives that need none. `screen_R`: True [2P] for responses to look at
    without gradient first; None for none. Whatever it says, the gradient is the same to rounding. `stale_sums_R`: for
    responses that are not to be computed, their last known (weighted) sums; NaN for all others. `share`: the pairs are
    one process's part of this batch; the sum of losses is then divided by the batch's pairs, and a batch-coupled
    objective reads the log-ratios of all. `on_pack` is called after each pack, for signals and progress.
    Parameters that got no gradient have zeros afterwards, never None, so that an optimizer step is the same
    whatever was skipped. Raises NumericsError naming the pairs whose numbers are not finite; the gradient is then of
    no use, and ConfigError where two passes are asked for under adapter dropout. `screen_R` and `stale_sums_R` must be
    None for a batch-coupled objective.
    """
    assert pairs or share is not None, "an optimizer batch has at least one pair"
    batch = _Batch(scorer, pairs, objective, reference_logps_R, share, pack_tokens, on_pack)
    batch.refuse_not_finite(batch.reference_R, range(2 * len(pairs)), "the reference's log-probability", _REFERENCE)
    groups = [Group.of_pair(pair, index) for index, pair in enumerate(pairs)]
    if groups:
        scorer.prepare(groups)
    if objective.batch_coupled:
        assert screen_R is stale_sums_R is None, "every pair of a batch-coupled objective depends on all others"
        batch.accumulate_together(groups)
    else:
        batch.accumulate_pairs(groups, screen_R=screen_R, stale_sums_R=stale_sums_R)
    for parameter in scorer.model.parameters():
        if parameter.requires_grad and parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    return batch.result()


def _restrict(groups: Sequence[Group], keys: Container[int]) -> list[Group]:
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
        share: Share | None,
        pack_tokens: int,
        on_pack: Callable[[], None],
    ) -> None:
        n = 2 * len(pairs)
        self.scorer, self.pairs, self.objective = scorer, pairs, objective
        self.share, self.pack_tokens, self.on_pack = share, pack_tokens, on_pack
        self.normaliser = len(pairs) if share is None else sum(map(len, share.positions))
        assert reference_logps_R is not None or not objective.needs_reference, f"{objective.name} needs a reference"
        self.reference_R = torch.zeros(n) if reference_logps_R is None else reference_logps_R.detach().float().cpu()
        assert self.reference_R.shape == (n,), f"reference_logps_R is [{n}], got {tuple(self.reference_R.shape)}"
        self.weights, self.own_tokens = token_weights(pairs, objective), own_tokens(pairs)
        self.first_R = first_of_equal(pairs)
        lengths = [length for pair in pairs for length in pair.own_lengths]
        self.lengths_R = torch.tensor(lengths, dtype=torch.long)
        self.score_gaps_P = score_gaps(pairs)
        unknown_R = torch.where(self.lengths_R > 0, torch.nan, 0.0)  # a side that is absent stays at 0
        self.logps_R, self.weighted_R = unknown_R, unknown_R.clone()
        self.log_weights_R = unknown_R.clone() if objective.needs_log_weights else None
        self.loss_P, self.coefficients_R = torch.full((n // 2,), torch.nan), torch.zeros(n)
        self.backward_R, self.screened_R, self.promoted_R, self.stale_R = torch.zeros(4, n, dtype=torch.bool)
        self.forward_tokens = 0

    # --- which response takes which way ------------------------------------------------------------------------------

    def accumulate_pairs(
        self, groups: Sequence[Group], *, screen_R: Tensor | None, stale_sums_R: Tensor | None
    ) -> None:
        """Objectives whose loss of a pair depends on that pair alone."""
        live_keys, screen_keys = self._choose_ways(screen_R, stale_sums_R)
        packs = self._packs(_restrict(groups, live_keys))
        beside, alone = self._companions(packs, _restrict(groups, screen_keys))
        for pack, companions in zip(packs, beside, strict=True):
            self._live(pack, companions)
        for pack in self._packs(alone):
            self._screen(pack)
        self._solve([2 * p + side for p in self._pairs_to_solve() for side in (0, 1)])
        active_R = self.coefficients_R != 0
        self.promoted_R = active_R & (self.screened_R | self.stale_R)
        self.stale_R &= ~active_R  # active by what its partner did: computed after all
        late_keys = (active_R & ~self.backward_R).nonzero()[:, 0].tolist()
        for pack in self._packs(_restrict(groups, set(late_keys))):
            self._backpropagate(pack)

    def _choose_ways(self, screen_R: Tensor | None, stale_sums_R: Tensor | None) -> tuple[set[int], set[int]]:
        """Keys of live and of screened responses. One that several pairs have is computed once: live if it is so in
        any of them, screened if it is not to be held in all of them. Takes the sums of those that are held."""
        n = len(self.lengths_R)
        screen_R = torch.zeros(n, dtype=torch.bool) if screen_R is None else screen_R
        stale_R = torch.zeros(n, dtype=torch.bool) if stale_sums_R is None else ~stale_sums_R.isnan()
        if screen_R.any() or stale_R.any():
            self._refuse_dropout("screening looks at responses without gradient first")
        live_R = any_of_equal(~screen_R & ~stale_R, self.first_R)
        self.screened_R = any_of_equal(screen_R & ~stale_R, self.first_R) & ~live_R
        self.stale_R = ~live_R & ~self.screened_R
        if stale_sums_R is not None:
            self.weighted_R[self.stale_R] = self.logps_R[self.stale_R] = stale_sums_R[self.stale_R].float()
        return set(live_R.nonzero()[:, 0].tolist()), set(self.screened_R.nonzero()[:, 0].tolist())

    def _companions(
        self, packs: Sequence[Pack], screened_groups: Sequence[Group]
    ) -> tuple[list[list[Group]], list[Group]]:
        """What is screened beside each of these packs, and what finds its prompt in none of them."""
        own = {group.pair: number for number, pack in enumerate(packs) for group in pack.groups}
        of_prompt = {group.prompt_ids: number for number, pack in enumerate(packs) for group in pack.groups}
        beside: list[list[Group]] = [[] for _ in packs]
        alone: list[Group] = []
        for group in screened_groups:
            place = own.get(group.pair, of_prompt.get(group.prompt_ids) if self.scorer.shares_prompts else None)
            (alone if place is None else beside[place]).append(group)
        return beside, alone

    def accumulate_together(self, groups: Sequence[Group]) -> None:
        """Objectives that need all log-probabilities of the batch before any coefficient."""
        packs = self._packs(groups)
        if len(packs) == 1:  # with other processes too: each asks for the others' numbers once, whatever way it goes
            self._live(packs[0], [], together=True)
            return
        if packs:
            self._refuse_dropout(f"{self.objective.name} needs the whole batch before its gradient")
        for pack in packs:
            self._screen(pack)
        self._solve(range(len(self.lengths_R)))
        active = set(self.coefficients_R.nonzero()[:, 0].tolist())
        for pack in self._packs(_restrict(groups, active)):
            self._backpropagate(pack)

    def result(self) -> BatchResult:
        return BatchResult(
            loss_P=self.loss_P,
            logps_R=self.logps_R,
            coefficients_R=self.coefficients_R,
            log_ratios=self._log_ratios(self.weighted_R, torch.arange(len(self.weighted_R))),
            lengths_R=self.lengths_R,
            first_R=self.first_R,
            backward_R=self.backward_R,
            screened_R=self.screened_R,
            promoted_R=self.promoted_R,
            stale_R=self.stale_R,
            forward_tokens=self.forward_tokens,
        )

    def _packs(self, groups: Sequence[Group]) -> tuple[Pack, ...]:
        return self.scorer.packs(groups, pack_tokens=self.pack_tokens) if groups else ()

    def _pairs_to_solve(self) -> list[int]:
        return self.loss_P.isnan().nonzero()[:, 0].tolist()

    # --- one pack ----------------------------------------------------------------------------------------------------

    def _live(self, pack: Pack, companions: Sequence[Group], *, together: bool = False) -> None:
        """Forward, screening of the same pairs' other responses, coefficients, backward."""
        scorer = self.scorer
        with scorer.attention():
            states = scorer.states(pack, keep=bool(companions) and scorer.shares_prompts)
            self._count(pack)
            for companion_pack in self._packs(companions):
                self._screen(companion_pack, behind=pack, prompt_states=states.prompt_states)
            own = {group.pair for group in pack.groups}
            if companions:
                beside = [group.pair for group in companions if group.pair not in own]
                self._solve([2 * pair + side for pair in beside for side in (0, 1)])
            roots = [self._root(pack, states, is_solved=False, together=together)]
            if states.prompt_states is not None and (promoted_groups := self._promotions(pack, companions)):
                promoted_pack = lay_out(promoted_groups, behind=pack)
                self._count(promoted_pack)
                roots.append(
                    self._root(promoted_pack, scorer.states_behind(states.prompt_states, promoted_pack), is_solved=True)
                )
            head.backward(roots)
            keys = torch.tensor(pack.keys)
            self.backward_R[keys] = bool(self.coefficients_R[keys].any())
        self.on_pack()

    def _promotions(self, pack: Pack, companions: Sequence[Group]) -> list[Group]:
        """Those of the screened responses that turned out active, where they can be learnt from behind this pack."""
        promoted_groups = _restrict(companions, set(self.coefficients_R.nonzero()[:, 0].tolist()))
        room = (
            pack.n_tokens + sum(sum(map(len, group.responses)) for group in promoted_groups) <= ROOM * self.pack_tokens
        )
        return promoted_groups if room and self.scorer.can_learn_behind else []

    def _screen(self, pack: Pack, *, behind: Pack | None = None, prompt_states: PromptStates | None = None) -> None:
        """Log-probabilities without gradient; where there are `prompt_states`, of what pack `behind` does not have."""
        if prompt_states is not None:
            pack = lay_out(pack.groups, behind=behind)
        with torch.no_grad():
            states = (
                self.scorer.states(pack) if prompt_states is None else self.scorer.states_behind(prompt_states, pack)
            )
            collisions_N = self._collisions(states)
            logps_N = self.scorer.head.logps(states.hidden_NH, states.targets_N, collisions_N)
            self._fill(pack.spans, logps_N, 0, collisions_N)
        self._count(pack)
        if prompt_states is None:
            self.on_pack()

    def _backpropagate(self, pack: Pack) -> None:
        """Forward and backward over responses whose coefficients are known."""
        with self.scorer.attention():
            states = self.scorer.states(pack)
            self._count(pack)
            head.backward([self._root(pack, states, is_solved=True)])
        self.on_pack()

    def _root(self, pack: Pack, states: States, *, is_solved: bool, together: bool = False) -> head.Root:
        """Where the pack's backward pass begins; its coefficients are solved on the way, if they are not known."""
        units = {unit.start: unit for unit in pack.units(None if together else self.scorer.head.unit_rows)}
        collisions_N = None if is_solved else self._collisions(states)

        def solve(rows: slice, logps: Tensor) -> Tensor:
            unit = units[rows.start]
            if not is_solved:
                self._fill(unit.spans, logps, unit.start, None if collisions_N is None else collisions_N[rows])
                self._solve(sorted({2 * (span.key // 2) + side for span in unit.spans for side in (0, 1)}))
            return self._row_coefficients(unit).to(logps.device)

        rows = [slice(unit.start, unit.stop) for unit in units.values()]
        root = self.scorer.head.gradient(
            states.hidden_NH, states.targets_N, units=rows, solve=solve, collisions_N=collisions_N
        )
        if is_solved:
            self.backward_R[torch.tensor(pack.keys)] = True
        return root

    # --- numbers -----------------------------------------------------------------------------------------------------

    def _collisions(self, states: States) -> Tensor | None:
        """Where the head leaves ln Σ_v p_v² of each row; None where the objective does not read it."""
        needs_log_weights = self.objective.needs_log_weights
        return torch.empty_like(states.targets_N, dtype=torch.float32) if needs_log_weights else None

    def _fill(self, spans: Sequence[Span], logps_N: Tensor, start: int, collisions_N: Tensor | None) -> None:
        """Takes the sums of these responses. Row `start` of the pack is the first of `logps_N`."""
        keys = torch.tensor([span.key for span in spans])
        plain_R = sum_by_response(spans, logps_N, self.own_tokens, start=start)
        self.logps_R[keys] = plain_R.cpu()
        is_plain = self.objective.ld_alpha is None
        weighted_R = plain_R if is_plain else sum_by_response(spans, logps_N, self.weights, start=start)
        self.weighted_R[keys] = weighted_R.cpu()
        if self.log_weights_R is not None and collisions_N is not None:
            sums_R = sum_by_response(spans, logps_N - collisions_N, self.own_tokens, start=start)
            self.log_weights_R[keys] = sums_R.cpu() / self.lengths_R[keys].clamp_min(1)
        self.refuse_not_finite(self.logps_R, keys.tolist(), "log-probability")

    def _solve(self, keys: Sequence[int]) -> None:
        """Losses and coefficients of the pairs with these keys (chosen, rejected, chosen, …): all, if batch-coupled."""
        together = self.objective.batch_coupled and self.share is not None
        if not keys and not together:
            return
        at = torch.tensor(keys, dtype=torch.long)
        ratios = self._log_ratios(self.weighted_R[at], at)
        loss_P, slopes_R = self._slopes(self.share.whole(ratios) if together and self.share else ratios)
        if together and self.share:
            own = list(self.share.own)
            loss_P, slopes_R = loss_P[own], slopes_R.view(-1, 2)[own].flatten()
        self.loss_P[at[0::2] // 2], self.coefficients_R[at] = loss_P, slopes_R
        self.refuse_not_finite(self.loss_P.repeat_interleave(2), keys, "loss")
        self.refuse_not_finite(self.coefficients_R, keys, "gradient of the loss")

    def _slopes(self, ratios: LogRatios) -> tuple[Tensor, Tensor]:
        """Losses [P] and d(mean loss)/d(logps) [2P] of these pairs."""
        leaf_R = torch.stack([ratios.policy_chosen, ratios.policy_rejected], 1).flatten().requires_grad_()
        with torch.enable_grad():
            loss_P = self.objective.loss(replace(ratios, policy_chosen=leaf_R[0::2], policy_rejected=leaf_R[1::2]))
            assert loss_P.shape == ratios.chosen.shape, "an objective gives one loss a pair and does not average"
            if not loss_P.requires_grad:
                return loss_P.detach(), torch.zeros_like(leaf_R.detach())
            (slopes_R,) = torch.autograd.grad(loss_P.sum() / self.normaliser, leaf_R)
        return loss_P.detach(), slopes_R

    def _row_coefficients(self, unit: Unit) -> Tensor:
        """d(loss)/d(logp) of every row of a unit: of each response that it belongs to, the response's coefficient times
        the weight that its pair gives the token, added up."""
        rows, owners = rows_and_owners(unit.spans, device="cpu")
        coefficients = self.coefficients_R[torch.tensor([span.key for span in unit.spans])][owners]
        if self.weights is not None:
            coefficients = coefficients * torch.tensor([w for span in unit.spans for w in self.weights[span.key]])
        return torch.zeros(unit.stop - unit.start).index_add_(0, rows - unit.start, coefficients)

    def _log_ratios(self, policy_R: Tensor, keys: Tensor) -> LogRatios:
        chosen, rejected = keys[0::2], keys[1::2]
        return LogRatios(
            policy_chosen=policy_R[0::2],
            policy_rejected=policy_R[1::2],
            reference_chosen=self.reference_R[chosen],
            reference_rejected=self.reference_R[rejected],
            chosen_lengths=self.lengths_R[chosen],
            rejected_lengths=self.lengths_R[rejected],
            score_gaps=None if self.score_gaps_P is None else self.score_gaps_P[chosen // 2],
            chosen_log_weights=None if self.log_weights_R is None else self.log_weights_R[chosen],
            rejected_log_weights=None if self.log_weights_R is None else self.log_weights_R[rejected],
        )

    def _count(self, pack: Pack) -> None:
        if self.scorer.layout == "packed":
            self.forward_tokens += pack.n_tokens
        else:
            lengths = [len(example.ids) for example in pack.examples]
            self.forward_tokens += len(lengths) * max(lengths)

    # --- refusals ----------------------------------------------------------------------------------------------------

    def _refuse_dropout(self, reason: str) -> None:
        if self.scorer.has_dropout:
            raise ConfigError(
                f"{reason}; with adapter dropout its two passes would be of different models",
                remedy="Set adapter.dropout = 0 or engine.screening = off; for a batch-coupled objective, raise "
                "engine.pack_tokens until a batch is one pack.",
            )

    def refuse_not_finite(self, values_R: Tensor, keys: Sequence[int], subject: str, remedy: str = _OBJECTIVE) -> None:
        """Raises NumericsError naming the pairs of these keys whose values are not finite."""
        finite = values_R[torch.as_tensor(keys, dtype=torch.long)].isfinite()
        if not finite.all():
            bad = [self.pairs[key // 2].id for key, good in zip(keys, finite.tolist(), strict=True) if not good]
            raise NumericsError(
                f"{subject} is not finite for {name_list(list(dict.fromkeys(bad)))}",
                remedy=f"The weights were not updated, and the run goes on from its last checkpoint. {remedy}",
            )
