"""trimtab's side of a measurement: the calls that one optimizer step of the train stage makes.

Active rates are forced through the references: one is set so far on one side of the policy that a response is deep in
the dead zone of apo_hinge_zero, or surely outside it. The coefficients are the objective's own; those inside come out
exactly zero, which is asserted. Dims: R = 2P responses.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch

from trimtab import objectives
from trimtab.engine import gradient, trainable
from trimtab.engine import memory as needs
from trimtab.engine.optim import AdamW
from trimtab.engine.scoring import Scorer
from trimtab.records import TokenPair
from workload import Fate, Shape, TokenIds, choose_fate, distinct_texts, response_sizes

LORA = {"rank": 16, "alpha": 32.0}


class Stepper:
    """A model with random weights, its optimizer and its scorer."""

    def __init__(
        self,
        shape: Shape,
        *,
        device: str = "cpu",
        dtype: str = "float32",
        lora: bool = False,
        checkpointing: str = "off",
        model: Any = None,
    ) -> None:
        """`dtype`: also mixed. `model`: real weights of this shape instead of random ones."""
        self.vocabulary = shape.vocabulary
        stored = "float32" if dtype == "mixed" else dtype
        self.model = shape.build(device=device, dtype=stored) if model is None else model
        if lora:
            self.model = trainable.attach_lora(self.model, **LORA)
        self.objective = objectives.make("apo_hinge_zero")
        self.optimizer = AdamW(self.model, weight_decay=0.0)
        trainable.lean_embedding(self.model)
        # an earlier build, taking turns, has none
        self.allocation = import_module("trimtab.engine.allocation") if find_spec("trimtab.engine.allocation") else None
        if self.allocation is not None:
            self.allocation.settle_allocation(lean=checkpointing != "off")
        self.rescore(checkpointing=checkpointing, **({"mixed": True} if dtype == "mixed" else {}))

    def rescore(self, **options: Any) -> None:
        """From here on by a scorer with these options."""
        self.scorer = Scorer(self.model, **options)

    def give_back(self) -> None:
        """Freed memory to the system, as a run does every few steps."""
        if self.allocation is not None:
            self.allocation.give_back()

    @property
    def trainable(self) -> int:
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad)

    def pack_tokens(self, pairs: Sequence[TokenIds]) -> int:
        """The budget that a run would choose here."""
        families = {prompt: len(prompt) + sum(sizes) for prompt, sizes in distinct_texts(pairs).items()}
        # an earlier build, taking turns, does not ask for it
        knows = "largest_family" in inspect.signature(needs.choose_pack_tokens).parameters
        largest = {"largest_family": max(families.values())} if knows else {}
        return needs.choose_pack_tokens(
            needs.Shape.of(self.model),
            dtype=self.scorer.dtype,
            device=self.scorer.device,
            longest_group=max(sum(map(len, pair)) for pair in pairs),
            **largest,
        )

    def warm_up(self, pairs: Sequence[TokenIds]) -> None:
        """A step on short pairs: the self-check, the optimizer's state, the threads."""
        short = [(prompt[:8], chosen[-8:], rejected[-8:]) for prompt, chosen, rejected in pairs]
        self.step(short, choose_fate(short, rate=1.0), pack_tokens=1 << 10, screening=False)
        assert not self.scorer.reason, f"not packed: {self.scorer.reason}"

    def step(
        self,
        pairs: Sequence[TokenIds],
        fate: Fate,
        *,
        pack_tokens: int,
        screening: bool,
        learning_rate: float = 1e-6,
    ) -> gradient.BatchResult:
        """One optimizer step; dense, or with the forecast that `fate` holds."""
        self.optimizer.zero_gradients()
        result = self.accumulate(pairs, fate, pack_tokens=pack_tokens, screening=screening)
        self.optimizer.clip(1.0)
        self.optimizer.step(learning_rate=learning_rate)
        return result

    def accumulate(
        self, pairs: Sequence[TokenIds], fate: Fate, *, pack_tokens: int, screening: bool
    ) -> gradient.BatchResult:
        """The gradient alone, added to the parameters' own."""
        rows = list(pairs)
        sizes = response_sizes(rows)
        held_R = [self._expected(n) if held else math.nan for n, held in zip(sizes, fate.held_R, strict=True)]
        result = gradient.accumulate(
            self.scorer,
            [TokenPair(f"pair {i}", *ids) for i, ids in enumerate(rows)],
            objective=self.objective,
            reference_logps_R=self.references(pairs, fate),
            pack_tokens=pack_tokens,
            screen_R=torch.tensor(fate.screen_R) if screening else None,
            stale_sums_R=torch.tensor(held_R) if screening and any(fate.held_R) else None,
        )
        assert tuple(result.active_R.tolist()) == fate.active_R, "the forced coefficients are not what was asked for"
        return result

    def references(self, pairs: Sequence[TokenIds], fate: Fate) -> torch.Tensor:
        """[R] in nats: so far from a fresh model's that each response is active or not as `fate` has it."""
        return torch.tensor(
            [
                self._reference(n, chosen=r % 2 == 0, active=fate.active_R[r])
                for r, n in enumerate(response_sizes(list(pairs)))
            ]
        )

    def _expected(self, n: int) -> float:
        """A fresh model gives each of `n` tokens about −ln V nats, give or take much less than 2."""
        return -n * math.log(self.vocabulary)

    def _reference(self, n: int, *, chosen: bool, active: bool) -> float:
        """Above what any model can give the response, or below what this one does, by more than the hinge reaches."""
        beyond = self.objective.reach() + 1
        return beyond if chosen == active else 3 * self._expected(n) - beyond
