"""Per-token log-probabilities of the responses in a pack: packed where that is proven, padded where it is not.

Which of the two, and with which head, `engine.self_check` proves on first use.

Dropout is off: the model is kept in eval mode, also for gradients. Two exceptions, each set on its own modules only:
adapter dropout that the user asked for acts in passes with gradient, and layers under activation checkpointing are
marked as training, since transformers ties the one to the other.

Dims: N response tokens of a pack.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from trimtab.engine import recompute, self_check, self_check_packs
from trimtab.engine.attention import PACKED
from trimtab.engine.half import half_linears
from trimtab.engine.head import Head, OwnLogits
from trimtab.engine.matmul import faster_linears
from trimtab.engine.mixed import exact_weights, mixed_linears
from trimtab.engine.noise import Noise
from trimtab.engine.packing import Group, Layout, Pack, pack_groups
from trimtab.engine.passes import Passes
from trimtab.engine.score_head import ScoreHead
from trimtab.engine.screening import Prompts
from trimtab.engine.states import PromptStates, States
from trimtab.engine.trainable import adapter_dropouts, causal_lm_of


class Scorer:
    """Scores packs with one model. `reason` says in one line why the packed path is not used; empty while it is.

    `mixed`: products of an fp32 model in bfloat16 (`engine.mixed`); `half`: in float16 (`engine.half`).
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        packed: self_check.Mode = "auto",
        checkpointing: recompute.Mode = "off",
        mixed: bool = False,
        half: bool = False,
    ) -> None:
        base = causal_lm_of(model)
        self.model = model
        self.reason = self_check.TURNED_OFF if packed == "off" else ""
        self.shares_prompts = False
        self.passes = Passes(base, OwnLogits(), products=_products(base, mixed=mixed, half=half))
        self._packed: self_check.Mode = packed
        self._noise: Noise | None = None
        self._dropouts = adapter_dropouts(model)
        self._checkpointed = recompute.switch(base, checkpointing) if checkpointing != "off" else ()
        self._lean = checkpointing == "on"
        self.model.eval()

    @property
    def device(self) -> torch.device:
        return self.passes.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights that compute; adapters may be kept in a wider one."""
        return self.passes.dtype

    @property
    def head(self) -> Head | OwnLogits | ScoreHead:
        """What reads a pass. Known after `prepare`."""
        return self.passes.head

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
            return f"the model's own ({self.passes.base.config._attn_implementation})"
        return self.passes.ways[0].name

    def prepare(self, groups: Sequence[Group]) -> Layout:
        """Runs the self-check on the first few groups, once; later calls return the layout at no cost.

        Raises ModelError where even the padded path does not reproduce the model, or where `packed="on"` cannot be had.
        """
        if self._noise is None:
            proof = self_check.prove(
                self.model,
                self.passes,
                self_check_packs.sample(groups),
                packed=self._packed,
                reruns=bool(self._checkpointed),
                lean=self._lean,
            )
            self.passes, self.reason, self._noise = proof.passes, proof.reason, proof.noise
            self.shares_prompts = proof.shares_prompts
        return self.layout

    def read_scores(self, module: nn.Linear) -> None:
        """From here on `module` at a response's last token gives its one number, in place of its log-probabilities.
        After `prepare`, which proves the packs on the language model's own head: a fresh one says nothing."""
        assert self._noise is not None, "packs are proved before another head reads them"
        self.passes = replace(self.passes, head=ScoreHead(module))

    def packs(self, groups: Sequence[Group], *, pack_tokens: int) -> tuple[Pack, ...]:
        """The groups in packs of at most `pack_tokens`, laid out as this scorer computes and reads them."""
        packs = pack_groups(groups, budget_tokens=pack_tokens, layout=self.prepare(groups))
        return tuple(pack.at_ends() for pack in packs) if isinstance(self.head, ScoreHead) else packs

    @contextmanager
    def attention(self) -> Iterator[None]:
        """The model's attention switched over for packs, and back. Hold it around forward and backward together when
        activations are checkpointed: the backward pass runs the layers again."""
        with self.passes.for_packs() if self.layout == "packed" else self.passes.products():
            yield

    def states(self, pack: Pack, *, keep: bool = False) -> States:
        """The pack's forward pass up to the head; differentiable when gradients are enabled.

        `keep` holds on to the prompts for `states_behind`; only where `shares_prompts`.
        """
        self.prepare(pack.groups)
        self._set_modes()
        if self.layout == "padded":
            with self.attention():
                return self.passes.padded(pack)
        switched = self.passes.base.config._attn_implementation == PACKED
        assert switched or not (self._checkpointed and torch.is_grad_enabled()), (
            "checkpointed layers run again in the backward pass: hold scorer.attention() around both"
        )
        with self.attention():
            return self.passes.packed(pack, keep=keep)

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
        with self.attention():
            return self.passes.behind(prompt_states, tail)

    def logps(self, pack: Pack) -> Tensor:
        """log p of every response token of the pack [N], nats, fp32; differentiable when gradients are enabled."""
        states = self.states(pack)
        return self.passes.logps(states)

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

    def _set_modes(self) -> None:
        if self.model.training:
            self.model.eval()
        for module in self._dropouts:
            module.train(torch.is_grad_enabled())
        for layer in self._checkpointed:
            layer.training = torch.is_grad_enabled()


def _products(base: nn.Module, *, mixed: bool, half: bool) -> Callable[[], AbstractContextManager[None]]:
    if half:
        return partial(half_linears, exact_weights(base))
    return partial(mixed_linears, exact_weights(base)) if mixed else faster_linears
