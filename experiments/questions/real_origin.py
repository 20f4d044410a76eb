"""On what a real model's runs were made, for the pages that show their numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from experiments.words import join_words


def made_on(results: Iterable[Mapping[str, Any]]) -> str:
    """Processors with the runs of each."""
    hardware = (result["about"]["hardware"] for result in results)
    counts = Counter(f"{about['processor']}, {_cores(about['cores'])}" for about in hardware)
    each = join_words([f"{processor} ({n})" for processor, n in counts.most_common()])
    return f"Runs by processor, fp32: {each}; each run's file names its revision and versions."


def _cores(n: int) -> str:
    return "1 core" if n == 1 else f"{n} cores"
