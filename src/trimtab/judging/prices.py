"""What tokens cost, in US dollars."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.endpoint import OPENAI_URL
from trimtab.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Prices:
    """US dollars for a million tokens that go in, and that come out."""

    input: float
    output: float

    def cost(self, prompt_tokens: float, completion_tokens: float) -> float:
        """US dollars."""
        return (prompt_tokens * self.input + completion_tokens * self.output) / 1e6


LIST_PRICES = {
    "gpt-4": Prices(30.0, 60.0),
    "gpt-4-1106-preview": Prices(10.0, 30.0),
    "gpt-4-turbo": Prices(10.0, 30.0),
    "gpt-4o": Prices(2.5, 10.0),
    "gpt-4o-mini": Prices(0.15, 0.6),
    "gpt-4o-mini-2024-07-18": Prices(0.15, 0.6),
    "gpt-4.1": Prices(2.0, 8.0),
    "gpt-4.1-2025-04-14": Prices(2.0, 8.0),
    "gpt-4.1-mini": Prices(0.4, 1.6),
    "gpt-4.1-nano": Prices(0.1, 0.4),
}
"""OpenAI's list prices as they were in June 2025, for an estimate: check them, and give your own where they differ."""


def prices_for(
    model: str, *, base_url: str, input_price: float | None = None, output_price: float | None = None
) -> Prices | None:
    """The prices told, else OpenAI's list prices where OpenAI is asked, else None.

    Raises ConfigError for one price without the other, or a negative one.
    """
    if input_price is None and output_price is None:
        return LIST_PRICES.get(model) if base_url.rstrip("/") == OPENAI_URL else None
    if input_price is None or output_price is None:
        missing = "judge.input_price" if input_price is None else "judge.output_price"
        raise ConfigError(f"{missing} is missing beside the other price", remedy="give both, 0 where nothing is paid")
    if min(input_price, output_price) < 0:
        raise ConfigError("a price below 0", remedy="give US dollars for a million tokens, 0 where nothing is paid")
    return Prices(input_price, output_price)
