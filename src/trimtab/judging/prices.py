"""What tokens cost, how many there will be, and a limit that is held. Money is US dollars."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from trimtab.endpoint import OPENAI_URL, Reply, Request
from trimtab.errors import ConfigError

CHARACTERS_A_TOKEN = 4.0  # English prose in the tokenizers of today's models
TOKENS_A_MESSAGE = 4.0  # what the chat form adds to each

TokensOf = Callable[[str], int]


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


def prompt_tokens(request: Request, *, tokens_of: TokensOf | None = None) -> float:
    """An estimate: by `tokens_of`, else four characters a token; and what the chat form adds."""
    if tokens_of is None:
        return request.n_characters / CHARACTERS_A_TOKEN + TOKENS_A_MESSAGE * len(request.messages)
    return sum(tokens_of(message.content) + TOKENS_A_MESSAGE for message in request.messages)


class Budget:
    """What was spent, what those under way may cost at most, and whether one more fits."""

    def __init__(self, prices: Prices | None, max_cost: float | None, tokens_of: TokensOf | None) -> None:
        self._prices, self._max_cost, self._tokens_of = prices, max_cost, tokens_of
        self.spent = 0.0
        self._under_way: dict[str, float] = {}
        self._estimated = self._counted = 0.0  # prompt tokens of the replies that the server counted

    def fits(self, request: Request) -> bool:
        if self._max_cost is None:
            return True
        return self.spent + sum(self._under_way.values()) + self._at_most(request) <= self._max_cost

    def reserve(self, request: Request) -> None:
        self._under_way[request.id] = self._at_most(request)

    def release(self, request: Request) -> None:
        self._under_way.pop(request.id)

    def charge(self, request: Request, reply: Reply) -> None:
        at_most = self._under_way.pop(request.id)
        if self._prices is None:
            return
        if not reply.counts_tokens:  # a server that does not count
            self.spent += at_most
            return
        self.spent += self._prices.cost(reply.prompt_tokens, reply.completion_tokens)
        self._estimated += prompt_tokens(request, tokens_of=self._tokens_of)
        self._counted += reply.prompt_tokens

    def _at_most(self, request: Request) -> float:
        if self._prices is None:
            return 0.0
        longer = max(1.0, self._counted / self._estimated) if self._estimated else 1.0  # than estimated, so far
        return self._prices.cost(longer * prompt_tokens(request, tokens_of=self._tokens_of), request.max_tokens)
