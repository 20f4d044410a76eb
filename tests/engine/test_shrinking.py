"""Shrinking: who is passed over, for how long, what a re-check counts, and when it becomes more careful."""

from __future__ import annotations

import json
import random

import torch
from torch import Tensor

from trimtab.engine.shrinking import LEAST_MOVES, MOST_SKIPS, WINDOW, Shrinking, active
from trimtab.objectives import ApoHingeZero, DpoHinge, LogRatios, Objective

HINGE = ApoHingeZero(beta=0.5, margin=1.0)  # dead from r_w ≥ 2 and r_l ≤ −2 nats


def _seen(chosen: list[float], rejected: list[float]) -> LogRatios:
    n = len(chosen)
    lengths = torch.full((n,), 5)
    return LogRatios(torch.tensor(chosen), torch.tensor(rejected), torch.zeros(n), torch.zeros(n), lengths, lengths)


def _visit(shrinking: Shrinking, pair: int, chosen: float, rejected: float, objective: Objective = HINGE) -> Tensor:
    """One visit of one pair whose log-ratios are really these; True [2] where it was passed over."""
    truth = _seen([chosen], [rejected])
    held_R = shrinking.stale_sums_R([pair], truth, objective=objective)
    held = torch.zeros(2, dtype=torch.bool) if held_R is None else ~held_R.isnan()
    if held_R is not None:
        truth = _seen([float(held_R[0]) if held[0] else chosen], [float(held_R[1]) if held[1] else rejected])
    shrinking.record([pair], truth, active_R=active(objective, truth) & ~held, stale_R=held)
    return held


def _taught(moves: float = 0.1, n_pairs: int = 100) -> Shrinking:
    """Pairs 1 … n − 1 have been seen twice, dead, having moved back and forth by `moves` nats."""
    shrinking = Shrinking(n_pairs)
    for pair in range(1, LEAST_MOVES + 1):
        _visit(shrinking, pair, 9.0, -9.0)
        _visit(shrinking, pair, 9.0 + moves * (-1) ** pair, -9.0 - moves * (-1) ** pair)
    return shrinking


def test_active_is_where_the_loss_has_a_slope() -> None:
    seen = _seen([1.9, 2.0, 3.0], [-2.0, 0.0, -1.9])
    assert active(HINGE, seen).tolist() == [True, False, False, True, False, True]
    assert active(DpoHinge(beta=0.5), _seen([2.0, 1.0], [0.0, 0.0])).tolist() == [False, False, True, True]


def test_nothing_is_passed_over_before_moves_were_seen() -> None:
    shrinking = Shrinking(10)
    for _ in range(3):
        for pair in range(5):
            assert not _visit(shrinking, pair, 50.0, -50.0).any()


def test_far_ones_are_passed_over_near_ones_and_active_ones_are_not() -> None:
    shrinking = _taught(moves=0.1)  # moves of ±.1: mean 0, deviation .1; .2 nats a visit are allowed for
    _visit(shrinking, 0, 9.0, -2.1)
    assert _visit(shrinking, 0, 9.0, -2.1).tolist() == [True, False]
    shrinking = _taught(moves=0.1)
    _visit(shrinking, 0, 1.0, -2.3)
    assert _visit(shrinking, 0, 1.0, -2.3).tolist() == [False, True]


def test_one_side_alone_may_be_passed_over() -> None:
    """As training saturates: chosen responses never leave, so nothing is known of how they would come back."""
    shrinking = Shrinking(100)
    for pair in range(LEAST_MOVES + 1):
        _visit(shrinking, pair, 0.5, -9.0)
        _visit(shrinking, pair, 0.5, -9.0)
    assert _visit(shrinking, 0, 0.5, -9.0).tolist() == [False, True]


def test_a_pairwise_objective_passes_both_sides_over_or_none() -> None:
    objective = DpoHinge(beta=0.5, margin=1.0)  # dead from r_w − r_l ≥ 2 nats
    shrinking = Shrinking(100)
    for pair in range(1, LEAST_MOVES + 1):
        for move in (0.0, 0.1 * (-1) ** pair):
            _visit(shrinking, pair, 5.0 + move, -5.0 + move, objective)
    for pair, chosen, held in ((0, 9.0, [True, True]), (99, 2.1, [False, False])):
        _visit(shrinking, pair, chosen, 0.0, objective)
        assert _visit(shrinking, pair, chosen, 0.0, objective).tolist() == held


def test_after_so_many_skips_there_is_a_look_and_it_counts_what_was_missed() -> None:
    shrinking = _taught()
    assert not _visit(shrinking, 0, 9.0, -9.0).any()
    for _ in range(MOST_SKIPS):
        assert _visit(shrinking, 0, 1.0, -9.0).all()  # the chosen one became active unseen
    assert shrinking.skipped == 2 * MOST_SKIPS
    assert not _visit(shrinking, 0, 1.0, -9.0).any()
    assert (shrinking.rechecked, shrinking.missed) == (2, 1)
    assert not _visit(shrinking, 0, 1.0, -9.0)[0]  # it is looked at again


def test_what_is_left_over_is_checked_at_the_end() -> None:
    shrinking = _taught()
    _visit(shrinking, 0, 9.0, -9.0)
    _visit(shrinking, 0, 9.0, -9.0)
    assert shrinking.pending == [0]
    shrinking.recheck([0], torch.tensor([False, True]))
    assert (shrinking.rechecked, shrinking.missed) == (2, 1)
    assert shrinking.pending == []


def test_misses_make_it_careful() -> None:
    """Half of what is passed over comes back unseen: after a while nothing is passed over any more."""
    rng = random.Random(0)  # noqa: S311  # a simulation
    shrinking = _taught(n_pairs=4 * WINDOW)
    passed_over = []
    for _ in range(40):
        held = [_visit(shrinking, pair, rng.choice([1.0, 4.0]), -9.0)[0] for pair in range(LEAST_MOVES + 1, 4 * WINDOW)]
        passed_over.append(sum(map(int, held)))
    assert shrinking.missed > 0
    assert max(passed_over[:5]) > 20
    assert sum(passed_over[30:]) == 0


def test_state_travels_through_a_checkpoint() -> None:
    rng = random.Random(0)  # noqa: S311  # a simulation
    shrinking = _taught()
    for _ in range(300):
        _visit(shrinking, rng.randrange(100), rng.gauss(3, 2), rng.gauss(-3, 2))
    again = Shrinking(100, state=json.loads(json.dumps(shrinking.state())))
    assert json.dumps(again.state()) == json.dumps(shrinking.state())
    for pair in range(100):
        one, other = (s.stale_sums_R([pair], _seen([0.0], [0.0]), objective=HINGE) for s in (shrinking, again))
        assert (one is None and other is None) or torch.equal(one.nan_to_num(), other.nan_to_num())  # type: ignore[union-attr]  # both or neither
