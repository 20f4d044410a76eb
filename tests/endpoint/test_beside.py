"""An event loop in another thread, its errands in this one."""

from __future__ import annotations

import asyncio
import threading

import pytest

from trimtab.endpoint.beside import Beside


def test_errands_run_in_the_callers_thread_and_give_their_value_back() -> None:
    beside, threads, got = Beside(), [], []

    def errand(number: int) -> int:
        threads.append(threading.current_thread())
        return 2 * number

    async def main() -> None:
        assert threading.current_thread() is not threading.main_thread()
        got.extend(await asyncio.gather(*(beside.errand(errand, number) for number in range(5))))

    beside.run(main)
    assert got == [0, 2, 4, 6, 8]
    assert set(threads) == {threading.current_thread()}


def test_what_an_errand_raises_reaches_the_coroutine_and_then_the_caller() -> None:
    beside, seen = Beside(), []

    def fails() -> None:
        raise KeyError("mine")

    async def main() -> None:
        try:
            await beside.errand(fails)
        except KeyError as error:
            seen.append(error)
            raise

    with pytest.raises(KeyError, match="mine"):
        beside.run(main)
    assert len(seen) == 1


def test_an_interrupt_in_an_errand_cancels_the_coroutine() -> None:
    beside, ended = Beside(), []

    def interrupted() -> None:
        raise KeyboardInterrupt

    async def main() -> None:
        try:
            await asyncio.gather(beside.errand(interrupted), asyncio.sleep(3600))
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    with pytest.raises(KeyboardInterrupt):
        beside.run(main)
    assert ended == ["cancelled"]


def test_an_errand_is_run_even_when_nobody_waits_for_it_any_more() -> None:
    beside, done = Beside(), []

    async def main() -> None:
        waiting = asyncio.create_task(beside.errand(done.append, 1))
        await asyncio.sleep(0)
        waiting.cancel()

    beside.run(main)
    assert done == [1]


def test_it_works_where_an_event_loop_runs_already() -> None:
    async def notebook() -> list[int]:
        beside, got = Beside(), []

        async def main() -> None:
            got.append(await beside.errand(lambda: 7))

        beside.run(main)
        return got

    assert asyncio.run(notebook()) == [7]
