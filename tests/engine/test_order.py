"""The order of the data is a pure function of (seed, epoch, position)."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.engine.order import Order, by_prompt, permutation, started_steps

sizes = st.integers(1, 200)
batches = st.integers(1, 40)
seeds = st.integers(0, 2**64)


@given(pairs=sizes, batch=batches, seed=seeds, epoch=st.integers(0, 5))
@settings(max_examples=200, deadline=None)
def test_every_epoch_shows_every_pair_once(pairs: int, batch: int, seed: int, epoch: int) -> None:
    order = Order(pairs=pairs, batch_pairs=batch, epochs=epoch + 1, seed=seed)
    per = order.steps_per_epoch
    seen = [order.batch(step) for step in range(epoch * per, (epoch + 1) * per)]
    assert sorted(i for b in seen for i in b.indices) == list(range(pairs))
    assert {b.epoch for b in seen} == {epoch}
    lengths = [len(b.indices) for b in seen]
    assert max(lengths) <= batch
    assert max(lengths) - min(lengths) <= 1


@given(pairs=sizes, batch=batches, seed=seeds, kills=st.lists(st.integers(1, 7), min_size=1, max_size=12))
@settings(max_examples=500, deadline=None)
def test_any_schedule_of_kills_and_resumes_loses_and_repeats_nothing(
    pairs: int, batch: int, seed: int, kills: list[int]
) -> None:
    """Each life redoes the steps since its checkpoint; what counts is the last visit of each step."""
    order = Order(pairs=pairs, batch_pairs=batch, epochs=2, seed=seed)
    step, done = 0, {}
    lives = iter(kills)
    while step < order.steps:
        for at in range(step, min(order.steps, step + next(lives, order.steps))):
            done[at] = Order(pairs=pairs, batch_pairs=batch, epochs=2, seed=seed).batch(at).indices
        step = min(order.steps, max(done) + 1)
        if step < order.steps:
            step -= min(step, seed % 3)
    visits = np.bincount([i for indices in done.values() for i in indices], minlength=pairs)
    assert visits.tolist() == [2] * pairs


def test_the_order_is_the_published_one() -> None:
    """Philox-4x64 with key (seed, epoch): golden values, so that an old checkpoint meets the same order later."""
    assert permutation(10, seed=0, epoch=0).tolist() == [0, 2, 9, 1, 8, 5, 4, 3, 6, 7]
    assert permutation(10, seed=7, epoch=3).tolist() == [2, 5, 9, 7, 3, 0, 6, 8, 4, 1]


def test_epochs_and_seeds_differ() -> None:
    orders = {tuple(permutation(50, seed=s, epoch=e).tolist()) for s in range(5) for e in range(5)}
    assert len(orders) == 25


def test_every_place_is_equally_likely() -> None:
    """Chi-square over 4,000 permutations of 8: 49 degrees of freedom, 99.9 % quantile 85.4."""
    counts = np.zeros((8, 8))
    for seed in range(4000):
        counts[np.arange(8), permutation(8, seed=seed, epoch=0)] += 1
    assert ((counts - 500) ** 2 / 500).sum() < 85.4


@pytest.mark.parametrize(
    ("pairs", "batch", "epochs", "limit", "steps"),
    [
        (30, 1, 0.1, None, 3),  # 0.1 · 30 is 3.0000000000000004 in floating point
        (17, 16, 1, None, 2),
        (17, 16, 1.5, None, 3),
        (1000, 16, 3, None, 189),
        (1000, 16, 3, 10, 10),
        (5, 8, 0.01, None, 1),
        (64, 16, 2, 100, 8),
    ],
)
def test_steps(pairs: int, batch: int, epochs: float, limit: int | None, steps: int) -> None:
    assert Order(pairs=pairs, batch_pairs=batch, epochs=epochs, seed=0, max_steps=limit).steps == steps


def test_a_started_step_of_a_share_is_a_whole_one() -> None:
    """In integers ⌈n % of steps⌉ is −⌊−n · steps / 100⌋; in floating point 27 of these 20,200 are one too many."""
    shares = [(n, n / 100) for n in range(101)]
    assert all(started_steps(share, steps) == -(-n * steps // 100) for n, share in shares for steps in range(1, 201))
    assert math.ceil(0.07 * 100) == 8, "the fault that this is about"
    assert started_steps(0.07, 100) == 7
    assert started_steps(1e-9, 100) == 1  # written 1e-09


def test_a_remainder_is_spread_over_the_epoch() -> None:
    order = Order(pairs=17, batch_pairs=16, epochs=1, seed=0)
    assert [len(order.batch(step).indices) for step in range(2)] == [8, 9]


@given(pairs=sizes, batch=batches)
@settings(max_examples=100, deadline=None)
def test_pairs_seen_adds_up(pairs: int, batch: int) -> None:
    order = Order(pairs=pairs, batch_pairs=batch, epochs=2, seed=1)
    seen = [order.pairs_seen(step) for step in range(order.steps + 1)]
    assert [b - a for a, b in pairwise(seen)] == [len(order.batch(step).indices) for step in range(order.steps)]
    assert order.epochs_done(order.steps) == 2


# --- by prompt -------------------------------------------------------------------------------------------------------

prompt_lists = st.lists(st.integers(0, 12), min_size=1, max_size=120).map(tuple)


@given(prompts=prompt_lists, batch=batches, seed=seeds, epoch=st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_by_prompt_every_epoch_shows_every_pair_once(
    prompts: tuple[int, ...], batch: int, seed: int, epoch: int
) -> None:
    order = Order(len(prompts), batch, epoch + 1, seed, prompts=prompts)
    plain = Order(len(prompts), batch, epoch + 1, seed)
    per = order.steps_per_epoch
    steps = range(epoch * per, (epoch + 1) * per)
    assert sorted(i for step in steps for i in order.batch(step).indices) == list(range(len(prompts)))
    # batches are as large as without, so that all that counts steps and pairs stays as it is
    assert [len(order.batch(step).indices) for step in steps] == [len(plain.batch(step).indices) for step in steps]


@given(prompts=prompt_lists, batch=batches, seed=seeds)
@settings(max_examples=30, deadline=None)
def test_by_prompt_the_order_is_a_pure_function(prompts: tuple[int, ...], batch: int, seed: int) -> None:
    """Asked for in any sequence, by a new process too: nothing is remembered but what can be worked out again."""
    order = Order(len(prompts), batch, 2, seed, prompts=prompts)
    forwards = [order.batch(step) for step in range(order.steps)]
    by_prompt.cache_clear()
    permutation.cache_clear()
    assert [order.batch(step) for step in reversed(range(order.steps))] == forwards[::-1]


def test_by_prompt_pairs_of_a_prompt_meet() -> None:
    """Eight prompts of six pairs in batches of 16; and one of 40 that fills two of these and half of a third."""
    order = Order(48, 18, 1, 0, prompts=tuple(i % 8 for i in range(48)))
    for step in range(order.steps):
        counts = np.bincount([i % 8 for i in order.batch(step).indices])
        assert sorted(counts[counts > 0]) in ([4, 6, 6], [2, 2, 6, 6])  # 48 pairs are three batches of 16
    prompts = (0,) * 40 + tuple(range(1, 25))
    long = Order(64, 16, 1, 3, prompts=prompts)
    assert sorted(sum(prompts[i] == 0 for i in long.batch(step).indices) for step in range(4)) == [0, 8, 16, 16]


def test_by_prompt_a_long_prompt_is_spread_over_the_epoch() -> None:
    """Two prompts of 160 pairs, 20 batches of 16: which batch is whose is drawn, and another time is another order."""
    prompts = (0,) * 160 + (1,) * 160
    rows = {
        tuple(prompts[Order(320, 16, 2, seed, prompts=prompts).batch(step).indices[0]] for step in range(20))
        for seed in range(8)
    }
    assert len(rows) == 8
    assert all(sum(row) == 10 for row in rows)


def test_by_prompt_the_order_is_the_published_one() -> None:
    """Golden values, so that an old checkpoint meets the same order later."""
    order = Order(10, 4, 2, 7, prompts=(0, 1, 0, 1, 0, 1, 2, 0, 0, 0))
    assert [order.batch(step).indices for step in range(order.steps)] == [
        (1, 3, 5), (8, 4, 2), (7, 9, 0, 6),
        (9, 2, 4), (3, 1, 5), (8, 0, 7, 6),
    ]  # fmt: skip
