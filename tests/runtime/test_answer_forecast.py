"""The time left of decoding, against decoders whose passes take as long as a script says."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence

import pytest

from trimtab.progress import PlainReporter
from trimtab.runtime.answer_forecast import AnswerForecast

LIMIT = 128


class ScriptedDecoder:
    """`n_rows` answers at a time. 100 tokens of a prompt are read in .2 s, a step takes 50 ms and 3 ms a row."""

    def __init__(self, lengths: Sequence[int], *, n_rows: int) -> None:
        self.now, self.n_rows = 0.0, n_rows
        self.lengths = list(lengths)  # of answers that wait, their stop tokens included; longer ones are cut
        self.live: list[tuple[int, int]] = []  # length, tokens so far
        self.forecast = AnswerForecast(limit=LIMIT, clock=lambda: self.now)
        self.forecast.begin([100] * len(lengths))
        self.moments: list[tuple[float, float | None]] = []  # when, and the seconds left by the forecast

    def run(self) -> list[tuple[float, float | None]]:
        while self.lengths or self.live:
            joiners = [(self.lengths.pop(0), 0) for _ in range(min(self.n_rows - len(self.live), len(self.lengths)))]
            if joiners:
                self.now += 0.2 * len(joiners)
                self.live += self._grow(joiners, n_read=100 * len(joiners))
            self.now += 0.05 + 0.003 * len(self.live)
            self.live = self._grow(self.live, n_read=0)
            self.moments.append((self.now, self.forecast.seconds_left))
        return self.moments

    def _grow(self, rows: Sequence[tuple[int, int]], *, n_read: int) -> list[tuple[int, int]]:
        grown = [(length, n_tokens + 1) for length, n_tokens in rows]
        for length, n_tokens in grown:
            if n_tokens == min(length, LIMIT):
                self.forecast.end(n_tokens, finished=length <= LIMIT)
        self.forecast.add(len(rows), n_read)
        return [(length, n_tokens) for length, n_tokens in grown if n_tokens < min(length, LIMIT)]


def shares(decoder: ScriptedDecoder, *, after: float, until: float) -> list[float]:
    """Seconds left by the forecast over those that it took, at every step within two shares of the whole time."""
    moments = decoder.run()
    end = moments[-1][0]
    ratios = [left / (end - now) for now, left in moments if left is not None and after * end <= now <= until * end]
    assert len(ratios) > 20
    return ratios


def test_answers_of_one_batch_are_timed_before_any_has_ended() -> None:
    """Reading takes 6.4 s, a step .146 s: after the first, (127 − 1) · .146 = 18.4 s. By answers there is no rate yet,
    and by tokens over all of the time it would be 64 in 6.5 s, 409 s for what is left."""
    decoder = ScriptedDecoder([1000] * 32, n_rows=32)
    moments = decoder.run()
    assert moments[0] == (pytest.approx(6.546), pytest.approx(126 * 0.146))
    assert moments[-1][1] == pytest.approx(0.0)
    assert all(left == pytest.approx(moments[-1][0] - now, abs=1e-6) for now, left in moments)


def test_prompts_that_wait_are_part_of_the_time_left() -> None:
    """Four batches of 32: reading is a quarter of the time, and waiting answers take the limit."""
    ratios = shares(ScriptedDecoder([1000] * 128, n_rows=32), after=0.0, until=0.98)
    assert 0.99 < min(ratios) <= max(ratios) < 1.01


@pytest.mark.parametrize("mean", [20, 60, 200])
def test_answers_that_end_by_themselves_are_forecast_within_a_quarter(mean: int) -> None:
    """512 answers whose lengths are geometric, most of them cut at 128 tokens where the mean is 200. Towards the end
    few rows are left, which no rate so far knows."""
    draw = random.Random(mean)  # noqa: S311 - test data
    lengths = [1 + int(draw.expovariate(1 / mean)) for _ in range(512)]
    ratios = shares(ScriptedDecoder(lengths, n_rows=32), after=0.05, until=0.75)
    assert 0.75 < min(ratios) <= max(ratios) < 1.25


def test_answers_of_later_turns_and_lost_ones_count() -> None:
    """Ten tokens a second. 2 answers of 128, then 2 more in a later turn: 2 tokens are given, 510 are to come."""
    now = 0.0
    forecast = AnswerForecast(limit=LIMIT, clock=lambda: now)
    forecast.begin([10, 30], n_later=2)
    now = 4.0
    forecast.add(2, 40)
    assert forecast.seconds_left is None
    now = 4.2
    forecast.add(2, 0)
    assert forecast.seconds_left == pytest.approx((2 * 126 + 2 * 128) / 10 + 40 * 0.1)
    assert forecast.tokens_per_second == pytest.approx(4 / 4.2)
    forecast.begin([10], n_later=0)  # memory was short, and the only answer that is due begins again
    assert forecast.seconds_left == pytest.approx(128 / 10 + 10 * 0.1)


def test_a_line_shows_the_time_left_in_place_of_seconds_an_answer() -> None:
    now, stream = 0.0, io.StringIO()
    reporter = PlainReporter(stream, interval=5, clock=lambda: now)
    with reporter.track("generate", total=32, unit="answers") as advance:
        now = 19.0
        advance(1)
        now = 24.0
        advance(0, **{"tokens/s": 207, "seconds_left": 6.0})
        now = 30.0
        advance(31)
    assert stream.getvalue().splitlines() == [
        "generate: 0 of 32 answers",
        "generate: 1 of 32 answers (3 %), 19 s each, 9:49 left",
        "generate: 1 of 32 answers (3 %), 0:06 left, tokens/s 207",
        "generate: 32 of 32 answers in 0:30, 1.07 answers/s, tokens/s 207",
    ]
