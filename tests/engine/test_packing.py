"""Packing: every token once, budgets kept, the same packs every time."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.engine.packing import Group, Segment, Span, lay_out, pack_groups
from trimtab.records import TokenPair

ids = st.lists(st.integers(0, 50_000), min_size=1, max_size=40).map(tuple)


@st.composite
def group_lists(draw: st.DrawFn) -> list[Group]:
    out: list[Group] = []
    for _ in range(draw(st.integers(1, 25))):
        responses = tuple(draw(st.lists(ids, min_size=1, max_size=3)))
        first = 10 * len(out)
        out.append(Group(draw(ids), responses, tuple(range(first, first + len(responses)))))
    return out


def test_a_pack_of_two_groups_worked_by_hand() -> None:
    one = lay_out([Group((7, 8), ((1, 2, 3), (4,)), (0, 1)), Group((9,), ((5, 6),), (3,))])
    assert one.ids_T == (7, 8, 1, 2, 3, 4, 9, 5, 6)
    assert one.positions_T == (0, 1, 2, 3, 4, 2, 0, 1, 2)
    assert one.segments == (Segment(2, (3, 1)), Segment(1, (2,)))
    #                    1  2  3 | 4 | 5  6      row 1 is the prompt's last, for both responses
    assert one.take_N == (1, 2, 3, 1, 6, 7)
    assert one.targets_N == (1, 2, 3, 4, 5, 6)
    assert one.spans == (Span(0, 0, 3), Span(1, 3, 4), Span(3, 4, 6))
    assert one.sequences == (((7, 8, 1, 2, 3), 2), ((7, 8, 4), 2), ((9, 5, 6), 1))
    assert one.n_sequence_tokens == 5 + 3 + 3


def test_responses_behind_an_earlier_pack_worked_by_hand() -> None:
    first = lay_out([Group((9,), ((5, 6),), (2,)), Group((7, 8), ((1, 2, 3),), (0,))])
    assert first.prompts_at == {1: 0, 0: 3}
    behind = lay_out([Group((7, 8), ((4, 2),), (1,)), Group((9,), ((6, 5, 4),), (3,))], behind=first)
    assert behind.ids_T == (4, 2, 6, 5, 4)
    assert behind.positions_T == (2, 3, 1, 2, 3)
    assert behind.segments == (Segment(2, (2,), prompt_at=3), Segment(1, (3,), prompt_at=0))
    #                     rows 0 to 7 are the first pack's, 8 to 12 this one's; 4 and 0 are the prompts' last
    assert behind.take_N == (4, 8, 0, 10, 11)
    assert behind.targets_N == behind.ids_T


def test_responses_are_cut_into_runs_of_whole_groups() -> None:
    one = lay_out([Group((9,), ((5, 6), (5,)), (0, 1)), Group((7,), ((1, 2),), (2,)), Group((8,), ((4,) * 6,), (4,))])
    keys = {most: [[span.key for span in run] for run in one.units(most)] for most in (None, 1, 4, 5, 11)}
    assert keys[None] == keys[11] == [[0, 1, 2, 4]]
    assert keys[1] == keys[4] == [[0, 1], [2], [4]]
    assert keys[5] == [[0, 1, 2], [4]]


def test_a_group_can_be_reduced_to_some_of_its_responses() -> None:
    group = Group((7, 8), ((1, 2, 3), (4,)), (4, 5))
    assert group.only({5, 9}) == Group((7, 8), ((4,),), (5,))
    assert group.only({4, 5}) == group
    assert group.only({1}) is None


def test_a_pair_keeps_its_sides() -> None:
    group = Group.of_pair(TokenPair("a", (1,), (2, 3), (4,)), 5)
    assert group.keys == (10, 11)
    assert group.responses == ((2, 3), (4,))
    assert (group.n_tokens, group.longest_sequence) == (4, 3)


@settings(max_examples=60, deadline=None)
@given(group_lists(), st.integers(1, 200), st.sampled_from(["packed", "padded"]))
def test_every_group_once_within_the_budget(groups: list[Group], budget: int, layout: str) -> None:
    packs = pack_groups(groups, budget_tokens=budget, layout=layout)
    assert sorted(g.keys for p in packs for g in p.groups) == sorted(g.keys for g in groups)
    by_keys = {g.keys: g for g in groups}
    for one in packs:
        assert all(by_keys[g.keys] == g for g in one.groups)
        if layout == "packed":
            cost = sum(g.n_tokens for g in one.groups)
            assert cost == one.n_tokens == len(one.positions_T)
        else:
            cost = len(one.spans) * max(g.longest_sequence for g in one.groups)
        assert cost <= budget or len(one.groups) == 1
    assert packs == pack_groups(list(groups), budget_tokens=budget, layout=layout)


@settings(max_examples=60, deadline=None)
@given(group_lists())
def test_every_target_is_predicted_by_the_token_before_it(groups: list[Group]) -> None:
    one = lay_out(groups)
    assert [span.key for span in one.spans] == [key for g in groups for key in g.keys]
    assert one.spans[0].start == 0
    assert one.spans[-1].stop == len(one.targets_N) == len(one.take_N)
    sequences = iter(one.sequences)
    for span in one.spans:
        row, prompt = next(sequences)
        assert one.targets_N[span.start : span.stop] == row[prompt:]
        for offset, row_number in enumerate(one.take_N[span.start : span.stop]):
            assert one.ids_T[row_number] == row[prompt + offset - 1]
            assert one.positions_T[row_number] == prompt + offset - 1


def _ultrafeedback_like(pairs: int) -> list[Group]:
    rng = np.random.default_rng(0)

    def ids(median: float, spread: float) -> tuple[int, ...]:
        return (1,) * min(512, max(8, int(rng.lognormal(median, spread))))

    return [Group(ids(4.9, 0.7), (ids(5.4, 0.6), ids(5.3, 0.6)), (2 * index, 2 * index + 1)) for index in range(pairs)]


@pytest.mark.parametrize("budget", [8192, 16_384, 32_768])
@pytest.mark.parametrize("pairs", [16, 64, 512])
def test_packs_are_full_on_ultrafeedback_like_lengths(pairs: int, budget: int) -> None:
    """No more packs than the tokens need, and all but one at least 95 % full: that one takes what is left."""
    groups = _ultrafeedback_like(pairs)
    fill = sorted(one.n_tokens / budget for one in pack_groups(groups, budget_tokens=budget))
    assert len(fill) == -(-sum(g.n_tokens for g in groups) // budget)
    assert min(fill[1:], default=1.0) >= 0.95
    if (pairs, budget) == (512, 8192):  # enough packs for that one to hardly count
        assert sum(fill) / len(fill) >= 0.95


def test_long_groups_go_first() -> None:
    """4, 4, 6, 6 into tens: in order of arrival 4 + 4, 6, 6; longest first 6 + 4, 6 + 4."""
    groups = [Group((1,), ((2,) * (n - 1),), (i,)) for i, n in enumerate((4, 4, 6, 6))]
    assert [one.keys for one in pack_groups(groups, budget_tokens=10)] == [(0, 2), (1, 3)]


def test_importing_the_packer_costs_no_torch() -> None:
    code = "import sys, trimtab.engine.packing; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
