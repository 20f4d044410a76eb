"""Bytes and seconds of several processes, by hand."""

from __future__ import annotations

import pytest

from trimtab.engine.communication import saved_bytes, seconds_a_step, sent_bytes


@pytest.mark.parametrize(("shard", "sent"), [("none", 600), ("optimizer", 750), ("gradients", 450)])
def test_bytes_sent_in_a_step(shard: str, sent: int) -> None:
    """400 bytes of gradients, 200 of weights, four processes: 2·¾·400; that and ¾·200; ¾·(400 + 200)."""
    assert sent_bytes(shard, gradients=400, weights=200, size=4) == sent  # type: ignore[arg-type]  # the parameters


@pytest.mark.parametrize(("shard", "saved"), [("none", 0), ("optimizer", 600), ("gradients", 150)])
def test_bytes_saved_at_the_peak(shard: str, saved: int) -> None:
    """800 bytes of moments, of which a quarter stays: 600; less a slice of the weights (50) and a buffer of 400."""
    assert saved_bytes(shard, optimizer=800, gradients=400, weights=200, size=4) == saved  # type: ignore[arg-type]


def test_seconds_of_a_step() -> None:
    """8 s by four processes, the fullest a tenth above the mean: 2.2 s; 600 bytes at 300 a second: 2 s."""
    assert seconds_a_step(compute=8.0, imbalance=0.1, traffic=600, link=300.0, size=4) == pytest.approx(4.2)
