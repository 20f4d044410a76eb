"""Rows made by hand: each kind of trouble is told once, at its step, with its cause; one that learns is left alone."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from trimtab.analysis.symptoms import MEMORY, Kind, Symptom, SymptomWatch, TrainingOutline, symptoms

COURSE = TrainingOutline(
    total=100, warmup=10, step_zero=2.0, beta=0.5, needs_reference=True, has_dead_zone=True, dtype="float32"
)


def course(**changed: Any) -> TrainingOutline:
    return TrainingOutline(**({name: getattr(COURSE, name) for name in TrainingOutline.__slots__} | changed))


def learning(steps: int = 100, *, rate: float = 1e-4, seed: int = 0) -> list[dict[str, float]]:
    """A hinge that goes well: the loss falls from 2 to 1 with the noise of its batches."""
    rng = random.Random(seed)  # noqa: S311  # test data
    rows: list[dict[str, float]] = []
    for step in range(1, steps + 1):
        done = (step - 1) / steps
        noise = 0.0 if step == 1 else rng.gauss(0, 0.08)
        rows.append({
            "step": step, "loss": 2.0 - done + noise, "grad_norm": 1.0 + noise, "learning_rate": rate,
            "rewards/chosen": 0.4 * done, "rewards/rejected": -0.6 * done, "active/chosen": 1.0,
            "active/rejected": 1.0 - 0.8 * done, "active/pair": 1.0,
            "pull/chosen": 1.0, "pull/rejected": 1.0 - 0.8 * done,
        })  # fmt: skip
    return rows


def told(rows: list[dict[str, float]], course: TrainingOutline = COURSE) -> list[tuple[Kind, int]]:
    return [(one.kind, one.step) for one in symptoms(rows, course)]


def only(rows: list[dict[str, float]], course: TrainingOutline = COURSE) -> Symptom:
    (found,) = symptoms(rows, course)
    return found


@pytest.mark.parametrize("seed", range(20))
def test_a_run_that_learns_is_left_alone(seed: int) -> None:
    assert told(learning(seed=seed)) == []


def test_one_batch_far_out_is_no_trouble() -> None:
    rows = learning()
    rows[40]["loss"] = 9.0
    assert told(rows) == []


def test_a_climbing_loss_names_the_rate_and_the_warm_up() -> None:
    rows = learning()
    for row in rows[5:]:
        row["loss"] = 3.0
    assert told(rows) == [("climbing", 8)]  # 3 of 5 losses: the median is one of them
    assert "still in its warm-up of 10 steps" in only(rows).cause
    assert "warm-up of 0 steps too short" in only(rows, course(warmup=0)).cause
    late = learning()
    for row in late[60:]:
        row["loss"] = 3.0
    assert told(late) == [("climbing", 63)]
    assert only(late).cause == "the learning rate is too high (0.0001 at this step)"
    assert "Lower train.learning_rate" in only(late).remedy


def test_a_rise_is_measured_in_the_objectives_own_unit() -> None:
    rows = learning()
    for row in rows:
        row["loss"] += 1998.0  # the hinge with margin 1,000
    for row in rows[50:]:
        row["loss"] = 2001.0
    assert told(rows, course(step_zero=2000.0)) == [("climbing", 53)]
    tiny = [row | {"loss": 0.002 + 0.03 * (row["step"] > 1)} for row in learning()]
    assert told(tiny, course(step_zero=0.002)) == []  # ten times its start, and nothing


def test_a_start_that_the_data_decide_is_known_less_well() -> None:
    """Losses of two SimPO runs of the embedded world: at the recipe's learning rate, and at twenty times that."""
    clean = [.61, .59, .66, .87, .59, .69, .76, .54, .93, .66, .84, .5, .9, .6, .62, .62, .69, .69, .56]  # fmt: skip
    wild = [.64, .55, .74, .62, .71, .91, .54, .81, 1.0, 1.36, 1.23, 1.21, 1.18, 1.31, 1.21, 1.61, 1.11]  # fmt: skip
    seen = course(step_zero=None, needs_reference=False, has_dead_zone=False)
    assert told([row | {"loss": loss} for row, loss in zip(learning(), clean, strict=False)], seen) == []
    rows = [row | {"loss": loss} for row, loss in zip(learning(), wild, strict=False)]
    assert told(rows, seen) == [("climbing", 12)]
    assert "from 0.64 at first" in only(rows, seen).observation


