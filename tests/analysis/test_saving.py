"""The time saved against a dense run: worked by hand, and honest about where it comes from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from trimtab.analysis.compute_saved import saving


def step(seconds: float, *, tokens: int = 600, **shares: float) -> dict[str, Any]:
    return {"tokens": tokens, "tokens_per_second": tokens / seconds} | shares


DENSE = {"skipped_backward": 0.0, "skipped_forward": 0.0, "promoted": 0.0}


def test_dense_steps_of_the_run_give_the_dense_time() -> None:
    """Dense steps take 1, 2 and 9 s for 600 tokens, the median 2 s; the first step of all, 60 s, is warming up.

    Only the two steps that left something out are put at that speed: 2 × 1200 tokens take 8 s in place of 1.
    """
    rows = [step(60.0, **DENSE), *(step(s, **DENSE) for s in (1.0, 9.0, 2.0))]
    rows += [step(0.5, tokens=1200, skipped_backward=0.5)] * 2
    found = saving(rows)
    assert (found.method, found.n_dense_steps) == ("measured", 3)
    assert found.dense_tokens_per_second == pytest.approx(300)
    assert found.seconds == pytest.approx(73)
    assert found.dense_seconds == pytest.approx(60 + 12 + 2 * 1200 / 300)
    assert found.share == pytest.approx(7 / 80)
    assert found.ci95 is None, "two steps say nothing of their spread"
    assert found.tokens_per_second == pytest.approx(4800 / 73)


def test_screening_that_costs_more_is_told_as_a_loss() -> None:
    found = saving([step(2.0, **DENSE), step(2.0, **DENSE), step(4.0, promoted=0.9)])
    assert found.dense_seconds == pytest.approx(6)
    assert found.share == pytest.approx(1 - 8 / 6)


@pytest.mark.parametrize("shares", [{"skipped_backward": 0.1}, {"skipped_forward": 0.1}, {"promoted": 0.1}])
def test_a_step_that_leaves_out_or_repeats_anything_is_not_dense(shares: dict[str, float]) -> None:
    assert saving([step(1.0, **shares)] * 4).method == "cost model"


def test_without_a_dense_step_passes_are_counted() -> None:
    """900 tokens at 3 − 2·½ + ¼ = 2¼ and 300 at 3 − 2·1 − 1 = 0: on average 1.6875 of 3, in 9 s."""
    rows = [step(8.0, tokens=900, skipped_backward=0.5, promoted=0.25)]
    rows.append(step(1.0, tokens=300, skipped_backward=1.0, skipped_forward=1.0))
    found = saving(rows)
    assert (found.method, found.n_dense_steps, found.dense_tokens_per_second) == ("cost model", 0, None)
    assert found.dense_seconds == pytest.approx(9 * 3 / 1.6875)
    assert found.share == pytest.approx(1 - 1.6875 / 3)


def test_nothing_computed_at_all_gives_no_estimate() -> None:
    found = saving([step(1.0, skipped_backward=1.0, skipped_forward=1.0)])
    assert (found.method, found.dense_seconds, found.share) == ("cost model", None, None)


@pytest.mark.parametrize("rows", [[], [{"tokens": 5}], [step(1.0), {"tokens": 5, "tokens_per_second": float("nan")}]])
def test_rows_without_speeds_say_so(rows: list[dict[str, Any]]) -> None:
    found = saving(rows)
    assert (found.method, found.seconds, found.share) == ("unknown", None, None)


def test_the_first_step_is_no_measure() -> None:
    """It warms up: with no other dense step passes are counted, 3 and 3 − 2·.9 = 1.2 on equal tokens."""
    found = saving([step(3.0, **DENSE), step(1.0, skipped_backward=0.9)])
    assert (found.method, found.n_dense_steps) == ("cost model", 0)
    assert found.dense_seconds == pytest.approx(4 * 3 / 2.1)


@pytest.mark.parametrize("seconds", [[9.0, 1.0, 1.0, 1.0], [1.0, 1.0, 5.0, 9.0]])
def test_where_nothing_was_left_out_no_time_was_saved_or_lost(seconds: list[float]) -> None:
    """A run that never screened was told that 45 % of its time was lost: a slow first step, and noise."""
    found = saving([step(s, **DENSE) for s in seconds])
    assert (found.method, found.dense_seconds, found.share, found.ci95) == ("nothing left out", None, None, None)


def test_the_interval_holds_what_noise_explains() -> None:
    """Two kinds of step that take the same time but for noise: of 200 runs about one in twenty claims a saving."""
    draw = np.random.default_rng(1)
    n_claims = 0
    for _ in range(200):
        times = draw.uniform(0.5, 1.5, 81)
        found = saving(
            [step(float(s), **(DENSE if i % 2 else {"skipped_backward": 1e-9})) for i, s in enumerate(times)]
        )
        assert found.ci95 is not None
        n_claims += not found.ci95[0] <= 0 <= found.ci95[1]
    assert n_claims <= 18  # 10 expected; a chance of 1 % above 17


def test_what_is_really_saved_is_inside_the_interval_and_above_zero() -> None:
    draw = np.random.default_rng(2)
    rows = [step(float(s), **DENSE) for s in draw.lognormal(0, 0.1, 40)]
    rows += [step(0.5 * float(s), skipped_backward=0.7) for s in draw.lognormal(0, 0.1, 40)]
    found = saving(rows)
    assert found.ci95 is not None
    assert 0.15 < found.ci95[0] < found.share < found.ci95[1] < 0.35  # 20 s of 80
