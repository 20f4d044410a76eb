"""The outlook was right in nine of ten runs of the embedded world, on each half of them."""

from __future__ import annotations

import pytest
from experiments.outlook_runs import SHORT, case, points

from trimtab import store


def right(first: int) -> int:
    """Of every second run from `first` on."""
    cases = [case(row) for row in store.read_jsonl(SHORT)[first::2]]
    assert (len(cases), {run_case.regime for run_case in cases}) == (50, {"linear", "selective"})
    return sum(run_case.is_right for run_case in cases)


def test_the_half_of_the_runs_on_which_growth_was_not_chosen() -> None:
    assert right(1) >= 45


@pytest.mark.slow
def test_the_half_of_the_runs_on_which_growth_was_chosen() -> None:
    assert right(0) >= 45


def test_the_points_are_those_of_the_committed_runs() -> None:
    rows = store.read_jsonl(SHORT)
    for point, row in zip(points(), rows, strict=True):
        assert (row["objective"], row["adapter"]) == (point["objective"], point["adapter"]["kind"])
        assert row["learning_rate"] == point["train"]["learning_rate"]
