"""How this process has memory of the C library and gives it back: glibc's settings, for the whole process."""

from __future__ import annotations

import ctypes
import sys


def settle_allocation(*, lean: bool) -> None:
    """How freed blocks are kept from here on, in this whole process. No effect without glibc.

    By default glibc returns what is free at the end of its heap after each pack, and every page of the next pack costs
    a fault: so all blocks of up to 32 MB are kept until `give_back`.

    `lean`: blocks of a megabyte and more go back to the system when they are freed. In a heap holes between live blocks
    stay unused, most of all under an adapter, whose temporary results are as large as what is kept. Costs page faults:
    with LoRA a third more processor time at the 60M shape (LOG.md, "The allocator's holes, once more").
    """
    if lean:
        _mallopt(_M_MMAP_THRESHOLD, 1 << 20)
    else:
        _mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # the largest that glibc takes
        _mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def _mallopt(parameter: int, value: int) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None  # glibc has it
    if mallopt is not None:
        mallopt(parameter, value)


_M_TRIM_THRESHOLD = -1  # of glibc's malloc.h
_M_MMAP_THRESHOLD = -3


def give_back() -> None:
    """Returns to the system what the C library holds between live blocks, where it can (glibc).

    Packs of changing sizes leave holes: after nine steps of the 60M shape the peak stood 19 % above that of the first,
    6 % with this after each step. The pages are asked for again, which costs 2 to 3 % of such a step.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
