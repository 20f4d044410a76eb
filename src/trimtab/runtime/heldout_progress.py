"""A look at held-out pairs on the progress line, where it takes long enough to be wondered about."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from trimtab.engine.processes import Processes
from trimtab.progress import Reporter, track_if_slow
from trimtab.records import TokenPair


@contextmanager
def heldout_progress(
    reporter: Reporter,
    pairs: Sequence[TokenPair],
    when: str,
    *,
    processes: Processes,
    check: Callable[[], None] = lambda: None,
) -> Iterator[Callable[[int], None]]:
    """To be called with the responses just scored; `check` is called first, and may raise. Several processes have a
    part each, of which the first one's is shown."""
    responses = sum(length > 0 for pair in pairs for length in pair.own_lengths)
    total = responses if processes.size == 1 else None
    with track_if_slow(reporter, f"held-out pairs {when}", total=total, unit="responses") as advance:

        def advance_or_stop(n: int) -> None:
            check()
            advance(n)

        yield advance_or_stop