def test_a_jump_that_comes_back_is_told_once_with_its_step() -> None:
    rows = learning()
    rows[40]["loss"] = rows[41]["loss"] = 6.0
    assert told(rows) == [("spike", 41)]
    assert "visits.jsonl" in only(rows).remedy


@pytest.mark.parametrize(
    ("changed", "share", "loss", "cause"),
    [
        ({}, "active", 0.3, "the dead zone begins near"),
        ({"has_dead_zone": False}, "pull", 0.3, "beta is large"),
        ({"has_dead_zone": False}, "pull", 2.0, "the learning rate is too high"),
    ],
)
def test_starvation_names_its_cause(changed: dict[str, Any], share: str, loss: float, cause: str) -> None:
    rows = learning()
    for row in rows[20:]:
        row |= {f"{share}/chosen": 0.0, f"{share}/rejected": 0.0, "loss": loss}
    found = only(rows, course(**changed))
    assert found.kind == "starved"
    assert 28 <= found.step <= 30  # a tenth of the run after step 20
    assert cause in found.cause


def test_what_is_done_after_half_of_the_run_has_not_starved() -> None:
    rows = learning()
    for row in rows[45:]:
        row |= {"active/chosen": 0.0, "active/rejected": 0.0}
    assert told(rows) == []


def test_a_dip_that_passes_has_starved_nobody() -> None:
    """Next to nothing from step 21 to 40, and six of ten responses active from then on: said live, not later."""
    rows = learning()
    for row in rows[20:40]:
        row |= {"active/chosen": 0.0, "active/rejected": 0.0, "loss": 0.3}
    for row in rows[40:]:
        row |= {"active/chosen": 0.6, "active/rejected": 0.6}
    assert told(rows) == []
    watch = SymptomWatch(COURSE)
    assert [symptom.kind for row in rows for symptom in watch.check(row)] == ["starved"]


def still(**changed: float) -> list[dict[str, float]]:
    return [row | {"rewards/chosen": 0.0, "rewards/rejected": 0.0, "loss": 2.0, "pull/rejected": 1.0} | changed
            for row in learning()]  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "rows", "kind", "cause"),
    [
        ({}, still(grad_norm=0.0), "frozen", "frozen"),
        ({}, still(learning_rate=1e-12), "unmoved", "the learning rate is too small"),
        ({"dtype": "bfloat16"}, still(learning_rate=1e-7), "unmoved", "bfloat16"),
        ({}, still(learning_rate=1e-4), "unmoved", "one and the same model"),
        ({"needs_reference": False, "step_zero": None}, still(learning_rate=1e-13), "unmoved", "too small"),
    ],
)  # fmt: skip
def test_what_stands_still_names_its_cause(
    changed: dict[str, Any], rows: list[dict[str, float]], kind: Kind, cause: str
) -> None:
    found = only(rows, course(**changed))
    assert found.kind == kind
    assert cause in found.cause
    assert found.sentence.startswith(found.observation)


def test_nothing_pulls_so_nothing_is_frozen() -> None:
    rows = still(grad_norm=0.0, **{"active/pair": 0.0, "active/chosen": 0.0, "active/rejected": 0.0})
    assert told(rows) == [("starved", 10)]


def test_rounding_before_the_first_update_is_not_movement() -> None:
    """bfloat16 gives log-ratios of some hundredths to a policy that equals its reference."""
    rows = [row | {"rewards/chosen": 0.02, "rewards/rejected": -0.01} for row in still(learning_rate=1e-12)]
    assert told(rows) == [("unmoved", 20)]
    assert told([row if row["step"] == 1 else row | {"rewards/chosen": 0.2} for row in rows]) == []


def test_each_kind_is_told_once_and_rows_with_holes_are_passed_over() -> None:
    rows = still(learning_rate=1e-12)
    for row in rows[50:]:
        row["loss"] = 4.0
    assert [kind for kind, _ in told(rows)] == ["unmoved", "climbing"]
    holes: list[dict[str, Any]] = [{"step": 1}, {"step": 2, "loss": None}, {"step": 3, "loss": float("nan")}]
    assert told(holes) == []


def test_a_row_costs_the_same_however_many_went_before() -> None:
    """What is held is bounded: by windows of a few steps, and of a tenth of the run."""
    watch = SymptomWatch(COURSE)
    row = learning()[-1]
    for step in itertools.islice(itertools.count(1), 5000):
        watch.check(row | {"step": step})
    held = [value for detector in watch._detectors for value in vars(detector).values() if hasattr(value, "__len__")]
    assert held
    assert all(len(value) <= MEMORY for value in held)
