"""What screening and shrinking left out, of every seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trimtab.analysis.compute_saved import SHARES, Saving, saving
from trimtab.reporting.metrics import Metrics
from trimtab.reporting.read import Run, Screening


@dataclass(frozen=True, slots=True)
class ShrinkingNumbers:
    """Visits passed over, and how often the look after them found a response active: `missed` of `rechecked`."""

    visits: int
    rechecked: int
    missed: int
    rate: float | None


@dataclass(frozen=True, slots=True)
class SeedSavings:
    """`shares` are of response tokens, each step counted by its tokens; None where no row has them."""

    seed: int
    mode: str | None
    n_steps: int
    shares: Mapping[str, float | None]
    responses_screened: int | None
    responses_promoted: int | None
    promoted_share: float | None
    time: Saving
    shrinking: ShrinkingNumbers | None


@dataclass(frozen=True, slots=True)
class SavedNumbers:
    seeds: tuple[SeedSavings, ...]


def saved_numbers(runs: Sequence[Run]) -> SavedNumbers | None:
    """One entry a seed that screened; None when no run did, or none says so."""
    seeds = tuple(_seed(run) for run in runs if len(run.metrics) and _is_screened(run))
    return SavedNumbers(seeds) if seeds else None


def _is_screened(run: Run) -> bool:
    return run.screening is not None or any(any(run.metrics.values(name)) for name in SHARES)


def _seed(run: Run) -> SeedSavings:
    counts = run.screening or Screening()
    n_screened, n_promoted = counts.responses_screened, counts.promoted
    return SeedSavings(
        seed=run.seed,
        mode=counts.mode,
        n_steps=len(run.metrics),
        shares={name: _share(run.metrics, name) for name in SHARES},
        responses_screened=n_screened,
        responses_promoted=n_promoted,
        promoted_share=n_promoted / n_screened if n_screened and n_promoted is not None else None,
        time=saving(run.metrics.rows),
        shrinking=_shrinking(counts),
    )


def _shrinking(counts: Screening) -> ShrinkingNumbers | None:
    n_visits, n_rechecked, n_missed = counts.shrunk_visits, counts.rechecked, counts.missed
    if n_visits is None or n_rechecked is None or n_missed is None:
        return None
    return ShrinkingNumbers(n_visits, n_rechecked, n_missed, n_missed / n_rechecked if n_rechecked else None)


def _share(metrics: Metrics, name: str) -> float | None:
    rows = [row for row in metrics.rows if isinstance(row.get(name), int | float)]
    if not rows:
        return None
    return float(np.average([row[name] for row in rows], weights=[row.get("tokens") or 1 for row in rows]))
