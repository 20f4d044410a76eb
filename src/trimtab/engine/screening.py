"""When it pays to look before the backward pass.

With forward 1 and backward 2, a dense step costs 3 and a screened one 1 + 3a at an active rate a: screening wins below
2/3. It changes cost only: every active response gets its gradient either way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Literal

WINDOW = 20
PAYS_BELOW = 0.6  # a little under 2/3, so that a rate that hovers there does not pay for the second packing


class Screening:
    """Decides, step by step, from the active rates of the last `WINDOW` steps. `rates` continues a stopped run."""

    def __init__(self, mode: Literal["auto", "on", "off"], *, possible: bool, rates: Iterable[float] = ()) -> None:
        self._mode = mode if possible else "off"
        self._rates = deque(rates, maxlen=WINDOW)

    def saw(self, active_rate: float) -> None:
        """The share of responses whose coefficient was not exactly zero in the step just done."""
        self._rates.append(active_rate)

    @property
    def rates(self) -> list[float]:
        return list(self._rates)

    @property
    def on(self) -> bool:
        """Whether the next step screens."""
        if self._mode == "auto":
            return len(self._rates) == WINDOW and sum(self._rates) / WINDOW < PAYS_BELOW
        return self._mode == "on"
