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
class SeedSaved:
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
    seeds: tuple[SeedSaved, ...]


def saved_numbers(runs: Sequence[Run]) -> SavedNumbers | None:
    """One entry a seed that screened; None when no run did, or none says so."""
    seeds = tuple(_seed(run) for run in runs if len(run.metrics) and _is_screened(run))
    return SavedNumbers(seeds) if seeds else None


def _is_screened(run: Run) -> bool:
    return run.screening is not None or any(any(run.metrics.known(name)) for name in SHARES)


def _seed(run: Run) -> SeedSaved:
    counts = run.screening or Screening()
    screened, promoted = counts.responses_screened, counts.promoted
    return SeedSaved(
        seed=run.seed,
        mode=counts.mode,
        n_steps=len(run.metrics),
        shares={name: _share(run.metrics, name) for name in SHARES},
        responses_screened=screened,
        responses_promoted=promoted,
        promoted_share=promoted / screened if screened and promoted is not None else None,
        time=saving(run.metrics.rows),
        shrinking=_shrinking(counts),
    )


def _shrinking(counts: Screening) -> ShrinkingNumbers | None:
    visits, rechecked, missed = counts.shrunk_visits, counts.rechecked, counts.missed
    if visits is None or rechecked is None or missed is None:
        return None
    return ShrinkingNumbers(visits, rechecked, missed, missed / rechecked if rechecked else None)


def _share(metrics: Metrics, name: str) -> float | None:
    counted = [(row[name], row.get("tokens") or 1) for row in metrics.rows if isinstance(row.get(name), int | float)]
    if not counted:
        return None
    return float(np.average([share for share, _ in counted], weights=[n for _, n in counted]))
