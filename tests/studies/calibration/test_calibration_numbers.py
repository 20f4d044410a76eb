"""Intervals of `trimtab calibrate` stay within what their number can be, however few pairs and seeds there are."""

from __future__ import annotations

import numpy as np
import pytest

from trimtab.analysis.token_calibration import Predictions, tabulate
from trimtab.records import Estimate
from trimtab.studies.calibration.numbers import Measures, measure
from trimtab.studies.calibration.read import SeedReadings
from trimtab.studies.calibration.words import _confidence_verdict, _token_verdict

N_PAIRS = 12


def readings(gap: float, *, right: int, seed: int) -> SeedReadings:
    """A seed whose gaps are `gap` nats on the first `right` of 12 pairs and the opposite on the others."""
    rng = np.random.default_rng(seed)
    responses = [
        Predictions(-rng.exponential(size=3), rng.random(3), rng.integers(0, 2, 3).astype(float), rng.random(3))
        for _ in range(N_PAIRS)
    ]
    table = tabulate(responses)
    gaps_P = np.where(np.arange(N_PAIRS) < right, gap, -gap)
    flat_P = np.full(N_PAIRS, 3.0)
    return SeedReadings(
        gaps_before_P=None, gaps_after_P=gaps_P, reference=table, policy=table, divergence_P=rng.random(N_PAIRS) * seed,
        rejected_ratio_P=rng.standard_normal(N_PAIRS), rejected_tokens_P=flat_P,
    )  # fmt: skip


def shares(measures: Measures) -> dict[str, tuple[Estimate, float, float]]:
    gaps, side, change = measures.gaps_after, measures.policy, measures.change
    return {
        "accuracy": (gaps.accuracy, 0, 1),
        "confidence": (gaps.confidence, 0, 1),
        "over-confidence": (gaps.over_confidence, -0.5, 1),
        "Brier": (gaps.brier, 0, 1),
        "token accuracy": (side.accuracy, 0, 1),
        "token over-confidence": (side.over_confidence, -1, 1),
        "token Brier": (side.brier, 0, 1),
        "nll": (side.nll, 0, np.inf),
        "perplexity": (side.perplexity, 1, np.inf),
        "entropy": (side.entropy, 0, np.inf),
        "change of accuracy": (change.accuracy, -1, 1),
        "divergence": (measures.drift.divergence, 0, np.inf),
    }


def test_two_seeds_that_disagree_stay_within_bounds() -> None:
    """One seed is sure and right on all of 12 pairs, the other sure and wrong: ± 156 points were printed."""
    measures = measure([readings(4.0, right=12, seed=1), readings(4.0, right=0, seed=9)])
    for name, (estimate, least, most) in shares(measures).items():
        if estimate.ci95 is not None:
            low, high = estimate.ci95
            assert least <= low <= high <= most, name
    assert measures.gaps_after.over_confidence.ci95 is not None


@pytest.mark.parametrize(("gap", "verdict"), [(4.0, "not distinguishable"), (0.05, "under-confident")])
def test_pairs_that_are_all_right_alike_are_no_proof_of_doubt(gap: float, verdict: str) -> None:
    """12 of 12 right at a confidence of 98 %: 12 tosses of such a coin. At 51 % they are too many."""
    measures = measure([readings(gap, right=12, seed=1)])
    assert verdict in _confidence_verdict(measures.gaps_after)[0]


@pytest.mark.parametrize(
    ("value", "ci95", "n", "says"),
    [
        (-0.1, (-0.2, -0.05), 12, "**better**"),
        (0.1, (0.05, 0.2), 12, "**worse**"),
        (0.1, (-0.05, 0.2), 12, "**not distinguishable**"),
        (-0.1, (-0.2, -0.05), 4, "**too few responses**"),
        (-0.1, None, 1, "**too few responses**"),
        (0.0, None, 12, "to the last digit"),
    ],
)
def test_a_change_of_the_next_token_is_a_finding_only_on_enough_responses(
    value: float, ci95: tuple[float, float] | None, n: int, says: str
) -> None:
    assert says in _token_verdict(Estimate(value, ci95, n, ""))[0]
