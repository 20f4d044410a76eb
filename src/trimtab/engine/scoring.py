"""Per-token log-probabilities of the responses in a pack: packed where that is proven, padded where it is not.

On first use the packed numbers of a few prompt groups, laid in one pack so that anything that mixes neighbours shows,
are compared with the model's own forward on one sequence at a time. Disagreement, or an exception, falls back to the
padded path with one line that says why. The same check tells whether our chunked head is this family's head, and how
far log-probabilities are from those in fp32: the noise of the precision that is computed in.

Dropout is off: the model is kept in eval mode, also for gradients. Two exceptions, each set on its own modules only:
adapter dropout that the user asked for acts in passes with gradient, and layers under activation checkpointing are
marked as training, since transformers ties the one to the other.

Dims: N response tokens of a pack, R responses of a pack, T packed tokens, S distinct sequences (≤ R), L the longest.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

import torch
from torch import Tensor, nn

from trimtab.engine import recompute, self_check_packs
from trimtab.engine.attention import (
    PACKED,
    KeyValues,
    Segments,
    Way,
    first_line,
    packed_attention_in,
    ways_for,
    why_no_gradient,
)
from trimtab.engine.fused import Fusion
from trimtab.engine.half import half_linears
from trimtab.engine.head import Head, OwnLogits
from trimtab.engine.matmul import faster_linears
from trimtab.engine.mixed import exact_weights, mixed_linears
from trimtab.engine.models import adapter_dropouts, causal_lm_of
from trimtab.engine.noise import ROUNDING, Noise, Tolerance, in_fp32
from trimtab.engine.packing import Group, Layout, Pack, lay_out, pack_groups
from trimtab.engine.response_sums import rows_and_owners
from trimtab.engine.score_head import ScoreHead
from trimtab.engine.screening import Prompts
from trimtab.engine.states import PromptStates, States
from trimtab.errors import ModelError

logger = logging.getLogger("trimtab")


class Scorer:
    """Scores packs with one model. `reason` says in one line why the packed path is not used; empty while it is.

    `mixed`: products of an fp32 model in bfloat16 (`engine.mixed`); `half`: in float16 (`engine.half`).
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        packed: Literal["auto", "on", "off"] = "auto",
        checkpointing: recompute.Mode = "off",
        mixed: bool = False,
        half: bool = False,
    ) -> None:
        self.model, self.mixed, self.half = model, mixed, half
        self.reason = "turned off by configuration" if packed == "off" else ""
        self.head: Head | OwnLogits | ScoreHead = OwnLogits()
        self.shares_prompts = False
        self._ways: tuple[Way, ...] = ()
        self._fusion = Fusion()
        self._base = causal_lm_of(model)
        self._exact = exact_weights(self._base)
        self._wanted = packed
        self._noise: Noise | None = None
        self._dropouts = adapter_dropouts(model)
        self._checkpointed = recompute.switch(self._base, checkpointing) if checkpointing != "off" else ()
        self._lean = checkpointing == "on"
        self.model.eval()

    @property
    def device(self) -> torch.device:
        device: torch.device = next(self._base.parameters()).device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights that compute; adapters may be kept in a wider one."""
        dtype: torch.dtype = self._base.get_input_embeddings().weight.dtype
        return dtype

    @property
    def noise(self) -> Noise:
        """Of a response's log-probability in this precision. Known after `prepare`."""
        assert self._noise is not None, "prepare() comes first"
        return self._noise

    @property
    def has_dropout(self) -> bool:
        """Adapter dropout acts in passes with gradient: two passes over one pack then differ."""
        return bool(self._dropouts)

    @property
    def layout(self) -> Layout:
        """What packs for this scorer should be built as. Known after `prepare`."""
        return "padded" if self.reason else "packed"

    @property
    def attention_name(self) -> str:
        """How attention is computed, for people. Known after `prepare`."""
        if self.reason:
            return f"the model's own ({self._base.config._attn_implementation})"
        return self._ways[0].name

    def prepare(self, groups: Sequence[Group]) -> Layout:
        """Runs the self-check on the first few groups, once; later calls return the layout at no cost.

        Raises ModelError where even the padded path does not reproduce the model, or where `packed="on"` cannot be had.
        """
        if self._noise is None:
            self._noise = self._check(self_check_packs.sample(groups))
        return self.layout

    def read_scores(self, module: nn.Linear) -> None:
        """From here on `module` at a response's last token gives its one number, in place of its log-probabilities.
        After `prepare`, which proves the packs on the language model's own head: a fresh one says nothing."""
        assert self._noise is not None, "packs are proved before another head reads them"
        self.head = ScoreHead(module)

    def packs(self, groups: Sequence[Group], *, pack_tokens: int) -> tuple[Pack, ...]:
        """The groups in packs of at most `pack_tokens`, laid out as this scorer computes and reads them."""
        packs = pack_groups(groups, budget_tokens=pack_tokens, layout=self.prepare(groups))
        return tuple(pack.at_ends() for pack in packs) if isinstance(self.head, ScoreHead) else packs

    @contextmanager
    def attention(self) -> Iterator[None]:
        """The model's attention switched over for packs, and back. Hold it around forward and backward together when
        activations are checkpointed: the backward pass runs the layers again."""
        is_packed = self.layout == "packed"
        with self._linears(), packed_attention_in(self._base, self._fusion) if is_packed else nullcontext():
            yield

    def _linears(self) -> AbstractContextManager[None]:
        if self.half:
            return half_linears(self._exact)
        return mixed_linears(self._exact) if self.mixed else faster_linears()

    def states(self, pack: Pack, *, keep: bool = False) -> States:
        """The pack's forward pass up to the head; differentiable when gradients are enabled.

        `keep` holds on to the prompts for `states_behind`; only where `shares_prompts`.
        """
        self.prepare(pack.groups)
        self._set_modes()
        if self.layout == "padded":
            with self.attention():
                return self._padded(pack)
        switched = self._base.config._attn_implementation == PACKED
        assert switched or not (self._checkpointed and torch.is_grad_enabled()), (
            "checkpointed layers run again in the backward pass: hold scorer.attention() around both"
        )
        with self.attention():
            return self._packed(pack, keep=keep)

    @property
    def can_learn_behind(self) -> bool:
        """Whether gradients may flow through `states_behind` into the pack before it; not where layers run twice."""
        return self.shares_prompts and not self._checkpointed

    @property
    def prompts(self) -> Prompts:
        """Whether a response that is screened finds its prompt computed, also if it turns out active."""
        if not self.shares_prompts:
            return "never shared"
        return "shared" if self.can_learn_behind else "shared until promoted"

    def states_behind(self, prompt_states: PromptStates, tail: Pack) -> States:
        """Responses behind the prompts of a pack that was computed before: their own rows alone.

        `tail` is laid out with `lay_out(groups, behind=…)` that pack.
        """
        self._set_modes()
        segments = Segments(tail.branches, device=self.device, behind=prompt_states.key_values, ways=self._ways)
        with self.attention():
            return self._rows(tail, segments, before_TH=prompt_states.hidden_TH)

    def logps(self, pack: Pack) -> Tensor:
        """log p of every response token of the pack [N], nats, fp32; differentiable when gradients are enabled."""
        states = self.states(pack)
        return self.head.logps(states.hidden_NH, states.targets_N)

    def by_key(self, groups: Sequence[Group], *, pack_tokens: int) -> Iterator[tuple[int, Tensor]]:
        """(key, per-token log p on the CPU, or its one score) of every response, pack by pack, without gradient; equal
        responses once."""
        keys: dict[tuple[tuple[int, ...], tuple[int, ...]], list[int]] = {}
        for group in groups:
            for key, response in zip(group.keys, group.responses, strict=True):
                keys.setdefault((group.prompt_ids, response), []).append(key)
        owners = list(keys.values())
        alone = [Group(prompt, (response,), (number,)) for number, (prompt, response) in enumerate(keys)]
        self.prepare(groups)
        for pack in self.packs(alone, pack_tokens=pack_tokens):
            with torch.no_grad():
                logps_N = self.logps(pack).cpu()
            for span in pack.spans:
                for key in owners[span.key]:
                    yield key, logps_N[list(span.rows)]

    # --- the two paths -------------------------------------------------------------------------------------------

    def _packed(self, pack: Pack, *, keep: bool = False) -> States:
        """One row of T tokens; prompts once; the head on N rows."""
        segments = Segments(pack.branches, device=self.device, ways=self._ways)
        return self._rows(pack, segments, keep=KeyValues(pack.branches) if keep else None)

    def _rows(
        self, pack: Pack, segments: Segments, *, keep: KeyValues | None = None, before_TH: Tensor | None = None
    ) -> States:
        device = self.device
        take_N, targets_N = torch.tensor(pack.take_N, device=device), torch.tensor(pack.targets_N, device=device)
        if not pack.ids_T:  # all of it stands in the pack before
            assert before_TH is not None
            return States(before_TH[take_N], targets_N)
        inputs = {
            "input_ids": torch.tensor([pack.ids_T], device=device),
            "position_ids": torch.tensor([pack.positions_T], device=device),
            "segments": segments,
            "use_cache": False,
        }
        if isinstance(self.head, OwnLogits):
            return States(self._base(**inputs, logits_to_keep=take_N).logits[0], targets_N)
        segments.keeping = keep
        hidden_TH = self._base.base_model(**inputs).last_hidden_state[0]
        segments.keeping = None  # layers under checkpointing run once more in the backward pass
        prompt_states = None if keep is None else PromptStates(keep, hidden_TH)
        all_TH = hidden_TH if before_TH is None else torch.cat([before_TH, hidden_TH])
        return States(all_TH[take_N], targets_N, prompt_states)

    def _padded(self, pack: Pack) -> States:
        """S right-padded rows of L tokens, through the model's own attention; same numbers in the same order. What
        several have in common is read in one of them."""
        device = self.device
        examples = pack.examples
        longest = max(len(example.ids) for example in examples)
        ids_SL = torch.tensor(
            [[*ids, *[ids[-1]] * (longest - len(ids))] for ids in (example.ids for example in examples)], device=device
        )
        mask_SL = (torch.arange(longest) < torch.tensor([[len(example.ids)] for example in examples])).long().to(device)
        take = [0] * len(pack.targets_N)
        for number, example in enumerate(examples):
            first = len(example.ids) if isinstance(self.head, ScoreHead) else example.n_prompt
            for at, row in enumerate(example.rows, start=number * longest + first - 1):
                take[row] = at
        take_N, targets_N = torch.tensor(take, device=device), torch.tensor(pack.targets_N, device=device)
        inputs = {"input_ids": ids_SL, "attention_mask": mask_SL, "use_cache": False}
        if isinstance(self.head, OwnLogits):
            return States(self._base(**inputs).logits.flatten(0, 1)[take_N], targets_N)
        hidden_SLH = self._base.base_model(**inputs).last_hidden_state
        return States(hidden_SLH.flatten(0, 1)[take_N], targets_N)

    def _numbers(self, states: States) -> Tensor:
        return self.head.logps(states.hidden_NH, states.targets_N)

    def _one_at_a_time(self, pack: Pack) -> Tensor:
        """The truth that the other two are held to: the model's own forward and logits, no padding, no neighbours."""
        logps_N = torch.zeros(len(pack.targets_N), device=self.device)
        for ids, n, rows in pack.examples:
            ids_L = torch.tensor(ids, device=self.device)
            logits_LV = self._base(input_ids=ids_L[None], use_cache=False).logits[0]
            logps_N[list(rows)] = OwnLogits().logps(logits_LV[n - 1 : -1], ids_L[n:])
        return logps_N

    # --- the self-check ------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _check(self, pack: Pack) -> Noise:
        """Settles layout, head and attention. Whether a way is right shows in fp32; what mixed products add to it is
        measured after that."""
        self.model.eval()
        with self._exact_products():
            truth_N = self._one_at_a_time(pack)
            logps_N = self._settle(pack, truth_N)
            can_share = self.layout == "packed" and isinstance(self.head, Head)
            self.shares_prompts = can_share and self._agrees(self._in_two, pack, truth_N)
        if self.dtype == torch.bfloat16:
            truth_N = in_fp32(self._base, lambda: self._one_at_a_time(pack), otherwise=truth_N)
        if self.mixed or self.half:
            with self.attention():
                logps_N = self._numbers(self._packed(pack) if self.layout == "packed" else self._padded(pack))
        rows, _ = rows_and_owners(pack.spans, device=self.device)
        return Noise.between(truth_N[rows], logps_N[rows], [len(span.rows) for span in pack.spans])

    @contextmanager
    def _exact_products(self) -> Iterator[None]:
        """Products in the weights' own precision."""
        narrow, self.mixed, self.half = (self.mixed, self.half), False, False
        try:
            yield
        finally:
            self.mixed, self.half = narrow

    def _settle(self, pack: Pack, truth_N: Tensor) -> Tensor:
        """Returns the log-probabilities [N] of the pack by what was settled on."""
        tolerance = ROUNDING[self.dtype]
        name, own = type(self._base).__name__, OwnLogits()
        self.head = (Head.of(self._base) if self._base.base_model is not self._base else None) or own
        if self.head is not own and not self._head_agrees(pack, truth_N):
            self.head = own
            logger.warning(
                "%s: its output head does more than its config says; logits are made whole, which costs memory", name
            )
        if self._lean and isinstance(self.head, Head):
            self.head = self.head.lean()
        if not self.reason:
            self.reason, packed_N = self._choose_way(pack, truth_N, tolerance)
            if packed_N is not None:
                return packed_N
            if self._wanted == "on":
                raise ModelError(
                    f"engine.packed = on, but {self.reason}",
                    remedy="Set engine.packed to auto: the padded path gives the same numbers at a higher cost.",
                )
            logger.warning("packed path off, padded path used: %s", self.reason)
        with self.attention():
            padded_N = self._numbers(self._padded(pack))
        if tolerance.exceeded_by(padded_N, truth_N):
            raise ModelError(
                f"{name}: a padded batch does not give the numbers of one sequence at a time "
                f"(largest gap {(padded_N - truth_N).abs().max():.1e} nats a token)",
                remedy="Use float32 if this is bfloat16; otherwise this architecture cannot be trained in batches.",
            )
        return padded_N

    def _head_agrees(self, pack: Pack, truth_N: Tensor) -> bool:
        """On one sequence: what a head does it does to every row alike. A mean over so few rows is as coarse as one."""
        ids, n, rows = pack.examples[0]
        worst = ROUNDING[self.dtype].worst
        ids_L = torch.tensor(ids, device=self.device)

        def alone(_: Pack) -> States:
            hidden_LH = self._base.base_model(input_ids=ids_L[None], use_cache=False).last_hidden_state[0]
            return States(hidden_LH[n - 1 : -1], ids_L[n:])

        return self._agrees(alone, pack, truth_N[list(rows)], tolerance=Tolerance(worst, worst))

    def _in_two(self, pack: Pack) -> States:
        """A pack's first responses, then all others behind the prompts that are still there."""
        firsts = lay_out([Group(g.prompt_ids, g.responses[:1], g.keys[:1]) for g in pack.groups])
        other_groups = [Group(g.prompt_ids, g.responses[1:], g.keys[1:]) for g in pack.groups if len(g.keys) > 1]
        with self.attention():
            first = self._packed(firsts, keep=True)
        assert other_groups, "nothing to prove it with"
        assert first.prompt_states is not None
        tail = lay_out(other_groups, behind=firsts)
        tail_states = self.states_behind(first.prompt_states, tail)
        place = {span.key: span.rows for span in pack.spans}
        order = [0] * len(pack.targets_N)
        for start, part in ((0, firsts), (len(firsts.targets_N), tail)):
            for span in part.spans:
                for row, own_row in zip(place[span.key], span.rows, strict=True):
                    order[row] = start + own_row
        return States(
            torch.cat([first.hidden_NH, tail_states.hidden_NH])[order],
            torch.cat([first.targets_N, tail_states.targets_N])[order],
        )

    def _agrees(
        self, path: Callable[[Pack], States], pack: Pack, truth_N: Tensor, *, tolerance: Tolerance | None = None
    ) -> bool:
        try:
            return not (tolerance or ROUNDING[self.dtype]).exceeded_by(self._numbers(path(pack)), truth_N)
        except Exception:  # any failure of a path means the same: not this path
            return False

    def _choose_way(self, pack: Pack, truth_N: Tensor, tolerance: Tolerance) -> tuple[str, Tensor | None]:
        """Settles on the fastest way to attend that gives the model's numbers. Why none does, or its numbers [N]."""
        *faster, plain = ways_for(self.device, self.dtype)
        for number, way in enumerate(faster):
            self._ways = (*faster[number:], plain)
            reason = why_no_gradient(way, self._base.config.get_text_config(), device=self.device, dtype=self.dtype)
            if not reason:
                reason, packed_N = self._try_packed(pack, truth_N, tolerance)
                if packed_N is not None:
                    return "", packed_N
            logger.warning("attention by %s is not used: %s", way.name, reason)
        self._ways = (plain,)
        self._fusion = Fusion.of(self.model, rerun=bool(self._checkpointed))
        reason, packed_N = self._try_packed(pack, truth_N, tolerance)
        if packed_N is None:
            self._fusion = Fusion()
            reason, packed_N = self._try_packed(pack, truth_N, tolerance)
        return reason, packed_N

    def _try_packed(self, pack: Pack, truth_N: Tensor, tolerance: Tolerance) -> tuple[str, Tensor | None]:
        """Why these packs cannot be used, or their numbers [N]."""
        name = type(self._base).__name__
        neighbours, watch_rows = self_check_packs.with_other_neighbours(pack)
        try:
            with self._linears(), packed_attention_in(self._base, self._fusion):
                packed_N, neighbour_N = self._numbers(self._packed(pack)), self._numbers(self._packed(neighbours))
        except Exception as error:  # whatever an unknown architecture raises, its own forward still works
            text = first_line(error)
            return text if name in text else f"{name}: {text}", None
        if tolerance.exceeded_by(packed_N, truth_N):
            worst = (packed_N - truth_N).abs().max()
            return f"{name}: packed log-probabilities are off by up to {worst:.1e} nats a token", None
        leak_N = (packed_N - neighbour_N)[watch_rows].abs()
        if bool((leak_N > 4 * torch.finfo(self.dtype).eps * packed_N[watch_rows].abs().clamp(min=1.0)).any()):
            return f"{name}: some layer mixes neighbouring sequences (by up to {leak_N.max():.1e} nats a token)", None
        return "", packed_N

    def _set_modes(self) -> None:
        if self.model.training:
            self.model.eval()
        for module in self._dropouts:
            module.train(torch.is_grad_enabled())
        for layer in self._checkpointed:
            layer.training = torch.is_grad_enabled()
