"""How many are inside: additive increase, multiplicative decrease, holds, and closing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from trimtab.endpoint.concurrency import AdaptiveLimit, ClosedError


def in_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        asyncio.run(asyncio.wait_for(test(), 10))

    run.__name__ = test.__name__
    return run


@in_loop
async def test_nobody_enters_above_the_limit() -> None:
    limit = AdaptiveLimit(2, size=2)
    await limit.enter()
    await limit.enter()
    third = asyncio.create_task(limit.enter())
    await asyncio.sleep(0.01)
    assert not third.done()
    limit.leave()
    await third


@in_loop
async def test_an_overload_halves_once_for_all_that_were_under_way_together() -> None:
    limit = AdaptiveLimit(8, size=8)
    for entered in [await limit.enter() for _ in range(8)]:
        limit.halve(entered)
        limit.leave()
    assert limit.size == 4
    limit.halve(await limit.enter())
    assert limit.size == 2


@in_loop
async def test_the_limit_stays_between_one_and_the_bound() -> None:
    limit = AdaptiveLimit(3, size=99)
    assert limit.size == 3
    for _ in range(9):
        limit.halve(await limit.enter())
        limit.leave()
    assert limit.size == 1
    for _ in range(99):
        limit.grow(await limit.enter())
        limit.leave()
    assert limit.size == 3


@in_loop
async def test_a_round_of_good_replies_adds_about_one() -> None:
    limit = AdaptiveLimit(64, size=10)
    for _ in range(10):
        limit.grow(await limit.enter())
        limit.leave()
    assert limit.size == pytest.approx(11, abs=0.05)


@in_loop
async def test_replies_that_were_sent_before_a_cut_do_not_raise_it_again() -> None:
    limit = AdaptiveLimit(8, size=8)
    early, late = await limit.enter(), await limit.enter()
    limit.halve(late)
    limit.grow(early)
    assert limit.size == 4


@in_loop
async def test_a_hold_keeps_everybody_out_and_is_never_shortened() -> None:
    limit, start = AdaptiveLimit(4, size=4), asyncio.get_running_loop().time()
    limit.hold(0.2)
    limit.hold(0.05)
    entries = await asyncio.gather(*(limit.enter() for _ in range(3)))
    assert min(entries) >= start + 0.2


@in_loop
async def test_closing_wakes_those_who_wait_for_room_for_time_or_outside() -> None:
    full, held = AdaptiveLimit(1, size=1), AdaptiveLimit(1, size=1)
    await full.enter()
    held.hold(3600)
    tasks = [asyncio.create_task(work) for work in (full.enter(), full.pause(3600), held.enter())]
    await asyncio.sleep(0.01)
    full.close()
    held.close()
    for task in tasks:
        with pytest.raises(ClosedError):
            await task
    with pytest.raises(ClosedError):
        await full.enter()
