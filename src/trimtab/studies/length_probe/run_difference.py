"""Two probed runs beside each other, pair by pair where they trained on the same pairs.

The correlations of both were drawn over the same prompts, so the difference of their draws is a paired one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trimtab.analysis import estimates
from trimtab.analysis.length_probe import Bins
from trimtab.analysis.rank_correlation import Correlation, pool_seeds
from trimtab.records import Estimate
from trimtab.reporting.json_form import json_form
from trimtab.studies.length_probe.numbers import SIDES, Contrast, RunNumbers, Side, of_pairs, of_side
from trimtab.studies.length_probe.read import TrainedRun


@dataclass(frozen=True, slots=True)
class SideDifference:
    """Of the shares active, by bin, and of each correlation that both runs have."""

    active: tuple[Estimate, ...]
    correlations: Mapping[Contrast, Correlation]


@dataclass(frozen=True, slots=True)
class RunDifference:
    """First less second, shares at visit `visit`. Where they cannot be paired, `why_not` says why and there is none."""

    first: RunNumbers
    second: RunNumbers
    why_not: str | None
    visit: int
    sides: Mapping[Side, SideDifference]

    def to_json(self) -> dict[str, object]:
        numbers = {} if self.why_not else {"visit": self.visit, "sides": json_form(self.sides)}
        folders = {"first": self.first.run.folder, "other": self.second.run.folder}
        return {**folders, "why_not": self.why_not, **numbers}


def run_difference(first: RunNumbers, second: RunNumbers, bins: Bins) -> RunDifference:
    visit = min(first.run.n_visits, second.run.n_visits)
    why_not = _why_not(first.run, second.run)
    sides = {} if why_not else {side: _side(first, second, side, visit, bins) for side in SIDES}
    return RunDifference(first, second, why_not, visit, sides)


def _side(first: RunNumbers, second: RunNumbers, side: Side, visit: int, bins: Bins) -> SideDifference:
    bin_P = bins.of(first.run.length_difference_P)
    first_KP, second_KP = (of_side(numbers.run.active_KPVS[:, :, visit - 1], side) for numbers in (first, second))
    members = [bin_P == at for at in range(len(bins.labels))]
    pairs = {
        contrast: zip(correlation.by_seed, second.sides[side].correlations[contrast].by_seed, strict=True)
        for contrast, correlation in first.sides[side].correlations.items()
        if contrast in second.sides[side].correlations
    }
    return SideDifference(
        active=tuple(
            of_pairs(estimates.paired((first_KP - second_KP)[:, m], in_unit_interval=True, rows="pairs"))
            for m in members
        ),
        correlations={contrast: pool_seeds([a - b for a, b in seeds]) for contrast, seeds in pairs.items()},
    )


def _why_not(first: TrainedRun, second: TrainedRun) -> str | None:
    if first.pairs_digest != second.pairs_digest:
        return "they did not train on the same pairs"
    if first.seeds != second.seeds:
        return "they do not have the same seeds"
    if first.prompts_P != second.prompts_P:
        return "one of them did not visit all pairs that the other did"
    return None
