"""Which responses are worth looking at before they get a gradient: a forecast that changes cost, never the result.

A token that is sent straight through costs 3: forward 1, backward 2 (or 1 where the weights are frozen, under an
adapter). One that is looked at first costs 1, and 3 more if its response turns out active. What pays therefore depends
on how likely that is, on the lengths, and on what the prompt costs: shared by its responses, it is spared only where
none of them takes a gradient. So the responses of each prompt take the ways of the least expected cost, and a batch is
looked at only if that saves more than the passes it adds.

How likely: responses are told apart by side and by how they were found at their last visit, and the active rate of each
such class is a running mean. One that several pairs of the batch have is inactive only if it is so in all of them.
While everything is active nothing is looked at first, and a step is the dense one.
(Predicting log-ratios instead, by drift or by regression, was no better: `LOG.md`.)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from trimtab.records import TokenPair

MEMORY = 32  # responses of one class over which its running rate forgets

PASS_OPERATIONS = {"cpu": 2e8, "mps": 1e10, "cuda": 1e11}
"""Arithmetic of a layer that would take as long as the calls of one more pass through it. Set from runs on a CPU
(`LOG.md`); on accelerators from 40 launches a layer, not measured. A constant: a timing would make runs differ."""

_NEW, _ACTIVE, _INACTIVE = "nai"
_STATES = (_NEW, _ACTIVE, _INACTIVE)
_SIDES = (0, 1)  # chosen, rejected

Way = tuple[bool, ...]  # whether each response of a prompt is looked at first

Prompts = Literal["shared", "shared until promoted", "never shared"]


@dataclass(frozen=True, slots=True)
class Costs:
    """What ways cost, in forward passes of one token.

    `prompts`: whether a screened response finds its prompt computed, also if it is promoted, or brings it along.
    `step`: forward and backward together. `a_pass`: tokens whose forward pass takes as long as the calls of one more.
    """

    prompts: Prompts = "shared"
    step: float = 3.0
    a_pass: float = 0.0

    @classmethod
    def of(cls, model: Any, *, prompts: Prompts, calls: bool = True) -> Costs:
        """Of a transformers model, where it stands. `calls`: whether those of a further pass count too."""
        layers = model.config.get_text_config().num_hidden_layers
        device = next(model.parameters()).device.type
        n_parameters = sum(parameter.numel() for parameter in model.parameters())
        n_trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        a_pass = layers * PASS_OPERATIONS[device] / (2 * n_parameters) if calls else 0.0
        return cls(prompts, 3.0 if 2 * n_trainable > n_parameters else 2.0, a_pass)

    def ways(self, lengths: Sequence[int], rates: Sequence[float]) -> list[Way]:
        """Those of which one is best, dense first: each response as suits it alone, the prompt taken for computed; all
        looked at first; and all but the one for which that saves least."""
        savings = [n * (self.step - 1 - self.step * rate) for n, rate in zip(lengths, rates, strict=True)]
        own = tuple(saving > 0 for saving in savings)
        least = min(range(len(savings)), key=lambda number: savings[number])
        all_but_one = tuple(first and number != least for number, first in enumerate(own))
        return [(False,) * len(own), own, all_but_one, (True,) * len(own)]

    def expected_cost(self, way: Way, prompt: int, lengths: Sequence[int], rates: Sequence[float]) -> float:
        """Of one prompt and its responses, which turn out active at these rates."""
        sides = tuple(zip(way, lengths, rates, strict=True))
        if self.prompts == "never shared":
            return sum((prompt + n) * (1 + self.step * rate if first else self.step) for first, n, rate in sides)
        own = sum(n * (1 + self.step * rate if first else self.step) for first, n, rate in sides)
        again = self.step * prompt * self._promotion_chance(way, rates)
        if all(way):
            return own + prompt + again
        return own + self.step * prompt + (again if self.prompts == "shared until promoted" else 0.0)

    def _promotion_chance(self, way: Way, rates: Sequence[float]) -> float:
        """Probability that a response which is looked at first turns out active."""
        return 1 - math.prod(1 - rate for first, rate in zip(way, rates, strict=True) if first)


class Forecast:
    """What is expected of every response of a training set, learnt from its visits.

    `state`: what `state()` gave, to go on where a stopped run was. Plain JSON: rates, and one letter a response.
    `screened`, `promoted`: responses looked at first so far, and those found active, visit by visit.
    """

    def __init__(self, n_pairs: int, *, costs: Costs, state: Mapping[str, Any] | None = None) -> None:
        self._costs = costs
        self._last = list(_NEW * (2 * n_pairs))
        self._rates = dict.fromkeys(itertools.product(_SIDES, _STATES), 1.0)
        for side in _SIDES:
            self._rates[side, _INACTIVE] = 0.0
        self.screened = self.promoted = 0
        if state is not None:
            self._last = list(state["last"])
            self.screened, self.promoted = state["screened"], state["promoted"]
            self._rates = dict(zip(self._rates, state["rates"], strict=True))
            assert len(self._last) == 2 * n_pairs, "the forecast of another training set"

    def screen_R(self, indices: Sequence[int], pairs: Sequence[TokenPair]) -> Tensor | None:
        """True [2P] for responses of these pairs that are to be looked at first; None where none is."""
        screen_R = torch.zeros(2 * len(pairs), dtype=torch.bool)
        saving, none_promoted = 0.0, 1.0
        for prompt, keys_of in _by_prompt(pairs).items():
            lengths = [len(ids) for ids in keys_of]
            rates = [
                1 - math.prod(1 - self._rate(2 * indices[key // 2] + key % 2) for key in keys)
                for keys in keys_of.values()
            ]
            dense, *further = self._costs.ways(lengths, rates)
            costs = {way: self._costs.expected_cost(way, len(prompt), lengths, rates) for way in (dense, *further)}
            best = min(costs, key=lambda way: costs[way])
            saving += costs[dense] - costs[best]
            none_promoted *= math.prod(1 - rate for first, rate in zip(best, rates, strict=True) if first)
            screen_R[[key for first, keys in zip(best, keys_of.values(), strict=True) if first for key in keys]] = True
        passes = 1 + self._costs.step * (1 - none_promoted)
        return screen_R if saving > self._costs.a_pass * passes else None

    def costs(self, indices: Sequence[int], pairs: Sequence[TokenPair], screen_R: Tensor | None) -> list[float]:
        """What each pair is expected to take on these ways, in forward passes of one token, its prompt for itself."""
        ways = torch.zeros(2 * len(pairs), dtype=torch.bool) if screen_R is None else screen_R
        return [
            self._costs.expected_cost(
                tuple(way),
                len(pair.prompt_ids),
                [len(pair.chosen_ids), len(pair.rejected_ids)],
                [self._rate(2 * index + side) for side in _SIDES],
            )
            for index, pair, way in zip(indices, pairs, ways.view(-1, 2).tolist(), strict=True)
        ]

    def _rate(self, key: int) -> float:
        return self._rates[key % 2, self._last[key]]

    def record(self, indices: Sequence[int], active_R: Tensor, *, screened_R: Tensor, stale_R: Tensor) -> None:
        """How the responses of these pairs were found, all bool [2P]; those that were held are left as they were."""
        rows = zip(active_R.tolist(), screened_R.tolist(), stale_R.tolist(), strict=True)
        for (i, side), (active, is_screened, is_stale) in zip(itertools.product(indices, _SIDES), rows, strict=True):
            if is_stale:
                continue
            kind = side, self._last[2 * i + side]
            self._rates[kind] += (active - self._rates[kind]) / MEMORY
            self._last[2 * i + side] = _ACTIVE if active else _INACTIVE
            self.screened += is_screened
            self.promoted += is_screened and active

    def state(self) -> dict[str, Any]:
        state = {"rates": list(self._rates.values()), "last": "".join(self._last)}
        return state | {"screened": self.screened, "promoted": self.promoted}


def _by_prompt(pairs: Sequence[TokenPair]) -> dict[tuple[int, ...], dict[tuple[int, ...], list[int]]]:
    """Prompt → response → the batch's keys of it (chosen 2p, rejected 2p + 1)."""
    prompts: dict[tuple[int, ...], dict[tuple[int, ...], list[int]]] = {}
    for p, pair in enumerate(pairs):
        responses = prompts.setdefault(pair.prompt_ids, {})
        for side, ids in pair.sides:
            responses.setdefault(ids, []).append(2 * p + side)
    return prompts
