"""How long is waited: backoff with jitter, and what a server asks for."""

from __future__ import annotations

from email.utils import formatdate
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.endpoint.waiting import Waiting, retry_after

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 0.5 "}, 0.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": formatdate(NOW + 90, usegmt=True)}, 90.0),
        ({"retry-after": formatdate(NOW - 90, usegmt=True)}, 0.0),
        ({"retry-after": "Fri, 15 Jan 2027 08:01:30"}, 90.0),  # no zone: it is UTC
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "7"}, 7.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "Fri, 99 Jan 2027 99:01:30 GMT"}, None),
        ({}, None),
    ],
)
def test_what_a_server_asks_for(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, now=NOW) == seconds


@given(attempts=st.integers(1, 2000), seed=st.integers(0, 99), asked=st.none() | st.floats(0, 300))
@settings(max_examples=200)
def test_a_wait_is_below_the_doubling_ceiling_and_never_shorter_than_asked(
    attempts: int, seed: int, asked: float | None
) -> None:
    waiting = Waiting(base=0.5, cap=30.0, chance=Random(seed))  # noqa: S311  # jitter, no secret
    ceiling = min(30.0, 0.5 * 2 ** min(attempts - 1, 20))
    assert (asked or 0.0) <= waiting.before_next(attempts, at_least=asked) <= max(ceiling, asked or 0.0)


def test_the_jitter_is_full() -> None:
    waiting = Waiting(base=0.5, cap=30.0, chance=Random(1))  # noqa: S311  # jitter, no secret
    waits = [waiting.before_next(3, at_least=None) for _ in range(4000)]
    assert min(waits) < 0.01
    assert max(waits) > 1.99
    assert sum(waits) / len(waits) == pytest.approx(1.0, abs=0.03)  # uniform in [0, 2]
