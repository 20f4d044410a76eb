"""Forward passes of packs through one model, up to its head: packed, padded, or one sequence at a time.

All three give the same numbers in the same order; `engine.self_check` proves it on the model at hand.

Dims: N response tokens of a pack, T packed tokens, S distinct sequences, L the longest, H hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from trimtab.engine.attention import KeyValues, Segments, Way, packed_attention_in
from trimtab.engine.fused import Fusion
from trimtab.engine.head import Head, OwnLogits
from trimtab.engine.matmul import faster_linears
from trimtab.engine.packing import Pack
from trimtab.engine.score_head import ScoreHead
from trimtab.engine.states import PromptStates, States


@dataclass(frozen=True, slots=True)
class Passes:
    """How packs go through `base`, a transformers causal LM: the head that reads them, the ways to attend of which the
    first that can is taken, the modules that compute fused, and the precision of products."""

    base: Any
    head: Head | OwnLogits | ScoreHead
    ways: tuple[Way, ...] = ()
    fusion: Fusion = field(default_factory=Fusion)
    products: Callable[[], AbstractContextManager[None]] = faster_linears

    @property
    def device(self) -> torch.device:
        device: torch.device = next(self.base.parameters()).device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights that compute; adapters may be kept in a wider one."""
        dtype: torch.dtype = self.base.get_input_embeddings().weight.dtype
        return dtype

    @contextmanager
    def for_packs(self) -> Iterator[None]:
        """The model's attention, modules and products switched over for packs, and back."""
        with self.products(), packed_attention_in(self.base, self.fusion):
            yield

    def packed(self, pack: Pack, *, keep: bool = False) -> States:
        """One row of T tokens; prompts once; the head on N rows. Within `for_packs`."""
        segments = Segments(pack.branches, device=self.device, ways=self.ways)
        return self._rows(pack, segments, keep=KeyValues(pack.branches) if keep else None)

    def behind(self, prompt_states: PromptStates, tail: Pack) -> States:
        """The rows of `tail` alone, behind the prompts of an earlier pack. Within `for_packs`."""
        segments = Segments(tail.branches, device=self.device, behind=prompt_states.key_values, ways=self.ways)
        return self._rows(tail, segments, before_TH=prompt_states.hidden_TH)

    def padded(self, pack: Pack) -> States:
        """S right-padded rows of L tokens, through the model's own attention. What several have in common is read in
        one of them."""
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
            return States(self.base(**inputs).logits.flatten(0, 1)[take_N], targets_N)
        hidden_SLH = self.base.base_model(**inputs).last_hidden_state
        return States(hidden_SLH.flatten(0, 1)[take_N], targets_N)

    def logps(self, states: States) -> Tensor:
        """What the head makes of a pass [N], fp32: log p of each response token in nats, or each response's score."""
        return self.head.logps(states.hidden_NH, states.targets_N)

    def one_at_a_time(self, pack: Pack) -> Tensor:
        """The truth that the others are held to [N], nats: the model's own forward and logits, no padding, no
        neighbours."""
        logps_N = torch.zeros(len(pack.targets_N), device=self.device)
        for ids, n, rows in pack.examples:
            ids_L = torch.tensor(ids, device=self.device)
            logits_LV = self.base(input_ids=ids_L[None], use_cache=False).logits[0]
            logps_N[list(rows)] = OwnLogits().logps(logits_LV[n - 1 : -1], ids_L[n:])
        return logps_N

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
            return States(self.base(**inputs, logits_to_keep=take_N).logits[0], targets_N)
        segments.keeping = keep
        hidden_TH = self.base.base_model(**inputs).last_hidden_state[0]
        segments.keeping = None  # layers under checkpointing run once more in the backward pass
        prompt_states = None if keep is None else PromptStates(keep, hidden_TH)
        all_TH = hidden_TH if before_TH is None else torch.cat([before_TH, hidden_TH])
        return States(all_TH[take_N], targets_N, prompt_states)
