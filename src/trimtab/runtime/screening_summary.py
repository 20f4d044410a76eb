"""What screening and shrinking did with the responses of a run, as `screening.json` and the report have it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trimtab.engine import evaluation
from trimtab.engine.reference import Reference
from trimtab.engine.response_sums import weighted_sums
from trimtab.engine.scoring import Scorer
from trimtab.engine.screening import Forecast
from trimtab.engine.shrinking import Shrinking, active
from trimtab.objectives import Objective
from trimtab.progress import Reporter
from trimtab.records import TokenPair


@dataclass(frozen=True, slots=True)
class ScreeningSummary:
    """Responses by what was done with them, over all visits. Of shrinking: visits that were passed over, re-checks, and
    how many of those found a response active."""

    steps: int
    responses_screened: int
    promoted: int
    shrinking: Shrinking | None

    def to_json(self) -> dict[str, Any]:
        tree: dict[str, Any] = {
            "mode": "screening" if self.shrinking is None else "shrinking",
            "steps": self.steps,
            "responses_screened": self.responses_screened,
            "promoted": self.promoted,
        }
        if self.shrinking is None:
            return tree
        counts = {"shrunk_visits": self.shrinking.skipped, "rechecked": self.shrinking.rechecked}
        return tree | counts | {"missed": self.shrinking.missed}


def summarise(forecast: Forecast, shrinking: Shrinking | None, *, steps: int) -> ScreeningSummary:
    return ScreeningSummary(steps, forecast.screened, forecast.promoted, shrinking)


def recheck_pending(
    shrinking: Shrinking,
    train: Sequence[TokenPair],
    *,
    scorer: Scorer,
    objective: Objective,
    reference: Reference | None,
    pack_tokens: int,
    reporter: Reporter,
) -> None:
    """The last look at responses that were passed over at their last visit, so that the missed are of all of them.

    train: all pairs, which the indices of `shrinking` count.
    """
    indices = shrinking.pending
    if not indices:
        return
    pairs = [train[i] for i in indices]
    with reporter.track("re-check", total=2 * len(pairs), unit="responses") as advance:
        policy_R = evaluation.score(scorer, pairs, objective=objective, pack_tokens=pack_tokens, advance=advance)
    reference_R = None if reference is None else weighted_sums(reference.of_pairs(pairs), pairs, objective)
    shrinking.recheck(indices, active(objective, evaluation.log_ratios(policy_R, reference_R, pairs)))
