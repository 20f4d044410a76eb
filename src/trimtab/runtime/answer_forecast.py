"""How long decoding will still take, from tokens: answers that have ended are too few, and come too late, to tell.

A batch begins by reading its prompts, whose tokens cost a fraction of an answer's: both are counted and timed apart.
How long answers are shows only when they end. They are taken to end by themselves at a constant rate a token; ends over
tokens is the maximum-likelihood estimate of it, in which answers that still grow, or were cut, have their place.
"""

from __future__ import annotations

import time
from collections.abc import Collection

from trimtab.progress import Clock


class AnswerForecast:
    """Fed with the passes of the decoder, it knows the seconds left. `limit`: tokens of an answer, at most."""

    def __init__(self, *, limit: int, clock: Clock = time.monotonic) -> None:
        self._limit, self._clock = limit, clock
        self._start = self._last = clock()
        self._seconds_reading = self._seconds_answering = 0.0
        self._n_read = self._n_answered = 0  # tokens in those seconds
        self._n_tokens = self._n_finished = 0  # of answers, all told; answers that ended by themselves
        self._n_live = self._n_live_tokens = self._n_waiting = self._n_waiting_tokens = 0

    def begin(self, prompt_lengths: Collection[int], *, n_later: int = 0) -> None:
        """Prompts that wait from now on, in tokens; answers that were growing are lost. `n_later` more follow them."""
        self._last = self._clock()
        self._n_live = self._n_live_tokens = 0
        self._n_waiting = len(prompt_lengths) + n_later
        self._n_waiting_tokens = round(sum(prompt_lengths) * self._n_waiting / max(1, len(prompt_lengths)))

    def add(self, n_given: int, n_read: int) -> None:
        """A pass of the model gave a token to `n_given` answers; 0, or tokens of their prompts that it read for it."""
        now = self._clock()
        seconds, self._last = now - self._last, now
        self._n_tokens += n_given
        self._n_live_tokens += n_given
        if n_read:
            self._n_read += n_read
            self._seconds_reading += seconds
            self._n_waiting -= n_given
            self._n_waiting_tokens -= n_read
            self._n_live += n_given
        else:
            self._n_answered += n_given
            self._seconds_answering += seconds

    def end(self, n_tokens: int, *, finished: bool) -> None:
        """An answer is complete, its stop token among its `n_tokens` if it `finished` by itself."""
        self._n_finished += finished
        self._n_live -= 1
        self._n_live_tokens -= n_tokens

    @property
    def tokens_per_second(self) -> float:
        """Tokens of answers over all of the time."""
        return self._n_tokens / max(self._clock() - self._start, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        """None before the first pass that did nothing but give tokens."""
        if not self._n_answered:
            return None
        mean_length = self._n_live_tokens / max(1, self._n_live)
        n_tokens = self._n_live * self._expected(self._limit - mean_length) + self._n_waiting * self._expected(
            self._limit
        )
        to_read = self._n_waiting_tokens * self._seconds_reading / max(1, self._n_read)
        return n_tokens * self._seconds_answering / self._n_answered + to_read

    def _expected(self, limit: float) -> float:
        """Tokens to come of an answer that may take `limit` more: Σ (1 − h)^k over k < limit, h ends a token."""
        ends = self._n_finished / self._n_tokens
        return limit if ends == 0 else (1 - (1 - ends) ** max(0.0, limit)) / ends
