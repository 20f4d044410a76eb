"""The regime of a run, from its rows."""

from __future__ import annotations

import numpy as np
import pytest

from trimtab.analysis.regime import name_regime
from trimtab.errors import DataError


def rows(chosen: list[float], rejected: list[float], prefix: str = "active") -> list[dict[str, float]]:
    return [{f"{prefix}/chosen": c, f"{prefix}/rejected": r} for c, r in zip(chosen, rejected, strict=True)]


def test_all_active_to_the_end_is_linear() -> None:
    told = name_regime(rows([1.0] * 100, [0.96] * 100))
    assert told.name == "linear"
    assert told.share_at_end == pytest.approx(0.98)
    assert "98% of the responses (chosen 100%, rejected 96%)" in told.sentence


def test_one_side_that_leaves_is_selective() -> None:
    told = name_regime(rows([1.0] * 100, np.linspace(1, 0.2, 100).tolist()))
    assert told.name == "selective"
    assert told.chosen_at_end == 1.0
    assert told.rejected_at_end == pytest.approx(0.2 + 0.8 * 4.5 / 99)  # mean of the last ten of 100


def test_one_side_empty_is_not_starved() -> None:
    assert name_regime(rows([1.0] * 100, [0.0] * 100)).name == "selective"


def test_nothing_left_before_half_time_is_starved() -> None:
    told = name_regime(rows([1.0] * 20 + [0.0] * 80, [1.0] * 20 + [0.0] * 80))
    assert told.name == "starved"
    assert "by step 30 of 100" in told.sentence  # the first ten steps in a row whose mean is below 5 %


def test_a_dip_that_passes_starves_nobody() -> None:
    """A tenth of the run without an active response, and 60 % active at the end: there was something to learn from."""
    chosen = [1.0] * 20 + [0.0] * 12 + [0.6] * 68
    regime = name_regime(rows(chosen, chosen))
    assert regime.name == "selective"
    assert regime.share_at_end == pytest.approx(0.6)


def test_a_sentence_claims_only_what_the_shares_say() -> None:
    """Not that a goal was reached (a diverged run is past its margins too), nor that the policy stayed where it was."""
    linear = name_regime(rows([1.0] * 50, [1.0] * 50)).sentence
    selective = name_regime(rows([1.0] * 50, [0.2] * 50)).sentence
    unnamed = name_regime(rows([1.0] * 50, [0.0] * 50), has_dead_zone=False).sentence
    assert "neighbourhood" not in linear
    assert "before the last updates" in linear
    assert "goal" not in selective
    assert "every response" not in unnamed  # sft has none on the rejected side


def test_nothing_left_after_half_time_is_selective() -> None:
    assert name_regime(rows([1.0] * 55 + [0.0] * 45, [1.0] * 55 + [0.0] * 45)).name == "selective"


def test_one_small_batch_does_not_decide() -> None:
    chosen = [1.0] * 100
    chosen[70] = 0.8
    assert name_regime(rows(chosen, [1.0] * 100)).name == "linear"


def test_a_run_that_came_back_was_not_linear() -> None:
    chosen = [1.0] * 40 + [0.5] * 20 + [1.0] * 40
    assert name_regime(rows(chosen, chosen)).name == "selective"


@pytest.mark.parametrize("n", [1, 2, 3, 9])
def test_short_runs(n: int) -> None:
    assert name_regime(rows([1.0] * n, [1.0] * n)).name == "linear"
    assert name_regime(rows([0.5] * n, [1.0] * n)).name == "selective"


def test_a_loss_without_dead_zone_says_so() -> None:
    told = name_regime(rows([1.0] * 50, [1.0] * 50), has_dead_zone=False)
    assert told.name == "no dead zone"
    assert "no dead zone" in told.sentence


def test_a_loss_without_dead_zone_is_named_by_its_pull() -> None:
    fading = [a | p for a, p in zip(rows([1.0] * 50, [1.0] * 50), rows([0.9] * 50, [0.4] * 50, "pull"), strict=True)]
    told = name_regime(fading, has_dead_zone=False)
    assert told.name == "selective"
    assert told.share_at_end == pytest.approx(0.65)


def test_rows_that_cannot_tell_are_refused() -> None:
    with pytest.raises(DataError, match="no training step"):
        name_regime([])
    with pytest.raises(DataError, match="metrics row 2 lacks active/chosen or active/rejected"):
        name_regime([{"active/chosen": 1.0, "active/rejected": 1.0}, {"active/chosen": 1.0}])
