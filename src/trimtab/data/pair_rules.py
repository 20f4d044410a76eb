"""Which pairs several scored responses to one prompt make. Pure.

    best_worst   the widest gap: the best response against the worst
    all          every two responses, the better one chosen
    adjacent     each response against the next worse one

Two responses with the same score are never a pair.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Literal, assert_never

Rule = Literal["best_worst", "all", "adjacent"]
LENGTH_RATIO = 1.25  # of length-matched pairs: the longer response over the shorter, in characters, at most


@dataclass(frozen=True, slots=True)
class RulePairs:
    """`places`: (better, worse), as places among the scores. `n_ties`: candidates of the rule that were no further
    apart than they must be; `n_unmatched`: candidates that were not allowed."""

    places: tuple[tuple[int, int], ...]
    n_ties: int
    n_unmatched: int = 0


def pairs_by_rule(
    scores: Sequence[float],
    *,
    rule: Rule,
    least_gap: float = 0.0,
    is_allowed: Callable[[int, int], bool] = lambda _better, _worse: True,
) -> RulePairs:
    """The pairs of one prompt's responses. Equal scores are never a pair, nor are scores less than `least_gap` apart.

    Of equal scores the earlier one counts as the better, so that the result is a function of the order. `is_allowed`
    may refuse two responses (their lengths differ); `best_worst` then takes the widest gap among those that it allows.
    """
    order = sorted(range(len(scores)), key=lambda place: -scores[place])  # stable
    match rule:
        case "best_worst" | "all":
            candidates = list(combinations(order, 2))
        case "adjacent":
            candidates = list(pairwise(order))
        case _:
            assert_never(rule)
    alike = [pair for pair in candidates if is_allowed(*pair)]
    if rule == "best_worst" and alike:
        alike = [max(alike, key=lambda pair: scores[pair[0]] - scores[pair[1]])]
    apart = tuple(pair for pair in alike if 0 < scores[pair[0]] - scores[pair[1]] >= least_gap)
    n_unmatched = int(bool(candidates) and not alike) if rule == "best_worst" else len(candidates) - len(alike)
    return RulePairs(apart, n_ties=len(alike) - len(apart), n_unmatched=n_unmatched)
