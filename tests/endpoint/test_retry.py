"""How long is waited: backoff with jitter, and what a server asks for."""

from __future__ import annotations

import asyncio
from email.utils import formatdate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.endpoint.retry import Backoff, RequestError, retry_after

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


def pauses(attempts: int, *, backoff: Backoff, asked: float | None = None) -> list[float]:
    """The pauses between `attempts` that all fail."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def fail() -> None:
        raise RequestError("server", "out of order", retry_after=asked)

    with pytest.raises(RequestError, match="out of order"):
        asyncio.run(backoff.retrier(attempts, sleep=sleep)(fail))
    return slept


@given(attempts=st.integers(2, 80), asked=st.none() | st.floats(0, 300))
@settings(max_examples=30, deadline=None)
def test_a_pause_is_below_the_doubling_ceiling_and_never_shorter_than_asked(attempts: int, asked: float | None) -> None:
    slept = pauses(attempts, backoff=Backoff(base=0.5, cap=30.0), asked=asked)
    assert len(slept) == attempts - 1
    for n, seconds in enumerate(slept):
        assert (asked or 0.0) <= seconds <= max(min(30.0, 0.5 * 2.0**n), asked or 0.0)


def test_the_jitter_is_full() -> None:
    """At the cap pauses are uniform in [0, cap]: their mean is half of it, with a standard error of cap / √(12 n)."""
    slept = pauses(2001, backoff=Backoff(base=2.0, cap=2.0))
    assert min(slept) < 0.02
    assert max(slept) > 1.98
    assert sum(slept) / len(slept) == pytest.approx(1.0, abs=0.06)  # 4.6 standard errors


def test_what_cannot_pass_is_not_tried_again() -> None:
    calls = []

    async def fail() -> None:
        calls.append(1)
        raise RequestError("too long", "for the model's context", transient=False)

    async def sleep(_seconds: float) -> None:
        raise AssertionError("nobody waits")

    with pytest.raises(RequestError, match="context"):
        asyncio.run(Backoff().retrier(6, sleep=sleep)(fail))
    assert len(calls) == 1
