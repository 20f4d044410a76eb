"""An event loop in a thread of its own, which hands errands back to the thread that started it.

So a caller needs no lock and no event loop, may have one of its own already (a notebook), and its SQLite connections
stay in the one thread that may use them.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


class Beside:
    """Runs one coroutine. `errand` may be awaited within it."""

    def __init__(self) -> None:
        self._errands: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._started = threading.Event()
        self._error: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None

    def run(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Returns when `main` has; does its errands meanwhile. Raises what it or an errand raised.

        An interrupt in the caller's thread cancels it.
        """
        thread = threading.Thread(target=self._thread, args=(main,), name="trimtab-endpoint", daemon=True)
        thread.start()
        try:
            while (errand := self._errands.get()) is not None:
                errand()
        except BaseException:
            self._cancel()
            raise
        finally:
            thread.join()
        if self._error is not None:
            raise self._error

    async def errand(self, function: Callable[..., T], *arguments: object) -> T:
        """Call the function in the caller's thread; it is called even when the waiting for it is cancelled."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def do() -> None:
            error: Exception | None = None
            value: T | None = None
            try:
                value = function(*arguments)
            except Exception as raised:  # carried over to whoever awaits it
                error = raised
            with suppress(RuntimeError):  # the loop has ended: nobody waits any more
                loop.call_soon_threadsafe(_settle, answer, error, value)

        self._errands.put(do)
        return await answer

    def _thread(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async def whole() -> None:
            self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
            self._started.set()
            await main()

        try:
            asyncio.run(whole())
        except BaseException as error:  # raised again in the caller's thread
            self._error = error
        finally:
            self._started.set()
            self._errands.put(None)

    def _cancel(self) -> None:
        self._started.wait()
        if self._loop is not None and self._task is not None:
            with suppress(RuntimeError):  # the loop has closed by itself
                self._loop.call_soon_threadsafe(self._task.cancel)


def _settle(answer: asyncio.Future[Any], error: Exception | None, value: object) -> None:
    if answer.done():  # cancelled meanwhile
        return
    if error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(value)
