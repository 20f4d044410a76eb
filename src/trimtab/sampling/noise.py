"""One random stream a prompt, so that batch size and batch order cannot change what a prompt samples.

The number that decides token t of prompt i is a pure function of (seed, i, t): Philox 4x64-10, a counter-based
generator (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), keyed by (seed, i). Raw words are
read rather than numpy's distributions, because only the raw stream is promised to stay the same between releases.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_WORD = 2**64  # Philox takes keys and counters of 64 bits


def uniforms(streams: Sequence[int], *, seed: int, n_steps: int) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1) with 53 bits, one row a stream and one column a step: shape [len(streams), n_steps].

    A longer row starts with the shorter one: `n_steps` never changes a number, only how many there are.
    """
    rows = np.empty((len(streams), n_steps), dtype=np.float64)
    for row, stream in zip(rows, streams, strict=True):
        key = np.array([seed % _WORD, stream % _WORD], dtype=np.uint64)
        words = np.random.Philox(key=key).random_raw(n_steps)
        row[:] = (words >> np.uint64(11)) * 2.0**-53
    return rows
