"""Which responses are worth looking at before they get a gradient: a forecast that changes cost, never the result.

A response that is sent straight through costs 3 (forward 1, backward 2). One that is looked at first costs 1, and,
where it turns out active, 3 more and its prompt once more. So looking first pays while fewer than `BREAK_EVEN` of such
responses turn out active. Responses are told apart by side and by how they were found at their last visit; the active
rate of each of these classes is a running mean. While everything is active nothing is looked at first, and a step is
the dense one; where responses leave the dead zone unforeseen, the rate of their class says so and stops it.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

BREAK_EVEN = 0.6  # 2 / 3 for a response alone, less for the prompt that a promoted one pays again
MEMORY = 32  # responses of one class over which its running rate forgets

_NEW, _ACTIVE, _INACTIVE = "nai"
_STATES = (_NEW, _ACTIVE, _INACTIVE)
_SIDES = (0, 1)  # chosen, rejected


class Forecast:
    """What is expected of every response of a training set, learnt from its visits.

    `state`: what `state()` gave, to go on where a stopped run was. Plain JSON: rates, and one letter a response.
    """

    def __init__(self, n_pairs: int, *, state: Mapping[str, Any] | None = None) -> None:
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

    def screen_R(self, indices: Sequence[int]) -> Tensor | None:
        """True [2P] for responses of these pairs that are to be looked at first; None where none is."""
        screen = [self._rates[side, self._last[2 * i + side]] < BREAK_EVEN for i in indices for side in _SIDES]
        return torch.tensor(screen) if any(screen) else None

    def saw(self, indices: Sequence[int], active_R: Tensor, *, screened_R: Tensor, held_R: Tensor) -> None:
        """How the responses of these pairs were found, all bool [2P]; those that were held are left as they were."""
        rows = zip(active_R.tolist(), screened_R.tolist(), held_R.tolist(), strict=True)
        for (i, side), (active, screened, held) in zip(itertools.product(indices, _SIDES), rows, strict=True):
            if held:
                continue
            kind = side, self._last[2 * i + side]
            self._rates[kind] += (active - self._rates[kind]) / MEMORY
            self._last[2 * i + side] = _ACTIVE if active else _INACTIVE
            self.screened += screened
            self.promoted += screened and active

    def state(self) -> dict[str, Any]:
        """`screened` and `promoted` count responses so far, visit by visit."""
        told = {"rates": list(self._rates.values()), "last": "".join(self._last)}
        return told | {"screened": self.screened, "promoted": self.promoted}
