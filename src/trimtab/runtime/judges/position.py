"""Whether the judge follows the place in which an answer is shown, rather than the answer."""

from __future__ import annotations

from collections.abc import Sequence

from trimtab.analysis.winrate import win_rate


def position_note(shown_first: Sequence[float], shown_second: Sequence[float], *, both_orders: bool) -> str | None:
    """What must be said where the model wins surely more, or less, in one place than in the other.

    Preferences for the model (1 to 2) by where its answer was shown. Which that was is a coin tossed with the
    instruction, or both in turn, so that a sound judge's two rates differ by chance alone: their Wilson intervals
    (95 %) do not overlap in fewer than 1 of 100 sound cases.
    """
    if not shown_first or not shown_second:
        return None
    first, second = win_rate(shown_first), win_rate(shown_second)
    if first.ci95[0] <= second.ci95[1] and second.ci95[0] <= first.ci95[1]:
        return None
    remedy = "the mean of both orders is what counts" if both_orders else "--both-orders takes the mean of both"
    return (
        f"the judge follows the position: the model wins {first.win_rate:.0f} % where its answer is shown first and "
        f"{second.win_rate:.0f} % where it is shown second ({first.n_total:,} and {second.n_total:,} comparisons); "
        f"{remedy}"
    )
