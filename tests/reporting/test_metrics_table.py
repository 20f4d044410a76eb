"""`metrics.jsonl` as a table: what counts as a number, curves in stretches, epochs by their rows."""

from __future__ import annotations

import math

from trimtab.reporting.metrics import POINTS, Metrics


def test_what_is_no_finite_number_is_absent() -> None:
    metrics = Metrics(({"loss": 1.0}, {"loss": None}, {"loss": math.nan}, {"loss": "high"}, {"loss": 3}))
    assert metrics.values("loss") == [1.0, 3]
    assert metrics.mean("loss") == 2.0
    assert metrics.mean("grad_norm") is None
    assert metrics.last("loss") == 3


def test_curves_are_means_over_stretches_of_equal_length() -> None:
    metrics = Metrics(tuple({"step": step, "loss": float(step)} for step in range(1, 2 * POINTS + 1)))
    curves = metrics.curves(("loss", "grad_norm"))
    assert list(curves) == ["step", "loss"]
    assert len(curves["loss"]) == POINTS
    assert curves["loss"][:2] == [1.5, 3.5]


def test_an_epoch_ends_with_the_row_that_completes_it() -> None:
    epochs = (0.5, 1.0 + 1e-12, 1.5, 2.0, None)  # a division may leave a little behind the 1
    rows = Metrics(tuple({"epoch": epoch, "n": k} for k, epoch in enumerate(epochs))).by_epoch()
    assert {epoch: part.values("n") for epoch, part in rows.items()} == {1: [0, 1], 2: [2, 3]}
