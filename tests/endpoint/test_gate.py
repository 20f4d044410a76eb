"""How many are inside: additive increase, multiplicative decrease, holds, and closing. Time is told, not waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from trimtab.endpoint.gate import Closed, Gate


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)
        self.now += seconds


def gate(bound: int, *, limit: float | None = None, time: Time | None = None) -> Gate:
    time = time or Time()
    return Gate(bound, limit=bound if limit is None else limit, clock=time.clock, sleep=time.sleep)


def in_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        asyncio.run(asyncio.wait_for(test(), 10))

    run.__name__ = test.__name__
    return run


@in_loop
async def test_nobody_enters_above_the_limit() -> None:
    doors = gate(2)
    await doors.enter()
    await doors.enter()
    third = asyncio.create_task(doors.enter())
    await asyncio.sleep(0)
    assert not third.done()
    doors.leave()
    await third
    assert doors.active == 2


@in_loop
async def test_an_overload_halves_once_for_all_that_were_under_way_together() -> None:
    doors = gate(8)
    burst = [await doors.enter() for _ in range(8)]
    for ticket in burst:
        doors.overloaded(ticket)
        doors.leave()
    assert doors.limit == 4
    after = await doors.enter()
    doors.overloaded(after)
    assert doors.limit == 2
    doors.overloaded(burst[0])
    assert doors.limit == 2


@in_loop
async def test_it_never_falls_below_one_and_never_rises_above_the_bound() -> None:
    doors = gate(3)
    for _ in range(5):
        doors.overloaded(await doors.enter())
        doors.leave()
    assert doors.limit == 1
    for _ in range(50):
        doors.went_well(await doors.enter())
        doors.leave()
    assert doors.limit == 3


@in_loop
async def test_a_round_of_good_replies_adds_about_one() -> None:
    doors = gate(64, limit=10)
    for _ in range(10):
        doors.went_well(await doors.enter())
        doors.leave()
    assert doors.limit == pytest.approx(11, abs=0.05)


@in_loop
async def test_replies_that_were_sent_before_a_cut_do_not_raise_it_again() -> None:
    doors = gate(8)
    early, late = await doors.enter(), await doors.enter()
    doors.overloaded(late)
    doors.went_well(early)
    assert doors.limit == 4


@in_loop
async def test_a_hold_keeps_everybody_out_and_is_never_shortened() -> None:
    time = Time()
    doors = gate(4, time=time)
    doors.hold(5.0)
    doors.hold(2.0)
    await asyncio.gather(*(doors.enter() for _ in range(3)))
    assert time.now >= 5.0


@in_loop
async def test_closing_wakes_those_who_wait_for_room_for_time_or_outside() -> None:
    doors = Gate(1, limit=1, clock=lambda: 0.0, sleep=lambda _seconds: asyncio.sleep(3600))
    await doors.enter()
    waiting = [asyncio.create_task(doors.enter()), asyncio.create_task(doors.pause(5.0))]
    held = Gate(1, limit=1, clock=lambda: 0.0, sleep=lambda _seconds: asyncio.sleep(3600))
    held.hold(9.0)
    waiting.append(asyncio.create_task(held.enter()))
    await asyncio.sleep(0.01)
    doors.close()
    held.close()
    for task in waiting:
        with pytest.raises(Closed):
            await task
    with pytest.raises(Closed):
        await doors.enter()
