"""What a person's choices add up to. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from trimtab.analysis.comparison import MIN_COMMON, NOT_DISTINGUISHABLE
from trimtab.analysis.intervals import NO_INTERVAL, Interval, finite, rate_p_value, wilson_interval
from trimtab.analysis.winrate import WinRate, scores_from, win_rate
from trimtab.records import Verdict
from trimtab.studies.arena import Outcome

NOTHING_JUDGED = "nothing was judged"


@dataclass(frozen=True, slots=True)
class ArenaNumbers:
    """`rate` (percent) is of B over A; ties of any kind are half a win. `p_value` is of a rate of 50, by the test that
    the rate's interval inverts; neither is given below `comparison.MIN_COMMON` prompts. `n_judged` choices were made
    by a person:
    `n_ties` ties and `n_both_bad` ties with a reason among them; `n_identical` answers were nobody's to judge.
    A skipped prompt is missing; one that was not reached is neither: the order is random. `n_left` of the `n_decided`
    choices of a side were of the left one. `file` holds the verdicts, where there are any.
    """

    a: str
    b: str
    judge: str
    rate: WinRate
    p_value: float
    n_judged: int
    n_ties: int
    n_both_bad: int
    n_identical: int
    n_skipped: int
    n_not_reached: int
    n_left: int
    n_decided: int
    median_seconds: float | None
    file: Path | None = None

    @property
    def has_rate(self) -> bool:
        return self.rate.n_total > 0

    @property
    def verdict(self) -> str:
        """As `comparison.compare` words it, on the interval that is shown."""
        low, high = self.rate.ci95
        if not self.has_rate:
            return NOTHING_JUDGED
        if self.rate.n_total < MIN_COMMON:
            return f"{NOT_DISTINGUISHABLE} (only {self.rate.n_total} prompts)"
        if low > 50:
            return f"{self.b} is better"
        return f"{self.a} is better" if high < 50 else NOT_DISTINGUISHABLE

    @property
    def left_share(self) -> float | None:
        """Percent; None where no side was chosen."""
        return 100 * self.n_left / self.n_decided if self.n_decided else None

    @property
    def left_ci95(self) -> Interval | None:
        if not self.n_decided:
            return None
        low, high = wilson_interval(self.n_left, n=self.n_decided)
        return 100 * low, 100 * high

    def to_json(self) -> dict[str, Any]:
        return {
            "a": self.a,
            "b": self.b,
            "judge": self.judge,
            "verdict": self.verdict,
            "win_rate": finite(self.rate.win_rate),
            "ci95": [finite(end) for end in self.rate.ci95],
            "p_value": finite(self.p_value),
            "n_judged": self.n_judged,
            "wins_a": self.rate.n_losses,
            "wins_b": self.rate.n_wins,
            "ties": self.n_ties,
            "both_bad": self.n_both_bad,
            "identical": self.n_identical,
            "skipped": self.n_skipped,
            "not_reached": self.n_not_reached,
            "n_decided": self.n_decided,
            "left_share": self.left_share,
            "left_ci95": None if self.left_ci95 is None else list(self.left_ci95),
            "median_seconds": self.median_seconds,
            "file": None if self.file is None else str(self.file),
        }


def numbers_of(
    outcomes: Sequence[Outcome], *, names: tuple[str, str], judge: str, file: Path | None = None
) -> ArenaNumbers:
    """Everything known. `names` are those of A and B."""
    with_verdict = [outcome for outcome in outcomes if outcome.preference is not None]
    choices = [outcome.choice for outcome in with_verdict if outcome.choice is not None]
    picks = [choice.pick for choice in choices]
    preferences = [outcome.preference for outcome in with_verdict]
    rate, p_value = win_rate(preferences), rate_p_value(scores_from(preferences))
    if rate.n_total < MIN_COMMON:
        rate, p_value = replace(rate, ci95=NO_INTERVAL), math.nan
    return ArenaNumbers(
        a=names[0],
        b=names[1],
        judge=judge,
        rate=rate,
        p_value=p_value,
        n_judged=len(choices),
        n_ties=picks.count("tie"),
        n_both_bad=picks.count("both bad"),
        n_identical=sum(outcome.match.identical for outcome in with_verdict),
        n_skipped=sum(outcome.was_skipped and outcome.preference is None for outcome in outcomes),
        n_not_reached=sum(not outcome.was_reached for outcome in outcomes),
        n_left=picks.count("left"),
        n_decided=picks.count("left") + picks.count("right"),
        median_seconds=median(choice.seconds for choice in choices) if choices else None,
        file=file,
    )


def rows(outcomes: Sequence[Outcome], *, names: tuple[str, str], judge: str) -> list[dict[str, Any]]:
    """AlpacaEval's annotation form, output_1 = A, output_2 = B, with what was chosen beside it.

    Prompts that were not reached are left out; a skipped one has the preference null, which counts as missing.
    """
    return [
        _row(outcome, names, judge) for outcome in outcomes if outcome.preference is not None or outcome.was_skipped
    ]


def _row(outcome: Outcome, names: tuple[str, str], judge: str) -> dict[str, Any]:
    match, choice = outcome.match, outcome.choice
    verdict = Verdict(
        prompt_id=match.prompt_id,
        instruction="\n\n".join(match.prompt),
        output_1="\n\n".join(match.first),
        output_2="\n\n".join(match.second),
        generator_1=names[0],
        generator_2=names[1],
        annotator=judge,
        preference=outcome.preference,
        dataset=match.dataset,
    )
    return verdict.to_json() | {
        "choice": choice.pick if choice else "identical" if match.identical else "skipped",
        "shown_left": None if choice is None else "output_1" if choice.first_on_left(match) else "output_2",
        "seconds": None if choice is None else round(choice.seconds, 3),
        "turns": len(match.prompt),
    }
