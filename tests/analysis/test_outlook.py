"""The outlook's arithmetic by hand: constant rates, pairs of one step that are all alike, a hinge of one nat."""

from __future__ import annotations

import json

import numpy as np
import pytest

from trimtab.analysis.outlook import EarlyVisits, Outlook, outlook, tries

STEPS, RATE, REACH = 20, 0.1, 1.0  # steps, a step, nats


def visits(*, chosen: float, rejected: float, at: int = 2, steps: int = STEPS, n: int = 16) -> EarlyVisits:
    """Pairs seen at step `at` (0-based), after `at` updates; each side is active until it has moved REACH."""

    def shares(factors: np.ndarray) -> tuple[float, float]:
        return float(chosen * factors[0] < REACH), float(-rejected * factors[0] < REACH)

    return EarlyVisits(
        rates_T=np.full(steps, RATE),
        steps_V=np.full(n, at),
        chosen_V=np.full(n, chosen),
        rejected_V=np.full(n, rejected),
        sides_K=np.ones((at + 1, 2)),
        shares=shares,
        reach=REACH,
        has_dead_zone=True,
    )


def test_log_ratios_grow_with_the_sum_of_the_rates() -> None:
    """.1 nat at a distance of .2; the last tenth of the steps are 18 and 19, whose mean distance is 1.85."""
    result = outlook(visits(chosen=0.1, rejected=-0.05))
    assert result is not None
    growth = (0.8, 1.0, 1.2)
    assert result.chosen == pytest.approx([0.1 * 9.25**g for g in growth])  # .593, .925, 1.444
    assert result.rejected == pytest.approx([-0.05 * 9.25**g for g in growth])
    assert (result.step, result.steps, result.reach) == (3, 20, 1.0)


def test_the_regime_is_the_one_that_the_extrapolated_shares_have() -> None:
    """Slow and middle stay below one nat to the end. Fast passes it at .1·(t/2)^1.2 = 1, t = 13.6, on one side."""
    result = outlook(visits(chosen=0.1, rejected=-0.05))
    assert result is not None
    assert result.regimes == ("linear", "linear", "selective")
    assert result.share_at_end == pytest.approx((1.0, 1.0, 0.5))
    assert not result.is_decided


def test_a_remedy_is_the_factor_that_is_missing() -> None:
    """.02 nat becomes .02·9.25^g at the end. Both sides have to get to 1 nat, or one: a share of .5 is below .8, so the
    nearer one decides: β by 1/(.02·9.25^g), the rate by its 1/g-th power."""
    result = outlook(visits(chosen=0.02, rejected=-0.01))
    assert result is not None
    assert result.regimes == ("linear",) * 3
    assert result.is_decided
    assert result.remedy is not None
    betas = [1 / (0.02 * 9.25**g) for g in (1.2, 1.0, 0.8)]
    assert result.remedy.beta == pytest.approx(betas, rel=1e-3)  # 3.46, 5.41, 8.43
    assert result.remedy.rate == pytest.approx([betas[0] ** (1 / 1.2), betas[1], betas[2] ** (1 / 0.8)], rel=1e-3)


def test_sides_that_move_the_wrong_way_have_no_remedy() -> None:
    result = outlook(visits(chosen=-0.1, rejected=0.1))
    assert result is not None
    assert (result.regime, result.remedy) == ("linear", None)


def test_a_run_that_starves_is_told_to_keep_more_of_its_pull() -> None:
    """At a distance of .2 one nat is reached; at the end 9.25 are, so β may be at most 1/9.25 of what it is."""
    result = outlook(visits(chosen=0.999, rejected=-0.999))
    assert result is not None
    assert result.regime == "starved"
    assert result.remedy is not None
    assert result.remedy.beta[1] == pytest.approx(1 / (0.999 * 9.25), rel=1e-3)


def test_no_outlook_from_next_to_no_way() -> None:
    """The whole distance is 9.9: 30 times .33, so nothing is said before an update 4 of 100; nor from 15 pairs."""
    assert outlook(visits(chosen=0.1, rejected=-0.1, at=0)) is None
    assert outlook(visits(chosen=0.1, rejected=-0.1, at=3, steps=100)) is None
    assert outlook(visits(chosen=0.1, rejected=-0.1, at=4, steps=100)) is not None
    assert outlook(visits(chosen=0.1, rejected=-0.1, at=4, steps=100, n=15)) is None


def test_tries_are_shares_of_the_distance() -> None:
    """Of 300 equal steps: 10, 15, 30 and 60 updates, and one more row that shows them; of single pairs 16 and one."""
    assert tries(np.full(300, RATE), batch_pairs=8) == [11, 16, 31, 61]
    assert tries(np.full(300, RATE), batch_pairs=1) == [17, 31, 61]
    assert tries(np.full(2, RATE), batch_pairs=8) == []


def test_an_outlook_is_kept_as_it_is() -> None:
    for result in (outlook(visits(chosen=0.02, rejected=-0.01)), outlook(visits(chosen=-0.1, rejected=0.1))):
        assert result is not None
        assert Outlook.from_json(json.loads(json.dumps(result.to_json()))) == result
