"""Packing: every token once, budgets kept, the same packs every time."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.engine.packing import Example, Group, Span, Unit, lay_out, pack_groups
from trimtab.engine.trie import LEAST_SHARED, Branch
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
    assert one.branches == (Branch(5), Branch(1, 0, 2), Branch(3))
    #                    1  2  3 | 4 | 5  6      row 1 is the prompt's last, for both responses
    assert one.take_N == (1, 2, 3, 1, 6, 7)
    assert one.targets_N == (1, 2, 3, 4, 5, 6)
    assert one.spans == (Span(0, (0, 1, 2)), Span(1, (3,)), Span(3, (4, 5)))
    assert one.examples == (
        Example((7, 8, 1, 2, 3), 2, (0, 1, 2)), Example((7, 8, 4), 2, (3,)), Example((9, 5, 6), 1, (4, 5)),
    )  # fmt: skip


def test_what_pairs_share_stands_once_worked_by_hand() -> None:
    """One prompt, four pairs of four responses; one of them begins as another does, and a whole one is in two pairs."""
    a, b, c, d = (1, 2, 3, 4), (1, 2, 5), (6,), (1, 2, 3, 9)
    one = lay_out([Group((7, 8), pair, (2 * i, 2 * i + 1)) for i, pair in enumerate([(a, b), (c, a), (b, d)])])
    assert one.ids_T == (7, 8, 1, 2, 3, 4, 5, 6, 9)
    assert one.branches == (Branch(6), Branch(1, 0, 4), Branch(1, 0, 2), Branch(1, 0, 5))
    assert one.positions_T == (0, 1, 2, 3, 4, 5, 4, 2, 5)
    #                     a: 1  2  3  4 | b: 5 | c: 6 | d: 9      behind 7 8, 1, 2, 3 | 2 | 8 | 3
    assert one.targets_N == (1, 2, 3, 4, 5, 6, 9)
    assert one.take_N == (1, 2, 3, 4, 3, 1, 4)
    assert [span.rows for span in one.spans] == [(0, 1, 2, 3), (0, 1, 4), (5,), (0, 1, 2, 3), (0, 1, 4), (0, 1, 2, 6)]
    assert [example.ids[2:] for example in one.examples] == [a, b, c, d]
    assert one.units(1) == [Unit(0, 7, one.spans)]  # each pair shares a target with another


def test_a_conversation_goes_on_behind_its_earlier_turn() -> None:
    turn, answer, other = tuple(range(100, 120)), (1, 2, 3), (4, 5)
    later = (*turn, *answer, 120)
    one = lay_out([Group(turn, (answer, other), (0, 1)), Group(later, ((6,), (7,)), (2, 3))])
    assert one.branches == (Branch(23), Branch(2, 0, 20), Branch(2, 0, 23), Branch(1, 2, 1))
    assert one.targets_N == (1, 2, 3, 4, 5, 6, 7)
    assert one.take_N == (19, 20, 21, 19, 23, 25, 25)


@pytest.mark.parametrize(("n", "shared"), [(LEAST_SHARED - 1, False), (LEAST_SHARED, True)])
def test_prompts_share_a_beginning_that_is_long_enough(n: int, shared: bool) -> None:
    head = tuple(range(n))
    one = lay_out([Group((*head, 50, 51), ((1,), (2,)), (0, 1)), Group((*head, 60), ((1,), (2,)), (2, 3))])
    apart = (n + 4) + (n + 3)
    assert one.n_tokens == (apart - n if shared else apart)


def test_responses_behind_an_earlier_pack_worked_by_hand() -> None:
    first = lay_out([Group((9,), ((5, 6),), (2,)), Group((7, 8), ((1, 2, 3),), (0,))])
    behind = lay_out([Group((7, 8), ((1, 2, 4),), (1,)), Group((9,), ((6, 5, 4),), (3,))], behind=first)
    assert behind.ids_T == (4, 6, 5, 4)
    assert behind.positions_T == (4, 1, 2, 3)
    assert behind.branches == (Branch(1, 1, 4), Branch(3, 0, 1))
    #                     rows 0 to 7 are the first pack's, 8 to 11 this one's; 4 and 0 are the prompts' last
    assert behind.take_N == (4, 5, 6, 0, 9, 10)
    assert behind.targets_N == (1, 2, 4, 6, 5, 4)
    nothing_new = lay_out([Group((7, 8), ((1, 2),), (1,))], behind=first)
    assert (nothing_new.ids_T, nothing_new.take_N, nothing_new.targets_N) == ((), (4, 5), (1, 2))


def test_responses_are_cut_into_runs_of_whole_groups() -> None:
    one = lay_out([Group((9,), ((5, 6), (4,)), (0, 1)), Group((7,), ((1, 2),), (2,)), Group((8,), ((4,) * 6,), (4,))])
    keys = {most: [[span.key for span in run.spans] for run in one.units(most)] for most in (None, 1, 4, 5, 11)}
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


few = st.lists(st.integers(0, 2), min_size=1, max_size=8).map(tuple)


@st.composite
def shared_groups(draw: st.DrawFn) -> list[Group]:
    """Pairs of few prompts and few tokens, so that prompts, responses and their beginnings are often the same."""
    head = tuple(range(LEAST_SHARED))
    prompts = draw(
        st.lists(st.tuples(st.sampled_from([(), head]), few).map(lambda p: p[0] + p[1]), min_size=1, max_size=3)
    )
    return [
        Group(draw(st.sampled_from(prompts)), (draw(few), draw(few)), (2 * i, 2 * i + 1))
        for i in range(draw(st.integers(1, 12)))
    ]


def _beginnings(groups: Sequence[Group]) -> int:
    """Distinct beginnings of sequences; prompts whose first tokens differ have none in common."""
    return len(
        {
            (group.prompt_ids[:LEAST_SHARED], (group.prompt_ids + response)[:n])
            for group in groups
            for response in group.responses
            for n in range(1, len(group.prompt_ids + response) + 1)
        }
    )


@settings(max_examples=60, deadline=None)
@given(group_lists() | shared_groups(), st.integers(1, 200), st.sampled_from(["packed", "padded"]))
def test_every_group_once_within_the_budget(groups: list[Group], budget: int, layout: str) -> None:
    packs = pack_groups(groups, budget_tokens=budget, layout=layout)
    assert sorted(g.keys for p in packs for g in p.groups) == sorted(g.keys for g in groups)
    by_keys = {g.keys: g for g in groups}
    for one in packs:
        assert all(by_keys[g.keys] == g for g in one.groups)
        if layout == "packed":
            cost = _beginnings(one.groups)
            assert cost == one.n_tokens == len(one.positions_T) == sum(branch.n_rows for branch in one.branches)
        else:
            cost = len(one.examples) * max(g.longest_sequence for g in one.groups)
        assert cost <= budget or len(one.groups) == 1
    assert packs == pack_groups(list(groups), budget_tokens=budget, layout=layout)


@settings(max_examples=60, deadline=None)
@given(group_lists() | shared_groups(), st.integers(0, 11))
def test_every_target_is_predicted_by_the_token_before_it(groups: list[Group], n_first: int) -> None:
    """Along the path of its branch; in one pack, and in two of which the second stands behind the first."""
    first, others = groups[:n_first], groups[n_first:]
    earlier = lay_out(first) if first else None
    packs = [(earlier, None)] if earlier else []
    if others:
        packs.append((lay_out(others, behind=earlier), earlier))
    for pack, before in packs:
        assert pack is not None
        ids = (before.ids_T if before else ()) + pack.ids_T
        branches = (before.branches if before else ()) + pack.branches
        positions = (before.positions_T if before else ()) + pack.positions_T
        sequence_of = _sequences(branches)
        assert [span.key for span in pack.spans] == [key for g in pack.groups for key in g.keys]
        assert {row for span in pack.spans for row in span.rows} == set(range(len(pack.take_N)))
        assert len(set(zip(pack.take_N, pack.targets_N, strict=True))) == len(pack.take_N)
        spans = iter(pack.spans)
        for group in pack.groups:
            for response, span in zip(group.responses, spans, strict=False):
                sequence = group.prompt_ids + response
                assert tuple(pack.targets_N[row] for row in span.rows) == response
                for n, row in enumerate(span.rows, start=len(group.prompt_ids)):
                    rows = sequence_of[pack.take_N[row]]
                    assert tuple(ids[at] for at in rows) == sequence[:n]
                    assert [positions[at] for at in rows] == list(range(n))


def _sequences(branches: Sequence[Branch]) -> list[list[int]]:
    """Of each row, the rows of its sequence up to itself."""
    rows: list[list[int]] = []
    sequences: list[list[int]] = []
    for branch in branches:
        so_far = [] if branch.parent is None else sequences[rows[branch.parent][branch.n_shared - 1]]
        rows.append(list(range(len(sequences), len(sequences) + branch.n_rows)))
        for row in rows[-1]:
            so_far = [*so_far, row]
            sequences.append(so_far)
    return sequences


@settings(max_examples=100, deadline=None)
@given(shared_groups(), st.none() | st.integers(1, 40))
def test_units_cover_the_targets_and_share_none(groups: list[Group], most: int | None) -> None:
    one = lay_out(groups)
    units = one.units(most)
    assert [unit.start for unit in units] == [0, *(unit.stop for unit in units[:-1])]
    assert units[-1].stop == len(one.targets_N)
    assert sorted(span.key for unit in units for span in unit.spans) == sorted(one.keys)
    for unit in units:
        assert {row for span in unit.spans for row in span.rows} == set(range(unit.start, unit.stop))
        assert {span.key ^ 1 for span in unit.spans} == {span.key for span in unit.spans}  # both sides of each pair


def test_pairs_of_a_prompt_meet_in_a_pack_where_it_holds_them() -> None:
    """Two prompts with the six pairs of four responses of 10 tokens each, mixed: 45 tokens a prompt, once each."""
    groups = []
    for i, (a, b) in enumerate(itertools.combinations(range(4), 2)):
        for prompt in (1, 2):
            responses = tuple((10 * prompt + n,) * 10 for n in (a, b))
            groups.append(Group((prompt,) * 5, responses, (4 * i + 2 * prompt, 4 * i + 2 * prompt + 1)))
    packs = pack_groups(groups, budget_tokens=50)
    assert [(one.n_tokens, len(one.groups)) for one in packs] == [(45, 6), (45, 6)]
    assert {group.prompt_ids for group in packs[0].groups} == {(1,) * 5}
    # a conversation that two prompts begin with draws them together, before a fuller pack that has none of it
    talk = (9,) * 30
    begun = [Group((*talk, n), ((n, n),), (n,)) for n in (1, 2)]
    other = Group((8,) * 34, ((3,),), (3,))
    assert [one.keys for one in pack_groups([other, *begun], budget_tokens=40)] == [(3,), (1, 2)]


def _ultrafeedback_like(pairs: int) -> list[Group]:
    rng = np.random.default_rng(0)

    def ids(median: float, spread: float) -> tuple[int, ...]:
        return (1,) * min(512, max(8, int(rng.lognormal(median, spread))))

    return [
        Group(
            (index, *ids(4.9, 0.7)[1:]), ((2, *ids(5.4, 0.6)[1:]), (3, *ids(5.3, 0.6)[1:])), (2 * index, 2 * index + 1)
        )
        for index in range(pairs)
    ]


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
    groups = [Group((i,), ((2,) * (n - 1),), (i,)) for i, n in enumerate((4, 4, 6, 6))]
    assert [one.keys for one in pack_groups(groups, budget_tokens=10)] == [(0, 2), (1, 3)]


def test_importing_the_packer_costs_no_torch() -> None:
    code = "import sys, trimtab.engine.packing; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
